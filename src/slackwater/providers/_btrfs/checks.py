# SPDX-License-Identifier: Apache-2.0
"""What stands against a snapshot of a Btrfs subvolume, or against putting a clone in its place. Reads only."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from slackwater.model.facts import Finding, Severity, refusal
from slackwater.model.storage import Volume
from slackwater.providers import _findings
from slackwater.providers._places import FILES_ROOT, sessions
from slackwater.system import btrfs, fstab, mounts, processes

#: Mounts without which the system does not run (file-hierarchy(7)).
_SYSTEM = frozenset({
    "/", "/boot", "/etc", "/home", "/opt", "/root", "/run", "/srv", "/tmp", "/usr", "/var", "/var/lib", "/var/log",  # noqa: S108
    "/var/tmp",  # noqa: S108
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Scene:
    """A volume with everything about it that the checks look at."""

    volume: Volume
    beside: Sequence[Volume]
    """The other volumes of the set."""
    subvolume: str
    device: int
    """`st_dev` of its files."""
    nested: tuple[str, ...]
    replicas: tuple[str, ...]
    """Sessions whose copies of directories lie in it."""
    default: bool
    """A mount without subvol= shows it."""
    table: tuple[mounts.Mount, ...]
    """What is mounted in our namespace."""

    @property
    def own(self) -> list[mounts.Mount]:
        """Its mounts, each showing it whole."""
        return [m for m in self.carried if m.root == f"/{self.subvolume}"]

    @property
    def carried(self) -> list[mounts.Mount]:
        """Mounts that show it or a part of it."""
        return [m for m in self.table if self.shows(m)]

    def shows(self, mount: mounts.Mount) -> bool:
        """Whether a mount, of any namespace, shows the volume or a part of it."""
        return mount.superblock == self.volume.superblock and mounts.inside(mount.root, f"/{self.subvolume}")

    def carries(self, path: str) -> bool:
        """Whether a file lies on it."""
        try:
            return os.stat(path).st_dev == self.device
        except OSError:
            return False

    @property
    def paths(self) -> set[str]:
        """Where its root is reached."""
        return {self.volume.path, *(m.target for m in self.own)}


def backup(volume: Volume, trees: Sequence[str], beside: Sequence[Volume], owner: str) -> list[Finding]:
    """Look for what would be missing in a snapshot, or would make it fail."""
    if found := _unfit(volume):
        return [found]
    scene = _scene(volume, beside, owner)
    checks: tuple[Callable[[Scene, Sequence[str]], Iterator[Finding]], ...] = (
        _trees_elsewhere, _nested_at_backup, _mounts_in_trees, _read_only,
    )  # fmt: skip
    return [finding for check in checks for finding in check(scene, trees)] + [*_swap(scene), *_replicas(scene)]


def recovery(volume: Volume, pids: frozenset[int], beside: Sequence[Volume], owner: str) -> list[Finding]:
    """Look for what would not follow the exchange, now or at the next start of the system."""
    if found := _unfit(volume):
        return [found]
    scene = _scene(volume, beside, owner)
    checks = (
        _carries_system, _init, _nested_at_recovery, _partial_mounts, _mounts_on_top, _swap, _replicas, _loops,
        _ourselves,
    )  # fmt: skip
    found_here = [finding for check in checks for finding in check(scene)]
    return found_here + list(_namespaces(scene, pids)) + list(_held(scene, pids))


def _scene(volume: Volume, beside: Sequence[Volume], owner: str) -> Scene:
    fd = os.open(volume.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return Scene(
            volume=volume,
            beside=beside,
            subvolume=str(volume.facts["subvolume"]),
            device=os.fstat(fd).st_dev,
            nested=btrfs.nested(fd),
            replicas=tuple(sessions(fd, owner, FILES_ROOT)),
            default=btrfs.default_subvolume(fd) == btrfs.subvolume(fd).id,
            table=mounts.read(),
        )
    finally:
        os.close(fd)


def _unfit(volume: Volume) -> Finding | None:
    """Why the volume cannot be used at all."""
    if volume.facts["subvolume_id"] == btrfs.TOP_LEVEL:
        return refusal(
            "top-level",
            f"{volume.path} is the top level of its Btrfs and not a subvolume: a replica would have to lie inside it.",
            "With the application stopped: btrfs subvolume create DIR.new && cp -a --reflink=auto DIR/. DIR.new/ && "
            "mv -T DIR DIR.old && mv -T DIR.new DIR, where DIR is the application's directory.",
        )
    found = btrfs.subvolume_at(volume.path)
    if found is None or found.uuid != volume.facts["subvolume_uuid"]:
        return refusal(
            "bind-mount",
            f"{volume.path} shows a part of the subvolume {volume.facts['subvolume']}, whose root is mounted nowhere.",
            f"Mount the subvolume itself (subvol=/{volume.facts['subvolume']}) and use the data there.",
        )
    return None


def _trees_elsewhere(scene: Scene, trees: Sequence[str]) -> Iterator[Finding]:
    for tree in trees:
        if not mounts.inside(tree, scene.volume.path):
            yield refusal(
                "bind-mount",
                f"{tree} is a bind mount of a part of the subvolume {scene.subvolume}, which is reached at "
                f"{scene.volume.path}.",
                f"Let the application use its directory below {scene.volume.path}, or make it a subvolume of its own.",
            )


def _nested_at_backup(scene: Scene, trees: Sequence[str]) -> Iterator[Finding]:
    for path in (os.path.join(scene.volume.path, nested) for nested in scene.nested):
        if any(mounts.inside(path, tree) for tree in trees):
            yield refusal(
                "nested-subvolume",
                f"{path} is a subvolume inside the application's files: in the replica it would be an empty directory.",
                f"With the application stopped, make it a plain directory: cp -a --reflink=auto {path} {path}.new && "
                f"btrfs subvolume delete {path} && mv -T {path}.new {path}",
            )
        else:
            yield Finding(
                "nested-subvolume",
                Severity.WARNING,
                f"{path} is a subvolume of its own: in the replica it is an empty directory.",
            )


def _mounts_in_trees(scene: Scene, trees: Sequence[str]) -> Iterator[Finding]:
    for mount in scene.table:
        inside = any(mounts.inside(mount.target, tree) and mount.target != tree for tree in trees)
        if inside and not _beside(scene, mount):
            yield refusal(
                "mount-inside",
                f"{mount.target} is mounted inside the application's files and is no part of the set: in the replica "
                "it would be an empty directory.",
                f"Take it into the set as a volume of its own, or umount {mount.target}.",
            )


def _read_only(scene: Scene, trees: Sequence[str]) -> Iterator[Finding]:
    here = (m for m in scene.table if m.superblock == scene.volume.superblock)
    options = [option for m in here for option in m.super_options] if trees else []
    yield from _findings.read_only(scene.volume.path, options, "snapshot")


def _swap(scene: Scene) -> Iterator[Finding]:
    why = "a subvolume that holds one cannot be snapshotted"
    yield from _findings.swap_files(scene.carries, why, "put it into a subvolume of its own")


def _replicas(scene: Scene) -> Iterator[Finding]:
    """They would go aside with the old volume, and be deleted with it: the only good copies of something else."""
    if scene.replicas:
        yield refusal(
            "replicas-inside",
            f"In {scene.volume.path} lie replicas of directories in it ({', '.join(scene.replicas)}), and a recovery "
            "would set them aside.",
            "Delete them (slackwater replica delete ID), or give the application a subvolume of its own.",
        )


def _carries_system(scene: Scene) -> Iterator[Finding]:
    for mount in scene.carried:
        if mount.target in _SYSTEM:
            yield refusal(
                "carries-system",
                f"The subvolume {scene.subvolume} carries {mount.target}, which the running system needs: it cannot be "
                "exchanged, and the whole system would be turned back with it.",
                "Move the application's data into a subvolume of its own.",
            )


def _init(scene: Scene) -> Iterator[Finding]:
    """What the next start of the system would mount: the old volume, if it is told by a number or not at all."""
    number = scene.volume.facts["subvolume_id"]
    filesystem = str(scene.volume.facts["filesystem"])
    devices = {*btrfs.devices_of(filesystem), os.path.realpath(str(scene.volume.facts["source"]))}
    named = False
    for entry in fstab.entries():
        same = entry.source.lower() == f"uuid={filesystem}" or entry.device in devices or entry.target in scene.paths
        asked = entry.option("subvolid")
        named = named or (entry.target in scene.paths and bool(entry.option("subvol")))
        if same and asked is not None and _number(asked) == number:
            yield refusal(
                "fstab-subvolid",
                f"{entry.origin} mounts {entry.target} by subvolid={asked}, a number that stays with the old volume.",
                f"In {entry.origin} write: {_by_path(entry, scene.subvolume)}",
            )
    if scene.default and scene.own and not named:
        yield refusal(
            "default-subvolume",
            f"{scene.subvolume} is the default subvolume of its Btrfs: what mounts it without subvol= would get the "
            "old volume after a recovery.",
            f"Add subvol=/{scene.subvolume} to its line in {fstab.FSTAB}, or give the default up: btrfs subvolume "
            f"set-default {btrfs.TOP_LEVEL} {scene.volume.path}",
        )


def _number(text: str) -> int:
    """As the kernel reads it, in any base; -1 for what it would not take."""
    try:
        return int(text, 0)
    except ValueError:
        return -1


def _by_path(entry: fstab.Entry, subvolume: str) -> str:
    """The line as it should be."""
    kept = [o for o in entry.options if not o.startswith(("subvolid=", "subvol="))]
    return entry.line.replace(",".join(entry.options), ",".join([*kept, f"subvol=/{subvolume}"]))


def _nested_at_recovery(scene: Scene) -> Iterator[Finding]:
    for nested in scene.nested:
        path = os.path.join(scene.volume.path, nested)
        yield refusal(
            "nested-subvolume",
            f"{path} is a subvolume inside {scene.volume.path}: it would go aside with the old volume and be missing.",
            f"Move it out: mv {path} to a place outside of {scene.volume.path}, on the same mount.",
        )


def _partial_mounts(scene: Scene) -> Iterator[Finding]:
    for mount in scene.carried:
        if mount not in scene.own and mount.target not in _SYSTEM:
            yield refusal(
                "bind-mount",
                f"{mount.target} is a mount of {mount.root.removeprefix('/')}, a part of the volume: it would go on "
                "showing the old one.",
                f"umount {mount.target}",
            )


def _mounts_on_top(scene: Scene) -> Iterator[Finding]:
    for mount in scene.table:
        inside = any(mounts.inside(mount.target, path) and mount.target != path for path in scene.paths)
        if inside and mount not in scene.carried and not _beside(scene, mount):
            yield refusal(
                "mount-inside",
                f"{mount.target} is mounted on a directory of the volume, and is no part of the set.",
                f"umount {mount.target}",
            )


def _loops(scene: Scene) -> Iterator[Finding]:
    yield from _findings.loop_devices(scene.carries)


def _ourselves(scene: Scene) -> Iterator[Finding]:
    yield from _findings.ourselves(scene.carries)


def _namespaces(scene: Scene, pids: frozenset[int]) -> Iterator[Finding]:
    """Who else has it mounted. One who follows our mounts, and one who ends with the application, is no hindrance."""
    own = mounts.own_namespace()
    for space in mounts.namespaces():
        strangers = space.pids - pids
        if space.inode == own or not strangers:
            continue
        stuck = [m for m in space.mounts if scene.shows(m) and not _follows(m, space.mounts, scene)]
        if stuck:
            pid = min(strangers)
            yield refusal(
                "other-namespace",
                f"Process {pid} ({processes.command_of(pid)}) lives in a mount namespace of its own that has the "
                f"volume mounted at {stuck[0].target}, and would go on using the old one.",
                f"Stop it, or: nsenter -t {pid} -m umount {stuck[0].target}",
            )


def _follows(theirs: mounts.Mount, their_table: Sequence[mounts.Mount], scene: Scene) -> bool:
    return any(mounts.follows(theirs, their_table, ours, scene.table) for ours in scene.own)


def _held(scene: Scene, pids: frozenset[int]) -> Iterator[Finding]:
    yield from _findings.held(processes.lasting_holders(scene.device, exclude=pids))


def _beside(scene: Scene, mount: mounts.Mount) -> bool:
    """Whether a mount is that of another volume of the set."""
    return any(
        mount.superblock == other.superblock and mount.root == f"/{other.facts.get('subvolume')}"
        for other in scene.beside
    )
