# SPDX-License-Identifier: Apache-2.0
"""A user without root backs up and recovers what is his own, with an installation of his own."""

import json
import os
import sqlite3
import sys
from typing import Any

import pytest

from slackwater.demo.lab import Lab
from slackwater.system.command import run
from tests.e2e.luck_support import in_memory

pytestmark = [pytest.mark.root]
NOBODY = 65534


class User:
    """One with a home on an XFS. He may read everything, so that he can run this Python wherever it lies."""

    def __init__(self, lab: Lab, home: str) -> None:
        self.home = home
        self._environment = {
            "HOME": home,
            **{f"SLACKWATER_{name}_DIR": f"{home}/.config/{name.lower()}" for name in ("CONFIG", "STATE", "RUN")},
            "SLACKWATER_LAB": lab.name,
        }

    def run(self, *words: str, check: bool = True) -> tuple[int, dict[str, Any]]:
        done = run(
            "setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--inh-caps=-all,+dac_read_search",
            "--ambient-caps=+dac_read_search", "--bounding-set=-all,+dac_read_search",
            sys.executable, "-m", "slackwater", *words, "--json",
            environment=self._environment, check=False,
        )  # fmt: skip
        assert not check or done.status == 0, (words, done)
        return done.status, json.loads(done.output)


def test_what_is_ones_own_is_backed_up_and_recovered_without_root() -> None:
    with in_memory() as lab:
        disk = lab.xfs(512 << 20)
        user = User(lab, disk.directory("home"))
        for name in ("docs", "db"):
            os.mkdir(f"{user.home}/{name}")
        with open(f"{user.home}/docs/file", "w", encoding="utf-8") as f:
            f.write("one")
        database = f"{user.home}/db/app.db"
        with sqlite3.connect(database) as connection:
            connection.execute("CREATE TABLE rows (text)")
            connection.execute("INSERT INTO rows VALUES ('one')")
        connection.close()
        run("chown", "-R", f"{NOBODY}:{NOBODY}", user.home)
        for ref in (f"files:{user.home}/docs", f"sqlite:{database}"):
            taken = user.run("backup", ref)[1]
            assert [each["provider"] for each in taken["plan"]["volumes"]] == ["reflink"]
            assert user.run("replica", "verify", taken["replica"])[1]["verification"]["passed"]
        with open(f"{user.home}/docs/file", "w", encoding="utf-8") as f:
            f.write("lost")
        with sqlite3.connect(database) as connection:
            connection.execute("DELETE FROM rows")
        connection.close()
        user.run("recover", f"files:{user.home}/docs", "--yes")
        user.run("recover", f"sqlite:{database}", "--yes")
        assert text(f"{user.home}/docs/file") == "one"
        assert os.stat(f"{user.home}/docs/file").st_uid == NOBODY
        with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
            assert connection.execute("SELECT text FROM rows").fetchall() == [("one",)]
        connection.close()
        user.run("recover", f"files:{user.home}/docs", "--undo", "--yes")
        assert text(f"{user.home}/docs/file") == "lost"
        assert user.run("catalog", "check")[1]["differences"] == []
        for replica in user.run("replica", "list")[1]["replicas"]:
            user.run("replica", "delete", replica["id"], "--yes")
        assert sorted(os.listdir(user.home)) == [".config", "db", "docs"]

        os.mkdir(f"{disk.path}/others")
        status, answer = user.run("backup", f"files:{disk.path}/others", check=False)
        assert (status, answer["error"]["code"]) == (5, "no-provider")
        os.mkdir(f"{user.home}/docs/roots")
        status, answer = user.run("backup", f"files:{user.home}/docs", check=False)
        assert (status, answer["error"]["code"]) == (5, "not-ours")
        assert user.run("session", "list")[0] == 0


def text(path: str) -> str:
    with open(path, encoding="utf-8") as f:
        return f.read()
