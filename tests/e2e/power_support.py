# SPDX-License-Identifier: Apache-2.0
"""A machine with a busy database whose power is cut, again and again, and what must be true when it is back.

One disk lives through all of it: each life of the machine begins with a look at what the last cut left. What counts as
said, done or acknowledged is only what was seen outside before the cut.

A cut kills the machine's kernel (SIGKILL): what lay in its page cache is lost, and so is what it had not yet written of
it. What it had given to its disk survives, flushed or not, and in the order it was given: a drive that loses or
reorders what lies in its own cache is not modelled.
"""

import contextlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from slackwater.demo.cluster import WheelCluster
from slackwater.demo.lab import Lab
from slackwater.demo.load import Acknowledged, Load
from slackwater.system.command import run
from tests.e2e.power_moments import Moment, Told, done
from tests.platform.machine import Machine, boot

REPOSITORY = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
MIB = 1 << 20
NAME = "orders"
LOOK_S = 0.002
_SPECIFICATION = """\
name = "{name}"
[[component]]
writer = "postgresql"
instance = "{instance}"
[replica]
keep = {keep}
min_free = "1%"
[options]
freeze_timeout = "50s"
hold_timeout = "10s"
hold = "{hold}"
"""
_LOG = {"wal_keep_size": "64MB"}
"""So that a replica can be rolled forward."""
_TOO_SLOW = ("not-answering", "deadline", "guard")
"""Refusals of a machine that has to share its processor with too many: tried again."""
_NOTHING = ("sessions", "released", "adopted", "pinned", "aborted", "missing", "deleted", "clones", "unmended")
"""What a reconcile lists, all empty where nothing was cut off."""


class Guest:
    """A machine that does what it is asked for, see `power_guest`."""

    def __init__(self, lab: Lab, image: str, settings: dict[str, Any], memory_mib: int = 640) -> None:
        script = f"""cd {REPOSITORY}
            until [ -e ${{0%/*}}/settings.json ]; do sleep 0.1; done
            exec {sys.executable} -m tests.e2e.power_guest ${{0%/*}}"""
        self.machine: Machine = boot(lab, script, image, memory_mib=memory_mib, urgent=True)
        self.share = self.machine.share
        self._asked = 0
        self._write("settings.json", settings)

    def _write(self, name: str, value: Any) -> None:
        with open(f"{self.share}/{name}.new", "w", encoding="utf-8") as f:
            json.dump(value, f)
        os.rename(f"{self.share}/{name}.new", f"{self.share}/{name}")

    def ask(self, name: str, *arguments: Any, timeout_s: float = 120.0) -> Any:
        """Have something done, and give what it said.

        Raises:
            AssertionError: it failed.
        """
        self._write(f"ask-{self._asked}", [name, arguments])
        path = f"{self.share}/told-{self._asked}"
        ends_s = time.monotonic() + timeout_s
        while not os.path.exists(path):
            assert time.monotonic() < ends_s, f"{name} {arguments} is not answered: {self.said()}"
            assert self.machine.process.poll() is None, f"it ended before {name} {arguments}: {self.said()}"
            time.sleep(LOOK_S)
        self._asked += 1
        with open(path, encoding="utf-8") as f:
            told = json.load(f)
        assert "error" not in told, f"{name} {arguments}: {told['error']}"
        return told["value"]

    def command(self, *words: str, check: bool = True) -> dict[str, Any]:
        """Run a command of ours to its end, and give its document."""
        told = Told(self.share, self.ask("spawn", *words))
        status = self.ask("wait")
        assert not check or status == 0, f"{words}: {status}: {told.text('output')}{told.text('complaint')}"
        return told.done or {}

    def said(self) -> str:
        """All that the machine and its script said that was no answer."""
        words = []
        for name in ("console", "output"):
            with contextlib.suppress(FileNotFoundError), open(f"{self.share}/{name}", errors="replace") as f:
                words.append(f.read()[-1500:])
        return "\n".join(words)


@dataclass
class Cut:
    """A session whose machine lost its power."""

    kind: str
    moment: str
    told: Told
    at_s: float
    """When; all acknowledged until then was seen."""
    source: str = ""
    """The replica that a recovery goes back to."""
    forward: bool = False
    """It goes on from there to the last commit."""
    before: dict[str, str] = field(default_factory=dict)
    """The replicas that there were before the session, and the kind of each."""


@dataclass
class Power:
    """A machine and its disk, with all that was seen of it."""

    lab: Lab
    filesystem: str
    image: str
    cluster: WheelCluster
    keep: int
    sabotage: str = ""
    """Something of `power_sabotage` that is done to our commands."""
    moments: dict[str, float] = field(default_factory=dict)
    """By replica: all acknowledged until then has to be in it."""
    offset_s: float = 0.0
    """What this life's clock is ahead of its kernel's."""
    timelines: set[str] = field(default_factory=set)
    guest: Guest | None = None
    _clock: tuple[datetime, float] = (datetime.min.replace(tzinfo=UTC), 0.0)
    _load: Load | None = None

    @property
    def place(self) -> str:
        """Where the disk is mounted."""
        return f"{self.lab.folder}/disk" if self.filesystem == "btrfs" else f"{self.lab.folder}/xfs"

    @property
    def now(self) -> Guest:
        assert self.guest is not None
        return self.guest

    @property
    def load(self) -> Load:
        assert self._load is not None
        return self._load

    def boot(self) -> Guest:
        """Give the disk to a new machine. Its filesystem mounts."""
        settings = {
            "environment": self.lab.environment() | {"SLACKWATER_STATE_DIR": f"{self.place}/state"},
            "sabotage": self.sabotage,
            "cluster": [
                self.cluster.tag, self.cluster.data_dir, self.cluster.port, self.cluster.socket_dir, self.cluster.log,
                self.cluster.binaries,
            ],
        }  # fmt: skip
        guest = self.guest = Guest(self.lab, self.image, settings)
        folder = f"{guest.share}/load"
        last = self._load
        if last is None:
            os.mkdir(folder)
        else:
            shutil.copytree(last._folder, folder)
        self._load = Load(self.cluster, folder, writers=1)
        acks = [at for _, _, at in self._load._acks(1)]
        self.offset_s = max(acks, default=0.0) + 10.0
        guest.ask("mount", self.filesystem, self.place)
        wall, boot_s = guest.ask("clock")
        self._clock = datetime.fromisoformat(wall), boot_s
        return guest

    def moment(self, wall: str) -> float:
        """A time of day of this life on the clock of all lives."""
        at, boot_s = self._clock
        return self.offset_s + boot_s + (datetime.fromisoformat(wall) - at).total_seconds()

    def here_s(self) -> float:
        """Now, on the clock of all lives."""
        return self.offset_s + float(self.now.ask("clock")[1])

    def go(self) -> None:
        """Start the load, and wait until it commits."""
        self.load.resume()
        self.now.ask("load", self.load._folder, self.offset_s)
        self.load.wait(2, 60.0)

    def strike(
        self, kind: str, words: Sequence[str], moment: Moment, source: str = "", *, orderly: bool = False
    ) -> Cut:
        """Begin a session, and cut the power at its moment, or when it has said that it is done.

        Where it is `orderly` the machine is shut down instead: whoever runs is asked to end, and killed after a while.
        """
        before = {each["id"]: each["kind"] for each in self.replicas()}
        self.now.ask("watch")
        told = self._until(words, moment)
        while told.done and told.done.get("error", {}).get("code") in _TOO_SLOW:
            self.now.ask("wait")
            told = self._until(words, moment)
        at_s = self._shut_down(told) if orderly else 0.0
        self.now.machine.cut()
        at_s = at_s or self._last_acknowledged_s()
        said = told.done
        if said and "error" in said:
            assert orderly, said
            assert said["error"]["code"] != "internal", said  # the server, too, was asked to end
        self._remember(kind, told)
        name = "after done" if said and not orderly else f"{moment}{', a reboot' if orderly else ''}"
        return Cut(kind, name, told, at_s, source, "--to" in words, before)

    def _shut_down(self, told: Told) -> float:
        """All that was acknowledged before this moment has to be there, wherever the session was; what comes, may be.

        What it can still undo in the time that an init gives it, it does.
        """
        at_s = self._last_acknowledged_s()
        self.now.ask("terminate")
        ends_s = time.monotonic() + 60.0
        while told.done is None and time.monotonic() < ends_s:
            time.sleep(LOOK_S)
        self.now.ask("halt", self.place)
        return at_s

    def _last_acknowledged_s(self) -> float:
        return max((at for _, _, at in self.load._acks(1)), default=0.0)

    def _until(self, words: Sequence[str], moment: Moment) -> Told:
        """Begin a session, and wait for its moment or its end."""
        told = Told(self.now.share, self.now.ask("spawn", *words, "--progress", "json"))
        begun_s = time.monotonic()
        while not moment.reached(told, time.monotonic() - begun_s) and told.done is None:
            assert time.monotonic() < begun_s + 240.0, f"{words}: {told.text('complaint')}"
            time.sleep(LOOK_S)
        return told

    def _remember(self, kind: str, told: Told) -> None:
        """What has to be in the replica of a session: all acknowledged when its hold, or the stop, began."""
        for phase in ("stop",) if kind in ("recovery", "undo") else ("freeze", "snapshot"):
            if told.session and (at := told.at("phase", phase)):
                self.moments.setdefault(told.session, self.moment(at))
                return

    def back_up(self) -> str:
        """Take a replica."""
        return self._whole("backup", "backup", NAME)

    def recover(self, *options: str) -> str:
        """Recover, and give the undo replica."""
        session = self._whole("recovery", "recover", NAME, *options, "--yes")
        self._timeline("a recovery that was not cut off", new=not options)
        return session

    def _whole(self, kind: str, *words: str) -> str:
        told = self._until(words, done())
        while self.now.ask("wait") != 0:
            code = (told.done or {}).get("error", {}).get("code")
            assert code in _TOO_SLOW, f"{words}: {told.text('output')}{told.text('complaint')}"
            told = self._until(words, done())
        self._remember(kind, told)
        return told.session

    def newest_undo(self) -> str:
        """What the last recovery set aside, and not what was kept of one that was taken back; empty for none."""
        undo = [each["id"] for each in reversed(self.replicas()) if each["kind"] == "undo"]
        return next((each for each in undo if self._replaced(each)), "")

    def _replaced(self, undo: str) -> str:
        return str(self.now.command("replica", "show", undo)["replica"]["replaced_by"])

    def replicas(self) -> list[dict[str, Any]]:
        """What the catalog shows, oldest first."""
        return list(reversed(self.now.command("replica", "list")["replicas"]))

    # -- what must be true ---------------------------------------------------------------------------------------------

    def check(self, cut: Cut, *, database_first: bool, look_into: bool) -> str:
        """The machine is back: everything is as it was said, or as before; what was seen, in one word."""
        where = f"{self.filesystem}, {cut.kind}, {cut.moment}"
        guest = self.boot()
        why = guest.ask("start") if database_first else ""
        told = self._reconciled()
        again = guest.command("reconcile")
        assert not any(again[each] for each in _NOTHING), f"{where}: a second reconcile did something: {again}"
        if why:  # only one that was barred
            assert cut.kind in ("recovery", "undo"), f"{where}: {why}"
        if not guest.ask("running"):
            why = guest.ask("start")
            assert why == "", f"{where}: {why}"
        seen = self._truth(cut, told, where)
        self._storage(where)
        self.go()
        finished = cut.kind in ("recovery", "undo") and seen in ("done", "finished")
        back = finished and not cut.forward
        self._holds(self.moments[cut.source] if back else cut.at_s, f"{where}: {seen}")
        self._timeline(where, new=finished and cut.kind == "recovery")
        if look_into:
            self._look_into(where)
        return seen

    def _reconciled(self) -> dict[str, Any]:
        """What a reconcile said; on a machine that is busy the server may recover for longer than one waits for it."""
        for _ in range(5):
            told = self.now.command("reconcile", check=False)
            if not any("has not finished its recovery yet" in str(each) for each in told.get("unmended", ())):
                break
        assert "error" not in told, told
        return told

    def _truth(self, cut: Cut, told: dict[str, Any], where: str) -> str:
        """What reconcile says is what is found; what was reported done is there."""
        session, kept = cut.told.session, {each["id"]: each for each in self.replicas()}
        mended = {each["session"]: each for each in told["sessions"]}
        assert set(mended) <= {session}, f"{where}: {told}"
        assert set(told["adopted"]) | set(told["aborted"]) <= {session}, f"{where}: {told}"
        assert (told["unmended"], told["missing"]) == ([], []), f"{where}: {told}"
        assert all(each["state"] == "good" for each in kept.values()), f"{where}: {kept}"
        is_kept = session in kept
        if cut.kind in ("recovery", "undo"):  # its replica is what it replaced
            is_kept = is_kept and self._replaced(session) == cut.source
        for each in mended.values():
            assert (each["whole"], each["restarted"]) == (True, True), f"{where}: {told}"
            assert (each["replica"] == session) == is_kept, f"{where}: {told}"
            actions = {effect["action"] for effect in each["effects"]}
            assert actions <= {"finish" if is_kept else "undo"}, f"{where}: {told}"
        gave_up = "error" in (cut.told.done or {})
        if cut.told.done is not None and not gave_up:
            assert is_kept, f"{where}: it was done, and is not there: {kept}, {told}"
        listed = {each["id"]: each for each in self.now.command("session", "list")["sessions"]}
        if session in listed:
            outcome = listed[session]["outcome"]
            if gave_up:  # perhaps when its replica was there already, or its recovery was proven and is finished now
                kept_then = ("completed",) if is_kept else ()
                assert outcome in ("aborted", "failed", *kept_then), f"{where}: {listed[session]}, {cut.told.done}"
            else:
                assert (outcome == "completed") == is_kept, f"{where}: {listed[session]}"
        elif session:
            assert not is_kept, f"{where}: {session} is in no list of sessions"
        gone = set(cut.before) - set(kept)
        backups = [each for each, kind in cut.before.items() if kind == "backup"]
        assert gone <= (set(backups[: len(backups) + 1 - self.keep]) if is_kept else set()), f"{where}: {gone} went"
        assert set(told["deleted"]) <= gone, f"{where}: {told}"
        return "done" if cut.told.done and is_kept else "finished" if is_kept else "undone" if session else "nothing"

    def _storage(self, where: str) -> None:
        """The storage holds what the catalog shows, and nothing is half made or barred."""
        assert self.now.command("catalog", "check")["differences"] == [], where
        known = {each["id"]: sorted(v["name"] for v in each["volumes"]) for each in self.replicas()}
        documents = ("RECOVER.txt", "components.json")
        expected = {f"{name}/{each}" for name, names in known.items() for each in (*names, *documents)}
        _, listed = self.now.ask("shell", f"cd {self.place}/.slackwater 2>/dev/null && ls -Ad */*")
        assert set(listed.split()) == expected, f"{where}: {listed}"
        _, top = self.now.ask("shell", f"cd {self.place} && stat -c '%n %a %U' *")
        volumes = [line for line in top.splitlines() if not line.startswith("state ")]
        names = ("data", "log") if self.filesystem == "btrfs" else ("data",)
        assert sorted(volumes) == [f"{each} 700 postgres" for each in names], f"{where}: {top}"

    def _holds(self, moment: float, where: str, socket_dir: str = "", port: int = 0) -> None:
        """All acknowledged until a moment is there, and all acknowledged by what runs now, here or on a clone."""
        self.load.pause(30.0)
        wanted: dict[int, list[Any]] = {1: list(self.load.acknowledged(before=moment)[1])}
        if not socket_dir:
            wanted[1] += self.load.acknowledged()[1]
        self.load.resume()
        assert any(wanted.values()), where
        findings = self.now.ask("oracle", _as_json(wanted), socket_dir, port)
        assert findings == [], f"{where}: {findings}"

    def _timeline(self, where: str, *, new: bool) -> None:
        """A recovery begins a timeline that was never seen; its undo goes back to the old one."""
        ((name,),) = self.now.ask("sql", "SELECT left(pg_walfile_name(pg_current_wal_lsn()), 8)")
        assert not new or name not in self.timelines, f"{where}: timeline {name} again, after {self.timelines}"
        self.timelines.add(name)

    def _look_into(self, where: str) -> None:
        """Recover the newest replica on a clone: all that was acknowledged before its window is there."""
        backups = [each["id"] for each in self.replicas() if each["kind"] == "backup"]
        if not backups:  # the very first was cut off
            return
        newest = backups[-1]
        made = self.now.command("clone", "create", newest, "--name", "look")
        (reached,) = made["clone"]["reached"].values()
        self._holds(self.moments[newest], f"{where}: clone of {newest}", *_address(reached))
        self.now.command("clone", "delete", "look", "--yes")


def _as_json(acknowledged: Acknowledged) -> dict[str, list[list[int]]]:
    return {str(teller): [[s.epoch, s.first, s.last] for s in spans] for teller, spans in acknowledged.items()}


def _address(reached: dict[str, Any]) -> tuple[str, int]:
    return str(reached["socket_directory"]), int(reached["port"])


@contextlib.contextmanager
def power(filesystem: str, keep: int = 2, hold: str = "auto") -> Iterator[Power]:
    """A machine with a disk on which a cluster was made, and its load begun, before it is first booted."""
    memory = tempfile.mkdtemp(prefix="sw-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None)
    try:
        with Lab() as lab:  # not in memory: the machine has a /dev/shm of its own
            cluster, image = _prepare(lab, filesystem)
            shutil.move(image, f"{memory}/disk.img")
            text = _SPECIFICATION.format(name=NAME, instance=cluster.name, keep=keep, hold=hold)
            with open(f"{lab.config_dir}/specs.d/{NAME}.toml", "w", encoding="utf-8") as f:
                f.write(text)
            made = Power(lab, filesystem, f"{memory}/disk.img", cluster, keep)
            try:
                yield made
            finally:
                if made.guest is not None:
                    made.guest.machine.cut()
    finally:
        shutil.rmtree(memory, ignore_errors=True)


def _prepare(lab: Lab, filesystem: str) -> tuple[WheelCluster, str]:
    if filesystem == "btrfs":
        disk = lab.btrfs(1024 * MIB)
        cluster = lab.wheel_cluster(18, disk.subvolume("data"), disk.subvolume("log"), options=_LOG)
        disk.subvolume("state")
        path, image, device = disk.path, disk.image, disk.device
    else:
        xfs = lab.xfs(1024 * MIB)
        cluster = lab.wheel_cluster(18, xfs.directory("data"), options=_LOG)
        xfs.directory("state")
        path, image, device = xfs.path, xfs.image, xfs.device
    with contextlib.ExitStack() as stack:
        stack.callback(cluster.stop)
        cluster.start()
        folder = tempfile.mkdtemp(dir=lab.folder)
        load = Load(cluster, folder, writers=0).start()
        load.stop()
    run("umount", path)
    run("losetup", "--detach", device)
    return cluster, image
