# SPDX-License-Identifier: Apache-2.0
"""In place of the kernel, the init and the files: what `system/` would ask them, the world answers.

Everything is put into the modules by name while a context lasts; nothing of ours is changed above `system/`, but for
the folder that an engine on a clone would get, and the files of specifications.
"""

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import ClassVar
from unittest.mock import patch

from slackwater.config import specification as specs
from slackwater.errors import NotFoundError, RefusedError
from slackwater.hosts import local, seeing
from slackwater.journal.effects import Effect
from slackwater.model.facts import Facts
from slackwater.model.storage import MountOrder
from slackwater.recovery import clones, steps
from slackwater.recovery.order import RecoveryOrder
from slackwater.sessions import abort, cut_off, expiry, reconcile, running
from slackwater.system import cgroups, crew, hooks, namespaces, present, processes
from slackwater.system.hooks import Ran
from slackwater.system.processes import Stat
from tests.simulation import guards, takeover
from tests.simulation.virtual import run_blocking
from tests.simulation.world import PROCESS, now


def _alive(identity: str) -> bool:
    number = int(identity.partition(":")[0])
    return identity in now().processes or any(each.pid == number for each in now().applications.values())


def _identity(pid: int) -> str:
    if all(each.pid != pid for each in now().applications.values()):
        raise ProcessLookupError
    return f"{pid}:1:{now().boot}"


def _begun_s(identity: str) -> float | None:
    _, ticks, boot = identity.split(":")
    return int(ticks) / 100 if int(boot) == now().boot else None


def _is_there(tree: str) -> bool:
    _, _, filesystem, session, name = tree.split("/")[:5]
    place = now().storage.places.get((filesystem, session))
    return place is not None and name in place.trees


#: Paths, as `hosts/seeing.py` looks at them; the paths of copies are the simulated provider's.
_PATHS = SimpleNamespace(path=SimpleNamespace(isdir=_is_there, samefile=lambda path, tree: False))


def _roots(order: RecoveryOrder) -> list[tuple[int, int]]:
    """What lies in the volumes' places."""
    return [(0, int(now().storage.volumes[each.path].uuid.partition("-")[2])) for each in order.live]


def _stat(pid: int) -> Stat | None:
    there = any(each.pid == pid for each in now().applications.values())
    return Stat("application", "S", 1, 1, 1) if there else None


def _release_leftovers(run_dir: str) -> list[str]:
    now().point("guard.leftovers:before")
    said = []
    for guard in now().leftovers:
        guard.let_go("next command")
        said.append(f"{guard.session} was released.")
    now().leftovers.clear()
    return said


def _run_hook(command: Sequence[str], limit_s: float, environment: dict[str, str], stop: object = None) -> Ran:
    now().point("hook:before")
    failed = now().rng.random() < 0.1
    now().point("hook:after")
    return Ran("failed" if failed else "", "")


def _find(specs_dir: str, name: str) -> specs.Specification:
    found: specs.Specification | None = now().specifications.get(name)
    if found is None:
        raise NotFoundError(f"There is no specification {name!r}.")
    return found


@dataclass(frozen=True, slots=True)
class Enclose:
    """An enclosure of a clone's engine."""

    kind: ClassVar[str] = "namespace.enclose"
    session: str

    def describe(self) -> str:
        return f"enclose {self.session}"

    def make(self) -> Facts:
        now().point("enclose:before", "plain")
        now().oracle.intended(self)
        now().enclosures.add(self.session)
        now().point("enclose:after", "plain")
        return {}

    def undo(self) -> None:
        now().point("enclose.undo:before", "plain")
        now().enclosures.discard(self.session)


@dataclass(frozen=True, slots=True)
class Present:
    """A copy that is shown at a path."""

    kind: ClassVar[str] = "mount.present"
    shown: str
    target: str
    folders: tuple[str, ...] = ()

    def describe(self) -> str:
        return f"mount {self.shown} at {self.target}"

    def make(self) -> Facts:
        now().point("present:before", "plain")
        now().oracle.intended(self)
        filesystem, session, name = self.shown.split("/")
        now().mounts[self.target] = (filesystem, session, name)
        now().point("present:after", "plain")
        return {}

    def undo(self) -> None:
        now().point("present.undo:before", "plain")
        if now().mounts.get(self.target) == tuple(self.shown.split("/")):
            del now().mounts[self.target]


def _present(order: MountOrder, target: str, options: Sequence[str]) -> Present:
    return Present(order.root.lstrip("/"), target)


def _refuse_occupied(target: str) -> None:
    if target in now().mounts:
        raise RefusedError(f"{target} is occupied.")


def _unmount(target: str) -> None:
    now().point("unmount:before", "plain")
    now().mounts.pop(target, None)
    now().point("unmount:after", "plain")


EFFECTS: tuple[type[Effect], ...] = (Enclose, Present, guards.Gather, guards.Freeze, hooks.Pair)

_REPLACED: tuple[tuple[object, str, object], ...] = (
    (crew, "runner", run_blocking),
    (running, "identity", lambda pid: PROCESS.get().identity),
    (reconcile, "alive", _alive),
    (abort, "alive", _alive),
    (abort, "stopped", takeover.stopped),
    (abort, "open_pidfd", takeover.open_pidfd),
    (abort, "os", takeover.OS),
    (abort, "signal", takeover.SIGNAL),
    (abort, "anyio", takeover.ANYIO),
    (expiry, "begun_s", _begun_s),
    (cut_off, "of_this_boot", lambda identity: identity.endswith(f":{now().boot}")),
    (processes, "alive", _alive),
    (processes, "identity", _identity),
    (processes, "stat_of", _stat),
    (processes, "command_of", lambda pid: "application"),
    (processes, "holders", lambda device, exclude=frozenset(): ()),
    (processes, "passing_holders", lambda devices: ()),
    (local, "release_leftovers", _release_leftovers),
    (cgroups, "plan_gather", guards.plan_gather),
    (cgroups, "members", lambda cgroup: frozenset(now().cgroups.get(cgroup, ()))),
    (namespaces, "covers", lambda paths: ()),
    (namespaces, "end_over", lambda paths: None),
    (namespaces, "let_go", lambda paths: None),
    (namespaces, "no_hindrance", lambda paths: frozenset()),
    (namespaces, "impossible", lambda: ""),
    (namespaces, "enclose", lambda owner, session, folder, shown: Enclose(session)),
    (namespaces, "keeper_of", lambda mark: 1 if mark.rpartition("/")[2] in now().enclosures else None),
    (namespaces, "mark_of", lambda owner, session: f"{owner}/{session}"),
    (seeing, "os", _PATHS),
    (steps, "_roots", _roots),
    (clones, "_make_folder", lambda clone: None),
    (present, "present", _present),
    (present, "refuse_occupied", _refuse_occupied),
    (present, "unmount", _unmount),
    (present, "remove_folders", lambda paths: None),
    (hooks, "run", _run_hook),
    (hooks, "kill_left", lambda environment: None),
    (hooks, "findings", lambda given: []),
    (specs, "find", _find),
)


@contextmanager
def simulated() -> Iterator[str]:
    """Replace the kernel; gives a folder on the real disk, for the lock and for paths that have to exist."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with ExitStack() as replaced, tempfile.TemporaryDirectory(prefix="slackwater-simulation.", dir=memory) as folder:
        for module, name, by in _REPLACED:
            replaced.enter_context(patch.object(module, name, by))
        yield folder
