# SPDX-License-Identifier: Apache-2.0
"""Every kind of session that the matrix strikes: how it is begun, and what is tidied up after it."""

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

from tests.e2e.strikes import LOOK_S
from tests.matrix.site import BACK_S, Site

Words = tuple[str, ...]
CLONE = "matrix"
TRIES = 12
FULL = 2
"""As many full copies the specification keeps."""


@dataclass(frozen=True)
class Kind:
    """A kind of session."""

    name: str
    begin: Callable[[Site], Words]
    """Bring the site where this can be done, and give the command."""
    stops: bool = False
    """The application is stopped meanwhile, so that only its end, or a reconcile, starts it again."""
    window: bool = False
    """It holds the application for a moment."""
    undoes: bool = True
    """Stopped on request it puts everything back by itself; else the next reconcile does, or finishes it."""
    source: str = ""
    """The specification whose replica it takes or uses."""
    rotates: bool = False
    """Older replicas of its specification may go."""
    forward: bool = False
    """A recovery that goes on to the last commit, so that nothing of what was acknowledged is set aside."""


def _of(site: Site, specification: str, kind: str = "backup") -> str:
    """The newest good replica of a specification; taken when there is none."""
    found = [
        name
        for name, each in site.replicas().items()
        if (each["specification"], each["kind"], each["state"]) == (specification, kind, "good")
    ]
    return found[-1] if found else site.backup(specification)


def _two_full(site: Site) -> Words:
    """So many are kept, so that one of them goes with the next."""
    while len([each for each in site.replicas().values() if each["specification"] == "full"]) < FULL:
        site.backup("full")
    return ("backup", "full")


def _recover(site: Site, specification: str = "plain") -> Words:
    site.source = _of(site, specification)
    return ("recover", specification, "--replica", site.source, "--yes")


def _forward(site: Site) -> Words:
    site.source = site.backup("plain")  # what came since is in the live log for certain
    return ("recover", "plain", "--replica", site.source, "--to", "latest", "--yes")


def _listing(site: Site) -> Words:
    """It is a session where there is something to be named, by the replica's own catalog; one replica is enough."""
    site.backup("rotating")
    site.lose_rows()
    return ("recover", "rotating", "--list")


def _undos(site: Site) -> list[str]:
    """What an undo would recover from, oldest first."""
    return [
        name
        for name, each in site.replicas().items()
        if (each["kind"], each["specification"]) == ("undo", "plain") and each["replaced_by"]
    ]


def _undo(site: Site) -> Words:
    if not _undos(site):
        site.run(*_recover(site))
        assert site.goes_on(BACK_S)  # a client that has not connected anew yet speaks of what was set aside
    site.source = _undos(site)[-1]
    return ("recover", "plain", "--undo", "--yes")


def _delete(site: Site) -> Words:
    """The oldest one that is no longer needed; one is always left to recover from."""
    listed = [name for name, each in site.replicas().items() if each["specification"] == "plain"]
    if len(listed) < 2:
        site.backup("plain")
    return ("replica", "delete", (listed or [_of(site, "plain")])[0], "--yes")


def _clone_delete(site: Site) -> Words:
    if CLONE not in site.clones():
        site.run("clone", "create", _of(site, "plain"), "--name", CLONE)
    return ("clone", "delete", CLONE, "--yes")


def _folder(site: Site) -> str:
    return f"{site.lab.folder}/shown"


def _mount(site: Site) -> Words:
    return ("replica", "mount", _of(site, "plain"), _folder(site))


def _unmount(site: Site, *options: str) -> Words:
    replica = _of(site, "plain")
    if not shown(site):
        site.run("replica", "mount", replica, _folder(site), *options)
    return ("replica", "unmount", replica, "--yes")


def shown(site: Site) -> list[str]:
    """Where replicas are mounted."""
    with open("/proc/self/mounts", encoding="utf-8") as f:
        targets = [line.split(" ")[1] for line in f]
    return [each for each in targets if each == _folder(site) or each.startswith(f"{_folder(site)}/")]


def tidy(site: Site) -> None:
    """Take away what commands that came to their end have left on purpose: clones and mounts."""
    for target in shown(site):
        site.run("replica", "unmount", target, "--yes")
    for each in site.clones():
        site.run("clone", "delete", each, "--yes")


def _cut_off(site: Site, words: Words, phase: str) -> Words:
    """Kill a session when it tells of a phase, so that a reconcile has something to do."""
    for _ in range(TRIES):
        floor = site.floor()
        with site.noted():
            command = site.spawn(*words)
            while command.poll() is None and not command.told("phase", phase):
                time.sleep(LOOK_S)
            command.send(signal.SIGKILL)
            command.wait()
        for each in site.pending():
            site.floors[each] = floor
        if site.pending():
            return ("reconcile",)
    raise AssertionError(f"no {' '.join(words)} was cut off in {phase}")


KINDS = (
    Kind("backup", lambda _: ("backup", "plain"), window=True, source="plain"),
    Kind("backup that rotates", lambda site: (_of(site, "rotating"), ("backup", "rotating"))[1], window=True,
         source="rotating", rotates=True),
    Kind("backup of full copies", _two_full, window=True, source="full", rotates=True),
    Kind("recovery", _recover, stops=True, source="plain"),
    Kind("undo of a recovery", _undo, stops=True, source="plain"),
    Kind("recovery from full copies",
         lambda site: _recover(site, "full"), stops=True, source="full"),
    Kind("replica delete", _delete, undoes=False),
    Kind("replica verify", lambda site: ("replica", "verify", _of(site, "plain")), source="plain"),
    Kind("try", lambda _: ("try", "plain"), window=True),
    Kind("clone create", lambda site: ("clone", "create", _of(site, "plain"), "--name", CLONE), source="plain"),
    Kind("clone delete", _clone_delete, undoes=False, source="plain"),
    Kind("mount", _mount, source="plain"),
    Kind("mount read-write", lambda site: (*_mount(site), "--read-write"), source="plain"),
    Kind("unmount", _unmount, undoes=False, source="plain"),
    Kind("unmount read-write", lambda site: _unmount(site, "--read-write"), undoes=False, source="plain"),
    Kind("reconcile that undoes a recovery", lambda site: _cut_off(site, _recover(site), "switch"), stops=True,
         undoes=False, source="plain"),
    Kind("reconcile that finishes a recovery", lambda site: _cut_off(site, _recover(site), "start"), stops=True,
         undoes=False, source="plain"),
    Kind("reconcile of a full copy", lambda site: _cut_off(site, ("backup", "full"), "thaw"), undoes=False,
         source="full"),
)  # fmt: skip
#: Of an application that has a log.
LOGGED = (
    Kind("recovery to the last commit", _forward, stops=True, source="plain", forward=True),
    Kind("listing of losses", _listing, source="rotating"),
)


def kinds_of(engine: str) -> tuple[Kind, ...]:
    """Every kind that there is with an application of this engine."""
    return (*KINDS, *LOGGED) if engine == "postgresql" else KINDS
