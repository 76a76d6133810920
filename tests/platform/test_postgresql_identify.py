# SPDX-License-Identifier: Apache-2.0
"""What the writer says of real servers: their files, their facts, and what a replica of them would lack."""

import os
import subprocess
from collections.abc import Iterator

import pytest

from slackwater.model.component import FileRole, FileSet
from slackwater.model.facts import Severity
from slackwater.writers._postgresql.controlfile import read_control_file
from slackwater.writers.postgresql import PostgresqlWriter
from tests.platform.postgresql_support import OWNER, PROGRAMS, Cluster, as_owner, codes, identify, new_cluster

pytestmark = [pytest.mark.root, pytest.mark.postgresql]

WRITER = PostgresqlWriter()


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with new_cluster() as cluster:
        cluster.initdb()
        yield cluster


@pytest.mark.parametrize("version", sorted(PROGRAMS))
def test_a_server_is_named_by_its_data_directory_and_knows_itself(version: int) -> None:
    with new_cluster(version) as cluster:
        cluster.initdb()
        cluster.start()
        component = identify(WRITER, cluster)
        assert component.ref.name == str(cluster.data)
        assert component.findings == ()
        assert component.survives_power_cut
        assert component.main_pid == cluster.pid
        assert component.files == (FileSet(FileRole.DATA, str(cluster.data)),)
        assert component.configuration == ()
        facts = component.facts
        assert str(facts["version"]).startswith(f"{version}.")
        assert facts["bin_dir"] == str(cluster.programs)
        assert (facts["port"], facts["socket_directory"]) == (5432, str(cluster.home))
        assert (facts["uid"], facts["gid"], facts["timeline"]) == (OWNER.pw_uid, OWNER.pw_gid, 1)
        assert (facts["control"], facts["start_directory"]) == ("owner", str(cluster.data))
        assert (facts["wal_level"], facts["archive_mode"], facts["max_connections"]) == ("replica", "off", 100)
        assert facts["system_identifier"] == str(cluster.value("select system_identifier from pg_control_system()"))
        assert all(isinstance(each, str | int | float | bool | None) for each in facts.values())
        processes = WRITER.processes(component)
        backends = {each[0] for each in cluster.sql("select pid from pg_stat_activity where pid <> pg_backend_pid()")}
        assert backends | {cluster.pid} <= processes


def test_everything_that_links_lead_to_belongs_to_it(cluster: Cluster) -> None:
    home = cluster.home
    for name in ("wal", "space", "logs"):
        (home / name).mkdir()
        os.chown(home / name, OWNER.pw_uid, OWNER.pw_gid)
    (cluster.data / "pg_wal").rename(home / "wal/real")
    (home / "wal/way").symlink_to("real")
    (cluster.data / "pg_wal").symlink_to(home / "wal/way")
    (cluster.data / "pg_hba.conf").rename(home / "hba.conf")
    (cluster.data / "pg_hba.conf").symlink_to(home / "hba.conf")
    (cluster.data / "log").symlink_to(home / "logs")
    (home / "more.conf").write_text("work_mem = 5MB\n")
    cluster.configure(f"include '{home}/more.conf'\n")
    cluster.start()
    cluster.sql(f"create tablespace space location '{home}/space'")
    (number,) = cluster.sql("select oid from pg_tablespace where spcname = 'space'")[0]
    component = identify(WRITER, cluster)
    assert component.refusals == ()
    assert set(component.files) == {
        FileSet(FileRole.DATA, str(cluster.data)),
        FileSet(FileRole.LOG, str(home / "wal/real"), "pg_wal"),
        FileSet(FileRole.TABLESPACE, str(home / "space"), f"pg_tblspc/{number}"),
    }
    assert component.files[0].role is FileRole.DATA
    assert set(component.configuration) == {str(home / "hba.conf"), str(home / "more.conf")}

    (home / "space").rename(home / "elsewhere")
    assert [each.code for each in identify(WRITER, cluster).refusals] == ["link-broken"]


def test_what_a_replica_would_lack_is_named(cluster: Cluster) -> None:
    cluster.start()
    cluster.sql("create database shop")
    cluster.sql("create role batch login")
    cluster.sql("create unlogged table cache (i int)", "shop")
    cluster.sql("alter database shop set synchronous_commit = off")
    cluster.sql("alter role batch set synchronous_commit to 'off'")
    found = {each.code: each for each in identify(WRITER, cluster).findings}
    assert set(found) == {"unlogged-tables", "synchronous-commit-off"}
    assert all(each.severity is Severity.WARNING for each in found.values())
    assert "database shop" in found["unlogged-tables"].sentence
    assert "public.cache" in found["unlogged-tables"].sentence
    assert "database shop; role batch" in found["synchronous-commit-off"].sentence
    assert "the server" not in found["synchronous-commit-off"].sentence

    cluster.sql("alter system set synchronous_commit = off")
    cluster.sql("select pg_reload_conf()")
    sentence = {each.code: each.sentence for each in identify(WRITER, cluster).findings}["synchronous-commit-off"]
    assert "the server; database shop" in sentence

    for name in ("fsync", "full_page_writes"):
        cluster.sql(f"alter system set {name} = off")
        cluster.sql("select pg_reload_conf()")
        component = identify(WRITER, cluster)
        assert not component.survives_power_cut
        assert f"{name.replace('_', '-')}-off" in codes(component)
        cluster.sql(f"alter system reset {name}")


def test_a_name_that_hides_a_function_of_ours_is_not_called(cluster: Cluster) -> None:
    """An owner of a database must not have code of theirs run as the owner of the cluster."""
    cluster.start()
    cluster.sql("create table public.caught (who text)")
    cluster.sql("alter database postgres set search_path = public, pg_catalog")
    cluster.sql(
        "create function public.pg_is_in_recovery() returns boolean language plpgsql as"
        " $$ begin insert into caught values (current_user); return true; end $$"
    )
    assert codes(identify(WRITER, cluster)) == set()
    assert cluster.value("select count(*) from public.caught") == 0


def test_a_standby_is_refused(cluster: Cluster) -> None:
    as_owner("touch", str(cluster.data / "standby.signal"))
    cluster.start()
    assert [each.code for each in identify(WRITER, cluster).refusals] == ["standby"]


def test_a_managed_server_is_named_as_such(cluster: Cluster) -> None:
    (cluster.data / "patroni.dynamic.json").write_text("{}")
    cluster.start()
    component = identify(WRITER, cluster)
    assert component.facts["managed_by"] == "Patroni"
    assert codes(component) == {"managed"}
    (cluster.data / "patroni.dynamic.json").unlink()
    assert "managed_by" not in identify(WRITER, cluster).facts


def test_a_server_on_files_that_were_moved_away_is_refused(cluster: Cluster) -> None:
    cluster.start()
    aside = cluster.home / "aside"
    cluster.data.rename(aside)
    subprocess.run(["cp", "-a", aside, cluster.data], check=True)
    (cluster.data / "postmaster.pid").unlink()
    (found,) = [each for each in WRITER.identify() if each.facts.get("data_directory") == str(aside)]
    assert [each.code for each in found.refusals] == ["moved"]


@pytest.mark.parametrize("version", sorted(PROGRAMS))
def test_the_control_file_says_what_the_engines_own_tool_says(version: int) -> None:
    with new_cluster(version) as cluster:
        cluster.initdb()
        said = as_owner(str(cluster.programs / "pg_controldata"), "-D", str(cluster.data)).stdout
        tool = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in said.splitlines())}
        found = read_control_file(str(cluster.data))
        assert found.system_identifier == tool["Database system identifier"]
        assert found.shut_down == (tool["Database cluster state"] == "shut down")
        assert found.checkpoint_lsn == tool["Latest checkpoint location"]
        assert str(found.timeline) == tool["Latest checkpoint's TimeLineID"]
        assert found.wal_level == tool["wal_level setting"]
        assert str(found.segment_bytes) == tool["Bytes per WAL segment"]
