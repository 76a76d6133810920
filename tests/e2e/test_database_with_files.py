# SPDX-License-Identifier: Apache-2.0
"""A database and the files its rows speak of: one moment, one replica, one recovery in the right order."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from slackwater.demo.cluster import Cluster, give_to_owner
from slackwater.demo.disk import BtrfsDisk
from slackwater.demo.lab import Lab
from tests.e2e.luck_support import MIB, against, obeyed, spawned
from tests.e2e.spawner import Spawner
from tests.platform.crowd import new_cgroup
from tests.platform.files_support import Uploads

pytestmark = [pytest.mark.root, pytest.mark.postgresql]

#: Puts a file in its place, then commits its row, then acknowledges; one after the other.
FRONT = """
import os, pwd, signal, sys, time
import psycopg
directory, control, socket, port = sys.argv[1:]
ending = []
signal.signal(signal.SIGTERM, lambda *_: ending.append(1))
acknowledged = os.open(f"{control}/acknowledged", os.O_WRONLY | os.O_CREAT)
owner = pwd.getpwnam("postgres")
os.setgid(owner.pw_gid)
os.setuid(owner.pw_uid)
def connect():
    while not ending:
        try:
            c = psycopg.connect(host=socket, port=port, dbname="postgres", autocommit=True)
            return c, c.execute("SELECT coalesce(max(n), 0) FROM upload").fetchone()[0]
        except psycopg.Error:
            time.sleep(0.05)
c, n = connect()
while not ending:
    n += 1
    with open(f"{directory}/.new", "w") as f:
        f.write(str(n))
    os.rename(f"{directory}/.new", f"{directory}/{n}")
    try:
        c.execute("INSERT INTO upload VALUES (%s)", (n,))
    except psycopg.Error:
        c, n = connect()
        continue
    os.pwrite(acknowledged, b"%d" % n, 0)
"""


@dataclass
class Site:
    """A cluster, its uploads, and the front end that writes both."""

    lab: Lab
    spawner: Spawner
    cluster: Cluster
    front: Uploads

    def specify(self, *, cgroup: str = "", hold: str = "auto", after: str = "", start: str = "") -> None:
        """Front end first, then the database, then a directory that nobody speaks for."""
        parts = []
        stop = f'stop = "{self.front.control}/stop"\nstart = "{start or f"{self.front.control}/start"}"\n'
        parts.append(_directory(str(self.front.directory)) + stop + (f'cgroup = "{cgroup}"\n' if cgroup else ""))
        parts.append(f'[[component]]\nwriter = "postgresql"\ninstance = "{self.cluster.name}"\n')
        parts += [_directory(after)] if after else []
        text = f'name = "site"\n{"".join(parts)}[options]\nhold = "{hold}"\nhold_timeout = "5s"\n'
        (Path(self.lab.config_dir) / "specs.d" / "site.toml").write_text(text)

    def rows(self) -> set[int]:
        with self.cluster.connect() as connection:
            return {row[0] for row in connection.execute("SELECT n FROM upload")}

    def files(self, directory: Path | None = None) -> set[int]:
        return {int(name) for name in os.listdir(directory or self.front.directory) if name.isdecimal()}


def _directory(path: str) -> str:
    return f'[[component]]\nwriter = "files"\ninstance = "{path}"\n'


def complaints(rows: set[int], files: set[int], at_least: int = 0) -> list[str]:
    """The oracle: no row without its file, no file without its row but the one that was under way."""
    found = [f"row {n} has no file" for n in sorted(rows - files)]
    under_way = max(rows, default=0) + 1
    found += [f"file {n} has no row" for n in sorted(files - rows) if n != under_way]
    return found + ([f"{at_least} was acknowledged"] if max(rows, default=0) < at_least else [])


@pytest.fixture(scope="module")
def disk(lab: Lab) -> BtrfsDisk:
    return lab.btrfs(1024 * MIB)


@contextlib.contextmanager
def site(lab: Lab, data: str, uploads: str, cgroup: str = "") -> Iterator[Site]:
    cluster = lab.cluster(data)
    cluster.start()
    with cluster.connect(autocommit=True) as connection:
        connection.execute("CREATE TABLE upload (n integer PRIMARY KEY)")
    os.makedirs(uploads, exist_ok=True)
    give_to_owner(uploads)
    control = Path(lab.folder) / f"front-{len(lab.clusters)}"
    more = f"{cluster.socket_dir} {cluster.port}"
    front = Uploads(Path(uploads), control, cgroup, FRONT, more, environment=lab.environment())
    with Spawner(lab.environment()) as spawner:
        front.run("start")
        try:
            assert front.goes_on()
            yield Site(lab, spawner, cluster, front)
        finally:
            front.run("stop")
            cluster.stop()
            for each in (Path(lab.config_dir) / "specs.d").iterdir():
                each.unlink()


def back_up(world: Site) -> tuple[str, int, str]:
    """Back up; the replica, what was acknowledged before, and the hold."""
    before = world.front.last()
    taken = obeyed(spawned(world.spawner, "backup", "site")).document
    assert world.front.goes_on()
    return taken["replica"], before, taken["plan"]["hold"]


def recover(world: Site, replica: str) -> set[int]:
    """Recover, and give the rows."""
    obeyed(spawned(world.spawner, "recover", "site", "--replica", replica, "--yes"))
    return world.rows()


def test_on_one_volume_they_are_of_one_moment(lab: Lab, disk: BtrfsDisk) -> None:
    volume = disk.subvolume("site")
    with site(lab, f"{volume}/data", f"{volume}/uploads") as world:
        world.specify()
        replica, before, hold = back_up(world)
        assert hold == "atomic"
        recover(world, replica)
        assert world.front.runs
        world.front.run("stop")
        assert complaints(world.rows(), world.files(), before) == []


def test_on_two_volumes_everybody_stands_still_front_end_first_and_mixed_moments_are_seen(
    lab: Lab, disk: BtrfsDisk
) -> None:
    data, uploads = f"{disk.subvolume('data')}/data", disk.subvolume("uploads")
    with new_cgroup() as cgroup, site(lab, data, uploads, cgroup) as world:
        # Of two directories that nobody can hold one would have another moment than all the rest.
        world.specify(after=disk.subvolume("more"))
        against(spawned(world.spawner, "backup", "site", "--preview"), "not-freezable")
        # One of them gives the moment, and the database is held over it.
        world.specify(start="/bin/true")
        taken = [back_up(world)]
        world.specify(cgroup=cgroup, hold="process-freeze", start="/bin/true")
        taken.append(back_up(world))
        assert {hold for _, _, hold in taken} == {"process-freeze"}
        copies = [next(Path(disk.path).glob(f".slackwater/{replica}/uploads")) for replica, _, _ in taken]
        kept = [world.files(copy) for copy in copies]
        steps = obeyed(spawned(world.spawner, "recover", "site", "--preview")).document["steps"]
        words = ("stop who writes files", "stop PostgreSQL", "start PostgreSQL", "start who writes files")
        order = [next(n for n, each in enumerate(steps) if word in each) for word in words]
        assert order == sorted(order)
        for number, (replica, before, _) in enumerate(taken):
            rows = recover(world, replica)
            assert complaints(rows, kept[number], before) == []
            assert complaints(rows, world.files(), before) == []
            mixed = complaints(rows, kept[1 - number])
            assert ("has no row" if number == 0 else "has no file") in mixed[0]
            world.front.run("start")
            assert world.front.goes_on()


def test_where_each_file_has_an_instant_of_its_own_everybody_stands_still(lab: Lab) -> None:
    disk = lab.xfs(512 * MIB)
    for name in ("data", "uploads"):
        os.mkdir(f"{disk.path}/{name}")
    with new_cgroup() as cgroup, site(lab, f"{disk.path}/data/15", f"{disk.path}/uploads", cgroup) as world:
        world.specify()
        against(spawned(world.spawner, "backup", "site", "--preview"), "not-freezable")
        world.specify(cgroup=cgroup)
        replica, before, hold = back_up(world)
        assert hold == "process-freeze"
        recover(world, replica)
        world.front.run("stop")
        assert complaints(world.rows(), world.files(), before) == []
