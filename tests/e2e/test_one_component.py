# SPDX-License-Identifier: Apache-2.0
"""One component of several is recovered: the others run on and lose nothing, or the refusal names them."""

import os
import shutil
import sqlite3
import threading
from pathlib import Path
from typing import Any, Self

import pytest

from slackwater.demo.lab import Lab
from tests.e2e.spawner import Spawner

pytestmark = [pytest.mark.root, pytest.mark.postgresql]


class Writing:
    """Somebody who writes to a database of SQLite all the time, and knows what was acknowledged."""

    def __init__(self, path: Path) -> None:
        self.path, self.acknowledged, self._end = path, 0, threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _run(self) -> None:
        database = sqlite3.connect(self.path, timeout=60, isolation_level=None)
        while not self._end.wait(0.01):
            database.execute("insert into row values (?)", (self.acknowledged + 1,))
            self.acknowledged += 1
        database.close()


def lost(path: Path, acknowledged: int) -> int:
    """How many acknowledged rows a database does not have."""
    database = sqlite3.connect(path)
    (there,) = database.execute("select count(*) from row where n <= ?", (acknowledged,)).fetchone()
    database.close()
    return acknowledged - int(there)


def test_one_goes_back_and_the_others_run_on() -> None:
    with Lab() as lab, Spawner(lab.environment()) as spawner:

        def do(*words: str) -> tuple[int, dict[str, Any]]:
            answer = spawner.spawn(*words).answer(120)
            return answer.status, answer.document

        def asked(query: str) -> list[Any]:
            with cluster.connect() as connection:
                connection.autocommit = True
                found = connection.execute(query.encode())
                return [row[0] for row in found.fetchall()] if found.description else []

        disk = lab.btrfs()
        cluster = lab.wheel_cluster(18, disk.subvolume("data"))
        cluster.start()
        one, shared = Path(disk.subvolume("one")), Path(disk.subvolume("two"))
        paths = [one / "one.db", shared / "two.db", shared / "three.db"]
        for path in paths:
            with sqlite3.connect(path) as database:
                database.execute("create table row (n integer)")
            database.close()
        refs = [cluster.ref, *(f"sqlite:{path}" for path in paths)]
        entries = "".join(
            f'[[component]]\nwriter = "{ref.partition(":")[0]}"\ninstance = "{ref.partition(":")[2]}"\n' for ref in refs
        )
        Path(lab.config_dir, "specs.d/shop.toml").write_text(f'name = "shop"\n{entries}')
        asked("create table row (n int)")
        status, done = do("backup", "shop")
        assert status == 0, done
        shutil.copy(paths[0], twin := Path(lab.folder) / "twin.db")

        with Writing(paths[0]) as writing:
            asked("insert into row values (1)")
            planned = do("recover", "shop", "--component", refs[0], "--preview")[1]
            assert planned["components"] == [refs[0]]
            assert planned["sets_aside"] == [cluster.data_dir]
            (warned,) = [each for each in planned["findings"] if each["code"] == "others-stay"]
            assert all(ref in warned["sentence"] for ref in refs)
            before = writing.acknowledged
            status, done = do("recover", "shop", "--component", refs[0], "--yes")
            assert status == 0, done
            assert asked("select n from row") == []
            assert before < writing.acknowledged
            # Forward again from the same replica, by the log of what was set aside and of the live data; then undone.
            asked("insert into row values (2)")
            status, done = do("recover", "shop", "--component", refs[0], "--to", "latest", "--yes")
            assert status == 0, done
            assert asked("select n from row") == [2]
            status, done = do("recover", "shop", "--undo", "--yes")
            assert (status, sorted(done["reached"])) == (0, [refs[0]]), done
        assert lost(paths[0], writing.acknowledged) == 0
        assert lost(twin, writing.acknowledged) == writing.acknowledged > 0, "the oracle sees what went back"

        status, done = do("recover", "shop", "--component", refs[2], "--yes")
        assert (status, done["error"]["code"]) == (5, "shared-volume")
        assert done["error"]["sentence"] == (
            f"{refs[3]} would go back in time with {refs[2]}: they share {os.fspath(shared)}."
        )
        assert f"slackwater clone create {planned['replica']} --name before" in done["error"]["hint"]
        status, done = do("recover", "shop", "--component", refs[2], "--component", refs[3], "--yes")
        assert (status, sorted(done["reached"])) == (0, sorted(refs[2:])), done
        assert lost(paths[0], writing.acknowledged) == 0
        status, done = do("recover", "shop", "--component", "sqlite:/nowhere", "--yes")
        assert (status, done["error"]["code"]) == (4, "no-component")
