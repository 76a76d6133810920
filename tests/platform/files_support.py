# SPDX-License-Identifier: Apache-2.0
"""An application that keeps its things in a directory, in pairs of files, and comes to rest when it is told to."""

import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from slackwater.system.processes import stat_of
from tests.platform.crowd import eventually

#: Writes `N.a`, then `N.b`; stands still between two pairs while `hold` exists, and ends after a pair on SIGTERM.
APPLICATION = """
import os, signal, sys, time
directory, control = sys.argv[1:]
ending = []
signal.signal(signal.SIGTERM, lambda *_: ending.append(1))
n = max([int(name.split(".")[0]) for name in os.listdir(directory) if name[0].isdigit()], default=0)
while not ending:
    while os.path.exists(f"{control}/hold") and not ending:
        open(f"{control}/paused", "w").close()
        time.sleep(0.002)
    if os.path.exists(f"{control}/paused"):
        os.unlink(f"{control}/paused")
    n += 1
    for half in "ab":
        with open(f"{directory}/{n}.{half}", "w") as f:
            f.write(f"{n}")
        time.sleep(0.03 if half == "a" else 0.003)
    with open(f"{control}/acknowledged", "w") as f:
        f.write(f"{n}")
"""
SCRIPTS = {
    "start": "grep -qs '^State:.[^ZX]' /proc/$(cat {c}/pid 2>/dev/null)/status && exit 0\n"
    "setsid {python} {c}/app.py {d} {c} {more} >/dev/null 2>&1 &\n"
    "echo $! > {c}/pid\n[ -z '{g}' ] || echo $! > {g}/cgroup.procs\n",
    "stop": "kill -TERM $(cat {c}/pid) 2>/dev/null\n"
    "for n in $(seq 500); do grep -qs '^State:.[^ZX]' /proc/$(cat {c}/pid)/status || exit 0; sleep 0.01; done\n"
    "exit 1\n",
    "lock": "touch {c}/hold\nfor n in $(seq 500); do [ -e {c}/paused ] && exit 0; sleep 0.01; done\nexit 1\n",
    "unlock": "rm -f {c}/hold\necho >> {c}/unlocked\n",
    "hang": "touch {c}/hold\nsleep 1000\n",
}


@dataclass
class Uploads:
    """A directory with its application, which is stopped, started and locked by scripts."""

    directory: Path
    control: Path
    cgroup: str = ""
    program: str = APPLICATION
    more: str = ""
    """Further arguments of the program."""
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.directory.mkdir(exist_ok=True)
        self.control.mkdir()
        (self.control / "app.py").write_text(self.program)
        for name, text in SCRIPTS.items():
            script = self.control / name
            script.write_text(
                "#!/bin/sh\n"
                + text.format(c=self.control, d=self.directory, g=self.cgroup, more=self.more, python=sys.executable)
            )
            script.chmod(0o755)

    def run(self, name: str) -> None:
        """Run one of the scripts."""
        subprocess.run([self.control / name], check=True, env={**os.environ, **self.environment})

    @property
    def pid(self) -> int:
        return int((self.control / "pid").read_text())

    @property
    def runs(self) -> bool:
        stat = stat_of(self.pid)
        return stat is not None and not stat.dead

    @property
    def unlocked(self) -> int:
        """How often it was unlocked."""
        path = self.control / "unlocked"
        return len(path.read_text().splitlines()) if path.exists() else 0

    def goes_on(self) -> bool:
        """It acknowledges something new."""
        before = self.last()
        return eventually(lambda: self.last() not in (0, before), 10)

    def last(self) -> int:
        """The last pair that was acknowledged."""
        path = self.control / "acknowledged"
        return int(path.read_text() or 0) if path.exists() else 0


def complaints(directory: Path, at_least: int = 0) -> list[str]:
    """The oracle: halves without the other, gaps, and pairs that were acknowledged and are missing."""
    names = {name for name in os.listdir(directory) if name[0].isdigit()}
    halves = [{int(name[:-2]) for name in names if name.endswith(half)} for half in (".a", ".b")]
    found = [f"{n} is half" for n in sorted(halves[0] ^ halves[1])]
    whole = halves[0] & halves[1]
    found += [f"{n} is missing" for n in range(1, max(whole, default=0)) if n not in whole]
    return found + ([f"{at_least} was acknowledged"] if max(whole, default=0) < at_least else [])
