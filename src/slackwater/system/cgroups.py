# SPDX-License-Identifier: Apache-2.0
"""Cgroups of version 2: who is in which, which may be frozen, and moving processes into one of ours.

Facts are from the kernel's Documentation/admin-guide/cgroup-v2.rst. A process is born into the cgroup of its parent, so
whoever is in one of ours has all its later children there too. Nothing here freezes; the guard does.
"""

import os
from contextlib import suppress
from dataclasses import dataclass
from typing import ClassVar

from slackwater.errors import RefusedError, RightsError, SlackwaterError
from slackwater.model.facts import Facts
from slackwater.system.processes import alive, ancestors, command_of, descendants, identity, pid_of, stat_of

#: How often a crowd that goes on forking is looked through again.
_ROUNDS = 200


def root() -> str:
    """Give the folder where the version 2 hierarchy is mounted.

    Raises:
        SlackwaterError: it is not mounted.
    """
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as f:
        for line in f:
            left, _, right = line.partition(" - ")
            if right.split()[0] == "cgroup2":
                return left.split()[4].encode().decode("unicode_escape").encode("latin-1").decode()
    raise SlackwaterError(
        "This host has no cgroup version 2 hierarchy, so processes cannot be frozen.",
        data="Nothing was changed.",
        hint="mount -t cgroup2 none /sys/fs/cgroup/unified",
        code="no-cgroups",
    )


def cgroup_of(pid: int) -> str:
    """Give the folder of the cgroup a process is in.

    Raises:
        ProcessLookupError: there is no such process.
        SlackwaterError: it is in none that can be reached from here.
    """
    try:
        with open(f"/proc/{pid}/cgroup", encoding="utf-8", errors="surrogateescape") as f:
            path = next((line[3:-1] for line in f if line.startswith("0::")), "")
    except (FileNotFoundError, ProcessLookupError):
        raise ProcessLookupError(f"there is no process {pid}") from None
    if not path.startswith("/") or "/.." in path:
        raise SlackwaterError(f"{_name(pid)} is in no cgroup that can be reached from here.", code="no-cgroups")
    return root() + path.rstrip("/")


def members(cgroup: str) -> frozenset[int]:
    """Give every process in a cgroup and below; 0 stands for those of other pid namespaces. None when it is gone."""
    found: set[int] = set()
    for folder, _, _ in os.walk(cgroup):
        # ENODEV: removed meanwhile; EOPNOTSUPP: threaded, then the one above it lists the processes.
        with suppress(OSError), open(f"{folder}/cgroup.procs", encoding="ascii") as f:
            found.update(int(line) for line in f)
    return frozenset(found)


def freezable(cgroup: str, pids: frozenset[int]) -> str:
    """Say why a cgroup may not be frozen, as one sentence; empty when it may.

    Args:
        cgroup: its folder.
        pids: the processes that are meant to stand still; nobody but they and who stems from them may be in it.
    """
    if not os.path.exists(f"{cgroup}/cgroup.freeze"):
        return f"{cgroup} cannot be frozen: it is the root of all cgroups, or not there."
    present = members(cgroup)
    if ours := present & ancestors(os.getpid()):
        return f"{cgroup} holds Slackwater itself or what started it ({_names(ours)})."
    unknown = (pid for pid in present - pids if not pid or stat_of(pid))
    if strangers := frozenset(pid for pid in unknown if not ancestors(pid) & pids):
        return f"{cgroup} also holds {_names(strangers)}."
    return ""


def is_frozen(cgroup: str) -> bool:
    """Say whether a cgroup was told to freeze, by whomever; one that is gone was not."""
    try:
        with open(f"{cgroup}/cgroup.freeze", encoding="ascii") as f:
            return f.read().strip() == "1"
    except OSError:
        return False


def thaw(cgroup: str) -> str:
    """Thaw a cgroup now. Idempotent; one that is gone holds nobody.

    Returns: why it could not be done; empty when it was.
    """
    try:
        fd = os.open(f"{cgroup}/cgroup.freeze", os.O_WRONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return ""
    except OSError as e:
        return f"{cgroup} could not be thawed: {e.strerror}."
    try:
        os.write(fd, b"0")
    except OSError as e:
        return "" if not os.path.exists(cgroup) else f"{cgroup} could not be thawed: {e.strerror}."
    finally:
        os.close(fd)
    return ""


@dataclass(frozen=True, slots=True)
class Gather:
    """Processes moved into a cgroup of ours, where they can be frozen without anybody else."""

    kind: ClassVar[str] = "process.gather"
    session: str
    leader: str
    """Identity of the process from which the others stem."""
    home: str
    """The cgroup the leader was in; ours is made below it, so that nobody takes it for empty."""
    cgroup: str
    others: tuple[str, ...] = ()
    """`IDENTITY CGROUP` of every other process that was known, with the cgroup it was in."""

    def describe(self) -> str:
        """One line for a preview."""
        count = len(self.others) + 1
        return f"move process {pid_of(self.leader)} and its children ({count} now) into the cgroup {self.cgroup}"

    def make(self) -> Facts:
        """Move the leader first, then everybody else, until nobody is left outside.

        Raises:
            SlackwaterError: the leader is gone, the cgroup cannot be made, a process cannot be moved, or one of them
                is ours.
        """
        if not alive(self.leader):
            raise SlackwaterError(
                f"The process {pid_of(self.leader)} is gone.", data="Nothing was changed.", code="process-gone"
            )
        try:
            os.makedirs(self.cgroup, mode=0o755, exist_ok=True)
        except OSError as e:
            raise _denied(self.cgroup, e) from e
        for _ in range(_ROUNDS):
            outside = self._outside()
            if not outside:
                return {"cgroup": self.cgroup, "processes": len(members(self.cgroup))}
            _refuse_ourselves(outside)
            for pid in sorted(outside, key=lambda each: each != pid_of(self.leader)):
                _move(pid, self.cgroup)
        raise SlackwaterError(
            f"{_name(pid_of(self.leader))} starts processes faster than they can be gathered.",
            data="They go back to where they were.",
            code="never-still",
            retryable=True,
        )

    def undo(self) -> None:
        """Thaw it, move everybody in it back, and remove it. Made, half made, never made, undone: all fine.

        Raises:
            SlackwaterError: somebody could not be moved, or the cgroup not removed.
        """
        if os.path.basename(self.cgroup) != _our_name(self.session, self.leader):
            raise SlackwaterError(f"{self.cgroup} does not bear this session's name and is left alone.")
        if problem := thaw(self.cgroup):
            raise SlackwaterError(problem)
        origins = {who: cgroup for who, _, cgroup in (each.partition(" ") for each in self.others)}
        for _ in range(_ROUNDS):
            present = members(self.cgroup)
            if not present:
                break
            for pid in present:
                with suppress(ProcessLookupError):
                    origin = origins.get(identity(pid), self.home)
                    _move(pid, origin if os.path.isdir(origin) else self.home)
        try:
            os.rmdir(self.cgroup)
        except FileNotFoundError:
            return
        except OSError as e:
            raise SlackwaterError(f"The cgroup {self.cgroup} could not be removed: {e.strerror}.") from e

    def _outside(self) -> frozenset[int]:
        """Everybody known, and all who stem from them by now, who live and are not in it yet."""
        wanted: set[int] = set()
        for each in (self.leader, *(each.partition(" ")[0] for each in self.others)):
            if pid_of(each) not in wanted and alive(each):
                wanted |= descendants(pid_of(each))
        present = members(self.cgroup)
        return frozenset(pid for pid in wanted - present if (stat := stat_of(pid)) and not stat.dead)


@dataclass(frozen=True, slots=True)
class Freeze:
    """What the journal knows of a freeze that the guard makes: enough to thaw it, never enough to freeze."""

    kind: ClassVar[str] = "process.freeze"
    session: str
    cgroup: str

    def describe(self) -> str:
        """One line for a preview."""
        return f"freeze the cgroup {self.cgroup} for the moment of the snapshot"

    def make(self) -> Facts:
        """Check that the guard will be able to; the freeze itself is the guard's.

        Raises:
            RefusedError: it cannot be frozen, or somebody else has frozen it.
        """
        if not os.path.exists(f"{self.cgroup}/cgroup.freeze"):
            raise RefusedError(
                f"The cgroup {self.cgroup} cannot be frozen: it is the root of all cgroups, or not there.",
                data="Nothing was changed.",
                code="not-freezable",
            )
        if is_frozen(self.cgroup):
            raise RefusedError(
                f"The cgroup {self.cgroup} was frozen by somebody else.",
                data="Nothing was changed.",
                hint=f"Find out who froze it; echo 0 > {self.cgroup}/cgroup.freeze thaws it.",
                code="frozen-already",
                retryable=True,
            )
        return {}

    def undo(self) -> None:
        """Thaw it. Never frozen, thawed already, gone: all fine.

        Raises:
            SlackwaterError: the kernel refused.
        """
        if problem := thaw(self.cgroup):
            raise SlackwaterError(problem, data="The application may still stand still.")


def plan_gather(session: str, pids: frozenset[int]) -> tuple[str, tuple[Gather | Freeze, ...]]:
    """Find the cgroup to freeze so that these processes stand still and nobody else, and how they come to be there.

    Nothing is moved when they have one to themselves, as a unit of systemd has.

    Args:
        session: the session's id; what is made bears it.
        pids: all processes of one application.

    Returns: the cgroup's folder, and the effects to make before it is frozen, in order.

    Raises:
        SlackwaterError: no process is left, or there are no cgroups.
        RefusedError: Slackwater is itself one of them.
        RightsError: cgroups cannot be made here.
    """
    stats = {pid: stat for pid in pids if (stat := stat_of(pid)) and not stat.dead}
    if not stats:
        raise SlackwaterError("None of the application's processes is there any more.", code="process-gone")
    _refuse_ourselves(frozenset(stats))
    heads = [pid for pid, stat in stats.items() if stat.parent not in stats]
    leader = min(heads, key=lambda pid: (stats[pid].start, pid))
    home = cgroup_of(leader)
    if not freezable(home, pids) and frozenset(stats) <= members(home):
        return home, (Freeze(session, home),)
    if not os.access(home, os.W_OK, effective_ids=True):
        raise _denied(home)
    name = identity(leader)
    cgroup = f"{home}/{_our_name(session, name)}"
    others = tuple(each for pid in sorted(stats) if pid != leader and (each := _origin(pid)))
    return cgroup, (Gather(session, name, home, cgroup, others), Freeze(session, cgroup))


def _our_name(session: str, leader: str) -> str:
    return f"slackwater.{session}.{pid_of(leader)}"


def _origin(pid: int) -> str:
    try:
        return f"{identity(pid)} {cgroup_of(pid)}"
    except ProcessLookupError:
        return ""


def _move(pid: int, cgroup: str) -> None:
    """Move one process, all its threads with it; one that has ended needs no moving."""
    try:
        with open(f"{cgroup}/cgroup.procs", "w", encoding="ascii") as f:
            f.write(str(pid))
    except ProcessLookupError:
        return
    except OSError as e:
        raise SlackwaterError(
            f"{_name(pid)} could not be moved into the cgroup {cgroup}: {e.strerror}.", code="not-movable"
        ) from e


def _refuse_ourselves(pids: frozenset[int]) -> None:
    if ours := pids & ancestors(os.getpid()):
        raise RefusedError(
            f"Slackwater runs inside the application ({_names(ours)}) and would freeze itself with it.",
            data="Nothing was changed.",
            hint="Start it from somewhere else: a shell, cron, or a timer.",
            code="own-ancestor",
        )


def _denied(cgroup: str, cause: OSError | None = None) -> RightsError:
    why = f": {cause.strerror}" if cause else ""
    return RightsError(
        f"No cgroup can be made below {os.path.dirname(cgroup) if cause else cgroup}{why}.",
        data="Nothing was changed.",
        hint="Run as root, where /sys/fs/cgroup is writable (in a container: delegate it, or run outside).",
        code="no-cgroups",
    )


def _name(pid: int) -> str:
    return f"{command_of(pid) or 'process'} ({pid})" if pid else "a process of another pid namespace"


def _names(pids: frozenset[int]) -> str:
    shown = ", ".join(_name(pid) for pid in sorted(pids)[:5])
    return shown if len(pids) <= 5 else f"{shown} and {len(pids) - 5} more"
