# SPDX-License-Identifier: Apache-2.0
"""What the writer says of real servers: their files, their facts, and what a replica of them would lack."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from slackwater.model.component import FileRole, FileSet
from slackwater.model.facts import Severity
from slackwater.recovery.checks import standing_against
from slackwater.system.processes import command_of
from slackwater.writers._postgresql import managed
from slackwater.writers._postgresql.controlfile import read_control_file
from slackwater.writers.postgresql import PostgresqlWriter
from tests.platform.postgresql_support import OWNER, VERSIONS, Cluster, as_owner, codes, identify, new_cluster

pytestmark = [pytest.mark.root, pytest.mark.postgresql]

WRITER = PostgresqlWriter()
LAST = ("global/pg_control",)


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with new_cluster() as cluster:
        cluster.initdb()
        yield cluster


@pytest.mark.parametrize("version", VERSIONS)
def test_a_server_is_named_by_its_data_directory_and_knows_itself(version: int) -> None:
    with new_cluster(version) as cluster:
        cluster.initdb()
        cluster.start()
        component = identify(WRITER, cluster)
        assert component.ref.name == str(cluster.data)
        assert component.findings == ()
        assert component.survives_power_cut
        assert component.main_pid == cluster.pid
        assert component.files == (FileSet(FileRole.DATA, str(cluster.data), log="pg_wal", last=LAST),)
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
    (home / "key").write_text("a secret")  # no configuration: no setting comes from it
    (cluster.data / "server.key").symlink_to(home / "key")
    cluster.configure(f"include '{home}/more.conf'\n")
    cluster.start()
    cluster.sql(f"create tablespace space location '{home}/space'")
    (number,) = cluster.sql("select oid from pg_tablespace where spcname = 'space'")[0]
    component = identify(WRITER, cluster)
    assert component.refusals == ()
    assert set(component.files) == {
        FileSet(FileRole.DATA, str(cluster.data), last=LAST),
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
    assert "patronictl pause" in component.findings[0].hint
    (finding,) = standing_against(component)
    assert (finding.code, finding.severity, finding.hint) == ("managed", Severity.REFUSAL, component.findings[0].hint)
    (cluster.data / "patroni.dynamic.json").write_text('{"pause": true}')
    (finding,) = standing_against(identify(WRITER, cluster))
    assert (finding.code, finding.severity) == ("managed", Severity.WARNING)
    (cluster.data / "patroni.dynamic.json").unlink()
    assert "managed_by" not in identify(WRITER, cluster).facts


@contextlib.contextmanager
def standing_in(folder: Path, *words: str) -> Iterator[None]:
    """A process with the name and the words of a manager's, which does nothing."""
    program = folder / words[0]
    program.write_bytes(Path("/bin/bash").read_bytes())
    program.chmod(0o755)
    one = subprocess.Popen([program, "-c", "sleep 300 & wait", *words[1:]], start_new_session=True)
    try:
        ends = time.monotonic() + 10
        while command_of(one.pid) != words[0]:
            assert time.monotonic() < ends
            time.sleep(0.01)
        yield
    finally:
        os.killpg(one.pid, signal.SIGKILL)
        one.wait()


def test_repmgr_is_known_by_the_file_that_it_runs_with(cluster: Cluster, tmp_path: Path) -> None:
    cluster.start()
    (tmp_path / "repmgr.conf").write_text(f"node_id=1\ndata_directory='{cluster.data}'\n")
    (tmp_path / "other.conf").write_text("node_id=2\ndata_directory='/srv/other'\n")
    with standing_in(tmp_path, "repmgrd", "-f", str(tmp_path / "other.conf")):
        assert "managed_by" not in identify(WRITER, cluster).facts
    with standing_in(tmp_path, "repmgrd", "-f", str(tmp_path / "repmgr.conf")):
        component = identify(WRITER, cluster)
        assert component.facts["managed_by"] == "repmgr"
        (finding,) = standing_against(component)
        assert (finding.code, finding.severity) == ("managed", Severity.REFUSAL)
        assert "Stop repmgrd on every node" in finding.hint


def test_pacemaker_is_known_by_its_resource_and_bears_it_in_maintenance(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cib = tmp_path / "cib.xml"
    monkeypatch.setattr(managed, "_PACEMAKER_CIB", str(cib))
    cluster.start()
    resource = '<primitive id="db" class="ocf" provider="heartbeat" type="pgsql"/>'
    mode = '<nvpair id="x" name="maintenance-mode" value="{}"/>'
    cib.write_text(f"<cib>{resource}{mode.format('false')}</cib>")
    assert "managed_by" not in identify(WRITER, cluster).facts, "it does not run"
    with standing_in(tmp_path, "pacemakerd"):
        component = identify(WRITER, cluster)
        assert component.facts["managed_by"] == "Pacemaker"
        assert [each.severity for each in standing_against(component)] == [Severity.REFUSAL]
        cib.write_text(f"<cib>{resource}{mode.format('true')}</cib>")
        assert [each.severity for each in standing_against(identify(WRITER, cluster))] == [Severity.WARNING]
        cib.write_text(f"<cib>{mode.format('false')}</cib>")
        assert "managed_by" not in identify(WRITER, cluster).facts, "it manages something else"


def test_a_server_on_files_that_were_moved_away_is_refused(cluster: Cluster) -> None:
    cluster.start()
    aside = cluster.home / "aside"
    cluster.data.rename(aside)
    subprocess.run(["cp", "-a", aside, cluster.data], check=True)
    (cluster.data / "postmaster.pid").unlink()
    (found,) = [each for each in WRITER.identify() if each.facts.get("data_directory") == str(aside)]
    assert [each.code for each in found.refusals] == ["moved"]


@pytest.mark.parametrize("version", VERSIONS)
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
