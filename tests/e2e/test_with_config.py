# SPDX-License-Identifier: Apache-2.0
"""Configuration outside of the volumes: it stays, or goes back with the replica, and returns with the undo."""

import os
from pathlib import Path
from typing import Any

import pytest

from slackwater.demo.lab import Lab
from tests.e2e.spawner import Spawner

pytestmark = [pytest.mark.root, pytest.mark.postgresql]


def test_it_goes_back_when_it_is_asked_for_and_comes_forth_with_the_undo() -> None:
    with Lab() as lab, Spawner(lab.environment()) as spawner:

        def do(*words: str) -> tuple[int, dict[str, Any]]:
            answer = spawner.spawn(*words).answer(120)
            return answer.status, answer.document

        def shown() -> tuple[str, str]:
            """What the server says, and what stands last in its file."""
            with cluster.connect() as connection:
                row = connection.execute("show work_mem").fetchone()
            return str(row[0]) if row else "", conf.read_text().splitlines()[-1]

        def configure(line: str) -> None:
            with conf.open("a") as f:
                f.write(f"{line}\n")

        cluster = lab.cluster(lab.btrfs().subvolume("data"))
        conf = Path(cluster.config_dir, "postgresql.conf")
        configure("work_mem = '5MB'")
        cluster.start()
        status_of = os.stat(conf)
        assert do("backup", cluster.ref)[0] == 0
        old = ("5MB", "work_mem = '5MB'")
        configure("work_mem = '7MB'")
        assert do("recover", cluster.ref, "--yes")[0] == 0
        new = ("7MB", "work_mem = '7MB'")
        assert shown() == new

        ident = Path(cluster.config_dir, "pg_ident.conf")
        held = ident.read_bytes()
        ident.unlink()
        ident.symlink_to("/etc/cron.d/x")
        refused = [each["code"] for each in do("recover", cluster.ref, "--with-config", "--preview")[1]["findings"]]
        assert "configuration-guarded" in refused
        ident.unlink()
        planned = do("recover", cluster.ref, "--with-config", "--preview")[1]
        assert f"put {conf} back as it was at the backup" in planned["steps"]
        assert do("recover", cluster.ref, "--with-config", "--yes")[0] == 0
        assert (shown(), ident.read_bytes()) == (old, held)
        assert do("recover", cluster.ref, "--undo", "--yes")[0] == 0
        assert (shown(), ident.exists()) == (new, False)
        assert do("recover", cluster.ref, "--undo", "--yes")[0] == 0
        assert (shown(), ident.read_bytes()) == (old, held)
        now = os.stat(conf)
        assert (now.st_mode, now.st_uid, now.st_gid) == (status_of.st_mode, status_of.st_uid, status_of.st_gid)

        # One of which nothing starts: it goes back, and so does the file.
        configure("no_such_setting = 1")
        assert do("backup", cluster.ref)[0] == 0
        conf.write_text(conf.read_text().replace("no_such_setting", "# no_such_setting"))
        status, done = do("recover", cluster.ref, "--with-config", "--yes")
        assert (status, done["error"]["code"]) == (1, "not-started"), done
        assert shown() == ("5MB", "# no_such_setting = 1")
        assert [each for each in os.listdir(cluster.config_dir) if "slackwater" in each] == []
