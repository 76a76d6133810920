# SPDX-License-Identifier: Apache-2.0
"""A server on a clone where no namespaces can be had: every link leads into the clone, or nothing is started."""

import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from slackwater.errors import RefusedError, VerificationError
from slackwater.system.vacate import Vacate
from slackwater.writers.contract import Clone, Question
from slackwater.writers.postgresql import PostgresqlWriter
from tests.platform.postgresql_support import OWNER, Cluster, identify, new_cluster, processes_in

pytestmark = [pytest.mark.root, pytest.mark.postgresql]
WRITER = PostgresqlWriter()


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with new_cluster(15) as made:
        made.initdb()
        for name in ("space", "wal"):
            (made.home / name).mkdir()
            shutil.chown(made.home / name, "postgres", "postgres")
        shutil.move(str(made.data / "pg_wal"), made.home / "wal/real")
        (made.data / "pg_wal").symlink_to(made.home / "wal/real")
        made.start()
        made.sql(f"create tablespace space location '{made.home}/space'")
        made.sql("create table far tablespace space as select i as n from generate_series(1, 5000) i")
        made.sql("checkpoint")
        yield made


def checksum(folder: Path) -> str:
    files = sorted(each for each in folder.rglob("*") if each.is_file())
    return hashlib.sha256(b"".join(each.read_bytes() for each in files)).hexdigest()


def test_links_are_led_into_the_clone_and_what_still_leads_out_is_refused(cluster: Cluster) -> None:
    component = identify(WRITER, cluster)
    expected = WRITER.prepare(component)
    beside = cluster.home / "clone"
    trees = {each.path: str(beside / each.path.removeprefix(f"{cluster.home}/")) for each in component.files}
    with cluster.still():
        for path, tree in trees.items():
            os.makedirs(os.path.dirname(tree), exist_ok=True)
            subprocess.run(["cp", "-a", "--", path, tree], check=True)
    shutil.chown(beside, "postgres", "postgres")
    folder = str(cluster.home / "clone-socket")
    home = Vacate(folder, (str(beside),))
    home.make()
    os.chown(folder, OWNER.pw_uid, OWNER.pw_gid)
    clone = Clone(component, "2026-11-22-9", trees, folder, enclosure="", private=True)
    expected = {**expected, **WRITER.rewrite(component, trees, expected, (), "2026-11-22-9")}

    stray = beside / "data/base/stray"
    stray.symlink_to(cluster.home / "space")
    with pytest.raises(RefusedError, match="out of the clone") as refused:
        WRITER.start_clone(clone, expected, timeout_s=30)
    assert (refused.value.exit_status, refused.value.reason) == (5, "link-outside")
    assert not processes_in(str(beside)), "nothing was started"
    stray.unlink()

    live = checksum(cluster.home / "space")
    reached = WRITER.start_clone(clone, expected, timeout_s=30)
    assert reached["timeline"] == 2
    assert WRITER.start_clone(clone, expected, timeout_s=30)["pid"] == reached["pid"], "started already"
    cluster_of_clone = Cluster(15, Path(folder))
    with pytest.raises(psycopg.OperationalError, match="Peer authentication failed"):
        psycopg.connect(host=folder, port=cluster_of_clone.port, user=OWNER.pw_name, dbname="postgres")
    cluster_of_clone.sql("update far set n = n + 1")
    cluster_of_clone.sql("checkpoint")
    assert checksum(cluster.home / "space") == live
    with pytest.raises(VerificationError, match="was expected"):
        WRITER.check_clone(clone, Question("select sum(n) from far", "0"))
    facts = WRITER.check_clone(clone, Question("select sum(n) from far", str(5000 * 5001 // 2 + 5000)))
    assert facts["amcheck"] == "tables and indexes of all databases are sound"
    assert not processes_in(str(beside)), "it is stopped when it was checked"
    WRITER.stop_clone(clone)

    WRITER.start_clone(clone, {}, timeout_s=30)
    cluster_of_clone.sql(f"alter role {OWNER.pw_name} nosuperuser")
    assert "no superuser" in str(WRITER.check_clone(clone, None)["amcheck"])
    WRITER.start_clone(clone, {}, timeout_s=30)
    home.undo()
    home.undo()
    assert not processes_in(str(beside))
    assert not os.path.exists(folder)
    assert cluster.value("select sum(n) from far") == 5000 * 5001 // 2
