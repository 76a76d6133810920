# SPDX-License-Identifier: Apache-2.0
"""No process of ours ever bears a secret where everybody can read it: on a command line, or in its environment.

Seen twice: an audit hook in the commands tells every program that they start, with its words and its environment, so
that none is too short to be seen; and `/proc` is read all the time for whatever those start in their turn.
"""

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest

from tests.e2e.support import NAME, World, new_world

pytestmark = [pytest.mark.root, pytest.mark.postgresql]

SECRET = "battery-staple-9317"
FILES = ("cmdline", "environ")
_HOOK = """\
import os, sys
def _tell(event, told):
    if event in ("subprocess.Popen", "os.exec", "os.posix_spawn"):
        with open({path!r}, "a", encoding="utf-8") as f:
            f.write(repr((event, told, dict(os.environ))) + "\\n")
sys.addaudithook(_tell)
"""
_LOGIN = {
    "password file": 'user = "least"\npassword_file = "{folder}/passwords"\n',
    "service file": 'service = "orders"\n',
}


class Watcher:
    """A context that reads what every process shows of itself, again and again."""

    def __init__(self) -> None:
        self.shown: set[bytes] = set()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(0.001):
            for pid in filter(str.isdecimal, os.listdir("/proc")):
                for name in FILES:
                    with contextlib.suppress(OSError), open(f"/proc/{pid}/{name}", "rb") as f:
                        self.shown.add(f.read())

    def shows(self, text: str) -> bool:
        """Whether any process showed it."""
        return any(text.encode() in each for each in self.shown)


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with new_world(volumes=1, keep=2, hold="process-freeze") as made:
        with made.cluster.connect(autocommit=True) as connection:
            connection.execute(f"CREATE ROLE least LOGIN PASSWORD '{SECRET}' IN ROLE pg_monitor, pg_checkpoint")
            hba = Path(made.cluster.data_dir, "pg_hba.conf")
            hba.write_text(f"local all least scram-sha-256\n{hba.read_text()}")
            connection.execute("SELECT pg_reload_conf()")
        yield made


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the commands tell of the programs that they start."""
    path = tmp_path / "started"
    (tmp_path / "sitecustomize.py").write_text(_HOOK.format(path=str(path)))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return path


@pytest.mark.parametrize("how", _LOGIN)
def test_a_password_stands_on_no_command_line_and_in_no_environment(
    world: World, told: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    for name, text in (
        ("passwords", f"*:*:*:*:{SECRET}\n"),
        ("services", f"[orders]\nuser=least\npassword={SECRET}\n"),
    ):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o600)
    monkeypatch.setenv("PGSERVICEFILE", str(tmp_path / "services"))
    specification = Path(world.lab.config_dir, "specs.d", f"{NAME}.toml")
    world.specify(keep=2)
    text = specification.read_text()
    specification.write_text(text.replace("[replica]", f"{_LOGIN[how].format(folder=tmp_path)}[replica]"))
    with Watcher() as watcher:
        world.lab.slackwater("backup", NAME)
        if how == "password file":
            world.lab.slackwater("recover", NAME, "--yes")
    assert watcher.shows("/guard/guard.py"), "it has not seen what there was to be seen"
    assert "subprocess.Popen" in told.read_text()
    assert not watcher.shows(SECRET)
    assert SECRET not in told.read_text()
    (tmp_path / "passwords").write_text("*:*:*:*:wrong\n")
    (tmp_path / "services").write_text("[orders]\nuser=least\npassword=wrong\n")
    assert world.lab.slackwater("backup", NAME, check=False).status != 0, "it had not needed the password at all"


@pytest.mark.parametrize("where", FILES)
def test_a_twin_that_tells_its_secret_is_seen(told: Path, where: str) -> None:
    words = ["sleep", "1"] if where == "environ" else ["sh", "-c", f"sleep 1 # {SECRET}; :"]
    environment = {**os.environ, "PGPASSWORD": SECRET if where == "environ" else ""}
    twin = f"import subprocess; subprocess.run({words!r}, env={environment!r})"
    with Watcher() as watcher:
        subprocess.run([sys.executable, "-"], input=twin, text=True, check=True)
    assert watcher.shows(SECRET)
    assert SECRET in told.read_text()
