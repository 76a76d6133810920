# SPDX-License-Identifier: Apache-2.0
"""A server that others follow: what a recovery says of its standbys and slots, and what it refuses on a standby."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from slackwater.demo.cluster import WheelCluster
from slackwater.demo.lab import Lab
from slackwater.system.command import run
from tests.e2e.spawner import Spawner

pytestmark = [pytest.mark.root, pytest.mark.postgresql]


STREAMING = "select application_name from pg_stat_replication where state = 'streaming'"
SLOTS = "select slot_name from pg_replication_slots order by 1"


@contextmanager
def following(lab: Lab, primary: WheelCluster) -> Iterator[None]:
    """A second server that streams from the first."""
    folder = os.path.join(lab.folder, "standby")
    program = os.path.join(primary.binaries, "pg_basebackup")
    owner = os.stat(primary.data_dir).st_uid
    os.mkdir(folder, 0o700)
    os.chown(folder, owner, os.stat(primary.data_dir).st_gid)
    where = ("-h", primary.socket_dir, "-p", str(primary.port))
    slot = ("-C", "-S", "second", "-X", "stream", "-c", "fast")
    run(program, "-D", f"{folder}/data", "-R", *where, *slot, user=owner, group=os.stat(primary.data_dir).st_gid)
    second = WheelCluster("second", f"{folder}/data", primary.port, folder, f"{folder}/log", primary.binaries)
    with open(f"{folder}/data/postgresql.auto.conf", "a", encoding="utf-8") as f:
        f.write(f"unix_socket_directories = '{folder}'\nport = {primary.port}\ncluster_name = 'second'\n")
    second.start()
    try:
        ends_s = time.monotonic() + 60
        while asked(primary, STREAMING) != ["second"]:
            assert time.monotonic() < ends_s, second.log_tail()
            time.sleep(0.1)
        yield
    finally:
        second.stop("immediate")


def asked(cluster: WheelCluster, query: str) -> list[Any]:
    with cluster.connect() as connection:
        return [row[0] for row in connection.execute(query.encode()).fetchall()]


def test_who_follows_is_told_what_becomes_of_him() -> None:
    with Lab() as lab, Spawner(lab.environment()) as spawner:

        def do(*words: str) -> tuple[int, dict[str, Any]]:
            answer = spawner.spawn(*words).answer(120)
            return answer.status, answer.document

        def told(*words: str) -> dict[str, dict[str, str]]:
            status, planned = do("recover", primary.ref, "--preview", *words)
            assert status == 0, planned
            return {each["code"]: each for each in planned["findings"]}

        primary = lab.wheel_cluster(18, lab.btrfs().subvolume("data"), options={"wal_level": "logical"})
        primary.start()
        assert do("backup", primary.ref)[0] == 0
        assert told() == {}
        asked(primary, "select pg_create_logical_replication_slot('events', 'pgoutput')")
        with following(lab, primary):
            found = told()
            assert set(found) == {"standbys", "slots"}
            assert "(second at a socket): they are ahead of it" in found["standbys"]["sentence"]
            assert "pg_rewind" in found["standbys"]["hint"]
            assert found["slots"]["sentence"].endswith("are gone afterwards: events (logical), second (physical).")
            assert "those that are ahead of what is recovered" in told("--to", "latest")["standbys"]["sentence"]
            status, done = do("recover", primary.ref, "--yes")
            assert status == 0, done
            assert {found[code]["sentence"] for code in found} <= {each["text"] for each in done["messages"]}
            assert asked(primary, SLOTS) == []
        assert told("--undo") == {}
        asked(primary, "select pg_create_physical_replication_slot('third')")
        assert told("--undo")["slots"]["sentence"].endswith("those of now go: third (physical).")
        assert do("recover", primary.ref, "--undo", "--yes")[0] == 0
        assert asked(primary, SLOTS) == ["events", "second"]

        primary.stop()
        with open(os.path.join(primary.data_dir, "standby.signal"), "wb"):
            pass
        primary.start()
        status, done = do("recover", primary.ref, "--yes")
        assert (status, done["error"]["code"]) == (5, "standby"), done
        assert asked(primary, "select pg_is_in_recovery()") == [True]
