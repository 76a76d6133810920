# SPDX-License-Identifier: Apache-2.0
"""Applications of an exercise on an XFS in memory, commands on them, and what must be true after every fault."""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import anyio

from slackwater.config.places import Places
from slackwater.demo.lab import Answer, Lab
from slackwater.exercise.file import VARIABLE
from slackwater.model.replica import Replica, ReplicaState
from slackwater.sessions.cell import Cell
from slackwater.sessions.check import Difference, check
from slackwater.sessions.reconcile import ReconcileResult, forget, reconcile
from tests.e2e.luck_support import MIB, in_memory
from tests.e2e.spawner import Spawner

_APPLICATIONS = {"orders": 'offers = ["application-lock"]', "ledger": 'offers = ["application-lock"]',
                 "bridged": 'log = "log"\noffers = ["log-bridge"]', "cold": 'offers = ["cold"]'}  # fmt: skip
SPECIFICATIONS: dict[str, tuple[Sequence[str], str]] = {
    "pair": (("orders", "ledger"), ""),
    "bridged": (("bridged",), ""),
    "cold": (("cold",), ""),
    "short": (("orders", "ledger"), '[options]\nfreeze_timeout = "2s"\nhold_timeout = "2s"\n'),
    "full": (("orders",), '[replica]\ntype = "full"\nto = "{to}"\n'),
}


@dataclass
class World:
    """A lab with an exercise, and one good replica of each specification."""

    lab: Lab
    spawner: Spawner
    folder: str
    to: str
    """Where full copies lie."""
    file: str
    replicas: dict[str, str] = field(default_factory=dict)

    # -- the exercise ----------------------------------------------------------------------------------------------

    def faults(self, *tables: dict[str, Any]) -> None:
        """Write its file, and begin its log anew."""
        lines = [f'folder = "{self.folder}"']
        for name, said in _APPLICATIONS.items():
            lines.append(f'[[component]]\nname = "{name}"\ndirectory = "{name}"\n{said}\n')
            lines.append(f'[[volume]]\ndirectory = "{name}"')
        for table in tables:
            lines += ["[[fault]]", *(f"{key} = {json.dumps(value)}" for key, value in table.items())]
        with open(f"{self.file}.new", "w", encoding="utf-8") as f:
            f.write("\n".join(lines))
        os.rename(f"{self.file}.new", self.file)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{self.folder}/exercise.jsonl")

    @property
    def acted(self) -> list[str]:
        """The events at which something went wrong, in order."""
        try:
            with open(f"{self.folder}/exercise.jsonl", encoding="utf-8") as f:
                return [json.loads(line)["at"] for line in f]
        except FileNotFoundError:
            return []

    # -- commands --------------------------------------------------------------------------------------------------

    def run(self, *words: str) -> Answer:
        """A command done to its end, in a process of its own."""
        return self.spawner.spawn(*words).answer(60.0)

    def obeyed(self, *words: str) -> dict[str, Any]:
        answer = self.run(*words)
        assert answer.status == 0, f"{words}: {answer.status}: {answer.output}{answer.complaint}"
        return answer.document

    @property
    def cell(self) -> Cell:
        """The installation, in this process."""
        places = Places(self.lab.config_dir, self.lab.state_dir, self.lab.run_dir)
        return Cell(places, writing=True)

    def reconcile(self) -> ReconcileResult:
        return anyio.run(reconcile, self.cell)

    # -- what is there ---------------------------------------------------------------------------------------------

    def write(self, text: str) -> None:
        """Let every application hold this."""
        for name in _APPLICATIONS:
            with open(f"{self.folder}/{name}/data", "w", encoding="utf-8") as f:
                f.write(text)

    def read(self) -> dict[str, str]:
        """What the applications hold."""
        found = {}
        for name in _APPLICATIONS:
            with open(f"{self.folder}/{name}/data", encoding="utf-8") as f:
                found[name] = f.read()
        return found

    def stopped(self) -> list[str]:
        """Applications that were left stopped."""
        return [name for name in _APPLICATIONS if os.path.exists(f"{self.folder}/.exercise/{name}.stopped")]

    def differences(self) -> list[Difference]:
        """What catalog and storage do not agree on."""
        return list(anyio.run(check, self.cell))

    def good(self) -> list[Replica]:
        """The replicas that the catalog calls good."""
        return [each for each in self.cell.catalog.replicas.list() if each.state is ReplicaState.GOOD]

    def holds(self, replica: Replica) -> set[str]:
        """What a replica really holds, read where it lies, without asking any provider."""
        found = set()
        for copy in replica.document.copies:
            at = f"{self.to if copy.by else self.folder}/{copy.place}"
            with open(f"{at}/data", encoding="utf-8") as f:
                found.add(f.read())
        return found

    def clear(self) -> None:
        """Be as before any command, by force: a lie may have left what nobody would touch."""
        cell, kept = self.cell, set(self.replicas.values())
        for session in cell.host.dump():
            forget(cell, str(session["id"]))
        for clone in cell.catalog.clones.list():
            anyio.run(cell.host.end_clone, clone.document)
            cell.catalog.clones.remove(clone.id)
        for each in cell.catalog.replicas.list():
            if each.id not in kept:
                cell.catalog.replicas.remove(each.id)
        for where in (f"{self.folder}/.slackwater", f"{self.to}/.slackwater-full"):
            for session_dir in {*os.listdir(where)} - kept:
                shutil.rmtree(f"{where}/{session_dir}")
        for name in self.stopped():
            os.unlink(f"{self.folder}/.exercise/{name}.stopped")
        for name in _APPLICATIONS:
            os.chmod(f"{self.folder}/{name}", 0o755)  # noqa: S103  # a bar that was not lifted
        self.write("second")


@contextlib.contextmanager
def new_world() -> Iterator[World]:
    """The replicas hold `first`, the applications `second`."""
    with in_memory() as lab:
        folder, to = lab.xfs(512 * MIB).directory("exercise"), lab.xfs(512 * MIB).path
        file = f"{lab.folder}/exercise.toml"
        for name in _APPLICATIONS:
            os.makedirs(f"{folder}/{name}/log")
        for name, (components, more) in SPECIFICATIONS.items():
            entries = [f'[[component]]\nwriter = "test"\ninstance = "{c}"\nprovider = "test"' for c in components]
            text = "\n".join([f'name = "{name}"', *entries, more.format(to=to)])
            with open(f"{lab.config_dir}/specs.d/{name}.toml", "w", encoding="utf-8") as f:
                f.write(text)
        os.environ[VARIABLE] = file
        try:
            with Spawner({**lab.environment(), VARIABLE: file}) as spawner:
                world = World(lab, spawner, folder, to, file)
                world.faults()
                world.write("first")
                for name in SPECIFICATIONS:
                    world.replicas[name] = str(world.obeyed("backup", name)["replica"])
                world.write("second")
                yield world
        finally:
            del os.environ[VARIABLE]
            shutil.rmtree(f"{folder}/.slackwater", ignore_errors=True)
