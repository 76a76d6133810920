# SPDX-License-Identifier: Apache-2.0
"""A quiet database and its Slackwater, what every refusal must look like, and what it must not have done."""

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Self, cast

from slackwater.demo.cluster import Cluster, DebianCluster, give_to_owner
from slackwater.demo.disk import BtrfsDisk
from slackwater.demo.lab import Answer, Lab
from slackwater.system.command import run
from tests.e2e.spawner import Command, Spawner

MIB = 1 << 20
NAME = "orders"
_LEDGERS = ("-wal", "-shm")
"""SQLite's files beside a database that somebody has open."""


@contextlib.contextmanager
def in_memory() -> Iterator[Lab]:
    """A lab whose disks lie in memory, where there is some: nothing here is about how fast a disk is."""
    folder = tempfile.mkdtemp(prefix="sw-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None)
    os.chmod(folder, 0o755)  # noqa: S103
    try:
        with Lab(folder) as lab:
            yield lab
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Shop:
    """A database that was never restarted, as the one connection that is always open knows, and its rows."""

    def __init__(self, cluster: Cluster) -> None:
        self._connection = cluster.connect(autocommit=True)
        self._connection.execute("CREATE TABLE IF NOT EXISTS sales (number serial PRIMARY KEY)")

    def sell(self) -> None:
        """Commit one row: fails when the server was stopped or stands still."""
        self._connection.execute("SET statement_timeout = '5s'")
        self._connection.execute("INSERT INTO sales DEFAULT VALUES")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()


@dataclass
class World:
    """A lab with a running database on a volume of its own, one specification and one replica of it."""

    lab: Lab
    disk: BtrfsDisk
    spawner: Spawner
    cluster: DebianCluster
    shop: Shop
    replica: str = ""

    def run(self, *words: str, check: bool = True) -> Answer:
        """Run a command to its end; with `check` it has to do what it was asked for."""
        return obeyed(spawned(self.spawner, *words), check=check)

    @contextlib.contextmanager
    def costs_nothing(self) -> Iterator[None]:
        """What is inside leaves no trace but that of a session in the catalog, and the database goes on."""
        before = look(self.lab)
        yield
        assert not (changed := before ^ look(self.lab)), sorted(changed)
        self.shop.sell()

    def refused(self, *words: str, status: int, code: str, costs_nothing: bool = True) -> dict[str, str]:
        """Run a command that must fail, for programs and for people, and give its error."""
        with self.costs_nothing() if costs_nothing else contextlib.nullcontext():
            return failed(self.run(*words, check=False), status, code)

    def specify(self, name: str, instance: str = "", **options: str) -> None:
        """Write a specification; options are lines of its tables `replica`, `options` and `component`."""
        write_specification(self.lab, name, instance or self.cluster.name, **options)


@contextlib.contextmanager
def new_world() -> Iterator[World]:
    """The data directory is itself the mount point of its volume, so that both ways to use one are there."""
    with in_memory() as lab, Spawner(lab.environment()) as spawner:
        disk = lab.btrfs(512 * MIB)
        disk.subvolume("pg")
        cluster = lab.cluster(disk.mount_subvolume("pg", f"{lab.folder}/data"))
        cluster.start()
        write_specification(lab, NAME, cluster.name)
        with Shop(cluster) as shop:
            world = World(lab, disk, spawner, cluster, shop)
            world.replica = str(world.run("backup", NAME).document["replica"])
            yield world


def write_specification(lab: Lab, name: str, instance: str, **options: str) -> None:
    """See `World.specify`."""
    text = f'name = "{name}"\n[[component]]\nwriter = "postgresql"\ninstance = "{instance}"\n'
    text += options.pop("component", "") + "\n"
    text += "".join(f"[{table}]\n{line}\n" for table, line in options.items())
    with open(f"{lab.config_dir}/specs.d/{name}.toml", "w", encoding="utf-8") as f:
        f.write(text)


@contextlib.contextmanager
def specification(world: World, name: str, instance: str = "", **options: str) -> Iterator[str]:
    """A specification that is gone again afterwards, since all of them are read by every command."""
    world.specify(name, instance, **options)
    try:
        yield name
    finally:
        os.unlink(f"{world.lab.config_dir}/specs.d/{name}.toml")


def spawned(spawner: Spawner, *words: str) -> Answer:
    """What a command said, done to its end in a process of its own."""
    return spawner.spawn(*words).answer(120.0)


def obeyed(answer: Answer, *, check: bool = True) -> Answer:
    """An answer that says that it was done."""
    assert not check or answer.status == 0, f"{answer.status}: {answer.output}{answer.complaint}"
    return answer


def failed(answer: Answer, status: int, code: str) -> dict[str, str]:
    """An error of `--json`: one object, whole, with a sentence, what it means for the data, and what to do next."""
    error = answer.document.get("error", {})
    assert (answer.status, error.get("code")) == (status, code), f"{answer.status}: {answer.output}{answer.complaint}"
    assert set(answer.document) == {"schema_version", "error"}
    assert set(error) == {"code", "sentence", "data", "hint", "exit_status", "retryable"}
    assert error["exit_status"] == status
    assert error["sentence"].endswith((".", "?", "!")), error
    assert error["data"], error
    assert error["hint"], error
    assert "Traceback" not in answer.complaint
    return cast("dict[str, str]", error)


def against(answer: Answer, code: str) -> dict[str, str]:
    """The refusal that a preview shows: it answers as ever, and its exit status says that it would not start."""
    found = [each for each in answer.document.get("findings", []) if each["code"] == code]
    assert found, answer.output
    assert answer.status == 5, answer.output
    assert found[0]["severity"] == "refusal"
    assert found[0]["hint"]
    return cast("dict[str, str]", found[0])


def look(lab: Lab) -> frozenset[str]:
    """The lab's inventory, and the folders of replicas; of cgroups and guards nobody can tell whose they are."""
    lines = {each for each in lab.inventory().lines if not each.endswith(_LEDGERS)}
    lines = {each for each in lines if not (each.startswith("cgroup ") or "/slackwater/guard/" in each)}
    for disk in lab.disks:
        for where, folders, names in os.walk(f"{disk.path}/.slackwater"):
            lines |= {f"place {where}/{each}" for each in names}
            if where.count("/") - disk.path.count("/") == 2:
                folders.clear()  # not into the copies
    return frozenset(lines)


def state_of(lab: Lab) -> dict[str, tuple[int, int, str]]:
    """Every file and folder of Slackwater's: its inode, when it was changed, and what is in it.

    But for SQLite's `-shm`, which is shared memory between processes, of readers too, in the shape of a file.
    """
    found = {}
    for folder in (lab.state_dir, lab.run_dir, lab.config_dir):
        for where, _, names in os.walk(folder):
            status = os.stat(where)
            found[where] = (status.st_ino, status.st_mtime_ns, "")
            for path in (os.path.join(where, name) for name in names if not name.endswith("-shm")):
                with open(path, "rb") as f:
                    digest = hashlib.sha256(f.read()).hexdigest()
                status = os.stat(path)
                found[path] = (status.st_ino, status.st_mtime_ns, digest)
    return found


@contextlib.contextmanager
def standing(world: World, *words: str) -> Iterator[tuple[Command, str]]:
    """A session that has begun, and stands still (SIGSTOP) until the context ends; then it is done to its end."""
    session = world.spawner.spawn(*words, "--progress", "json")
    name = reach(session, "session")
    session.send(signal.SIGSTOP)
    try:
        yield session, name
    finally:
        session.send(signal.SIGCONT)
        obeyed(session.answer())


def reach(session: Command, event: str, text: str = "", timeout_s: float = 60.0) -> str:
    """Wait until a session that was begun with `--progress json` tells of this, and give the whole text."""
    deadline = time.monotonic() + timeout_s
    while True:
        ended = session.poll() is not None
        for told in map(json.loads, filter(lambda line: line.endswith("}"), session.complaint().splitlines())):
            if told["event"] == event and text in told["text"]:
                return str(told["text"])
        assert not ended, f"It ended before {event} {text}: {session.output()}{session.complaint()}"
        assert time.monotonic() < deadline, session.complaint()
        time.sleep(0.002)


@contextlib.contextmanager
def holder(lab: Lab, *command: str, cwd: str = "/") -> Iterator["subprocess.Popen[bytes]"]:
    """A process of ours that stands in somebody's way until the context ends."""
    with subprocess.Popen(command, cwd=cwd, env={**os.environ, **lab.environment()}, start_new_session=True) as process:
        try:
            yield process
        finally:
            os.killpg(process.pid, signal.SIGKILL)


def as_nobody(lab: Lab, *words: str) -> Answer:
    """Run the command as the user `nobody`, who may look through our interpreter's folders if need be."""
    may_read = run("test", "-r", sys.executable, user="nobody", group="nogroup", check=False).status == 0
    rights = [] if may_read else ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    done = run(
        "setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", *rights,
        sys.executable, "-m", "slackwater", *words, "--json", check=False, environment=lab.environment(),
    )  # fmt: skip
    return Answer(done.status, done.output, done.complaint, json.loads(done.output) if done.output.strip() else {})


def filesystem(lab: Lab, kind: str, size_bytes: int, name: str) -> str:
    """Make and mount a filesystem of another kind below the lab's folder, which the lab's sweep takes away."""
    target = f"{lab.folder}/{name}"
    os.makedirs(target, exist_ok=True)
    if kind == "tmpfs":
        run("mount", "-t", "tmpfs", "-o", f"size={size_bytes},mode=755", lab.name, target)
        return target
    with open(f"{target}.img", "wb") as f:
        f.truncate(size_bytes)
    device = run("losetup", "--find", "--show", f"{target}.img").output.strip()
    run(f"mkfs.{kind}", "-q", device)
    run("mount", "-t", kind, device, target)
    return target


@dataclass
class Stray:
    """A cluster that does not run, to be put wherever it should not be."""

    cluster: DebianCluster
    pristine: str
    """A copy of its files as they were made."""

    def move(self, data_dir: str) -> None:
        """Put its files elsewhere, as an administrator does: copy, and change the configuration."""
        give_to_owner(data_dir)
        run("cp", "-a", f"{self.pristine}/.", data_dir)
        path = f"{self.cluster.config_dir}/postgresql.conf"
        with open(path, encoding="utf-8") as f:
            text = f.read()
        with open(path, "w", encoding="utf-8") as f:
            f.write(text.replace(f"'{self.cluster.data_dir}'", f"'{data_dir}'"))
        self.cluster.data_dir = data_dir

    @property
    def ref(self) -> str:
        """How Slackwater calls it."""
        return self.cluster.ref


@contextlib.contextmanager
def replica_of(world: World, target: str) -> Iterator[str]:
    """A replica that is gone again afterwards."""
    replica = str(world.run("backup", target).document["replica"])
    try:
        yield replica
    finally:
        world.run("replica", "delete", replica, "--yes")


def add_table(cluster: Cluster, name: str) -> None:
    """Make a table of its database `postgres`."""
    with cluster.connect(autocommit=True) as connection:
        connection.execute(f"CREATE TABLE {name} AS SELECT generate_series(1, 1000) AS n")


def tables(cluster: Cluster) -> list[str]:
    """The tables of its database `postgres`."""
    with cluster.connect() as connection:
        rows = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1").fetchall()
    return [name for (name,) in rows]


def until(done: Callable[[], Any], timeout_s: float = 10.0) -> None:
    """Wait for something."""
    deadline = time.monotonic() + timeout_s
    while not done():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
