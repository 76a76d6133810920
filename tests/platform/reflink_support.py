# SPDX-License-Identifier: Apache-2.0
"""A small application of files on an XFS or a Btrfs of its own, for tests of the provider `reflink`."""

import json
import os
import socket
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from slackwater.demo.lab import Lab
from slackwater.journal.effects import Effect, EffectKinds, fields_of
from slackwater.model.storage import ShadowCopy, Take, Volume
from slackwater.providers.contract import Switch
from slackwater.providers.plain import PlainProvider
from slackwater.providers.reflink import ReflinkProvider
from slackwater.system.command import run
from tests.platform.btrfs_support import OWNER, document, steps

EFFECTS = EffectKinds((*ReflinkProvider.effects, *PlainProvider.effects))
SMALL = 512 << 20


def stored(effect: Any) -> Effect:
    """An effect as another process reads it from the journal."""
    loaded = EFFECTS.load(effect.kind, json.loads(json.dumps(fields_of(effect))))
    assert loaded is not None
    assert loaded == effect
    return loaded


@dataclass
class Ground:
    """A folder on a filesystem whose files can share extents, and the provider that works on it."""

    path: str
    """Where the filesystem is mounted."""
    device: str
    provider: ReflinkProvider | PlainProvider = field(default_factory=lambda: ReflinkProvider(OWNER))

    @property
    def places(self) -> str:
        """The directory that holds those of all sessions."""
        return next((f"{self.path}/{n}" for n in os.listdir(self.path) if n.startswith(".slackwater")), "")

    def directory(self, name: str) -> str:
        os.makedirs(path := f"{self.path}/{name}")
        return path

    def volume(self, path: str) -> Volume:
        found = self.provider.volume_of(path)
        assert found is not None
        return found

    def backup(self, volumes: Sequence[Volume], session: str) -> list[ShadowCopy]:
        """As a backup does it: place, prepared commits, the instant, and only then the facts."""
        return self.take([[Take(volume) for volume in volumes]], session)

    def take(self, stages: Sequence[Sequence[Take]], session: str) -> list[ShadowCopy]:
        """The same in stages."""
        volumes = list({take.volume.id: take.volume for stage in stages for take in stage}.values())
        snapshots = [self.provider.snapshot_effect(volume, session) for volume in volumes]
        for place in dict.fromkeys(self.provider.place_effect(volume, session) for volume in volumes):
            stored(place).make()
        with ExitStack() as opened:
            ready = [[opened.enter_context(self.provider.open(t, session)) for t in stage] for stage in stages]
            for commits in ready:
                for commit in commits:
                    commit()
            facts = [stored(snapshot).make() for snapshot in snapshots]
        copies = [self.provider.copy(v, session, each) for v, each in zip(volumes, facts, strict=True)]
        self.provider.write_document(document(session, copies))
        return copies

    def recover(self, copies: Sequence[ShadowCopy], paths: Sequence[str], session: str) -> Switch:
        """All steps of a recovery, each as a journal would load it."""
        switch = self.provider.switch(copies, [self.volume(path) for path in paths], session)
        for effect in steps(switch):
            stored(effect).make()
        return switch


def undo(effects: Sequence[Effect]) -> None:
    for effect in reversed(effects):
        stored(effect).undo()


def ground_on(lab: Lab, kind: str) -> Ground:
    """A ground on an XFS, or in a subvolume of a Btrfs that is mounted by itself."""
    if kind == "xfs":
        disk = lab.xfs(SMALL)
        return Ground(disk.path, disk.device)
    if kind == "ext4":
        plain = lab.ext4(SMALL)
        return Ground(plain.path, plain.device, PlainProvider(OWNER))
    btrfs = lab.btrfs(SMALL)
    btrfs.subvolume("home")
    return Ground(btrfs.mount_subvolume("home", f"{lab.folder}/home"), btrfs.device)


def zoo(path: str) -> None:
    """A directory with one of everything."""
    os.makedirs(f"{path}/deep/er/empty")
    with open(f"{path}/sparse", "wb") as f:
        f.truncate(64 << 20)
        f.seek(32 << 20)
        f.write(b"island")
    for name in ("plain", "deep/er/second", "empty-file"):
        with open(f"{path}/{name}", "wb") as f:
            f.write(b"" if name == "empty-file" else name.encode() * 5000)
    os.link(f"{path}/plain", f"{path}/deep/hard")
    os.symlink("../nowhere", f"{path}/deep/link")
    os.mkfifo(f"{path}/pipe", 0o640)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(f"/proc/self/fd/{(fd := os.open(path, os.O_RDONLY))}/socket")
        os.close(fd)
    if os.geteuid() == 0:
        os.mknod(f"{path}/null", 0o20666, os.makedev(1, 3))
        os.chown(f"{path}/plain", 1234, 4321)
        os.chown(f"{path}/deep/link", 77, 77, follow_symlinks=False)
        os.setxattr(f"{path}/plain", "trusted.secret", b"kept")
        run("setcap", "cap_net_raw+ep", f"{path}/deep/er/second", check=False)
    os.chmod(f"{path}/plain", 0o4750)  # noqa: S103
    os.chmod(f"{path}/deep", 0o2755)  # noqa: S103
    os.setxattr(f"{path}/deep", "user.colour", b"blue")
    run("setfacl", "-m", "u:1:r", f"{path}/empty-file")
    run("setfacl", "-d", "-m", "u:1:rwx", f"{path}/deep/er")
    for name in ("sparse", "deep/link", "deep/er", "pipe", "."):
        os.utime(f"{path}/{name}", ns=(10**18 + 7, 10**18 + 9), follow_symlinks=False)


def picture(path: str) -> dict[str, object]:
    """Everything that a copy has to keep, by path; hard links as the set of names that share a file."""
    found: dict[str, object] = {}
    names: dict[int, list[str]] = {}
    for folder, folders, files in os.walk(path):
        for each in ("", *folders, *files):
            full = os.path.join(folder, each) if each else folder
            inner = os.path.relpath(full, path)
            status = os.lstat(full)
            extended = {
                name: os.getxattr(full, name, follow_symlinks=False)
                for name in os.listxattr(full, follow_symlinks=False)
                if ".slackwater." not in name
            }
            content: object = os.readlink(full) if os.path.islink(full) else ""
            if os.path.isfile(full) and not os.path.islink(full):
                with open(full, "rb") as f:
                    content = hash(f.read())
                names.setdefault(status.st_ino, []).append(inner)
            size = status.st_size if os.path.isfile(full) else 0
            found[inner] = (
                oct(status.st_mode), status.st_uid, status.st_gid, size, status.st_mtime_ns, status.st_rdev,
                tuple(sorted(extended.items())), content,
            )  # fmt: skip
    found["links"] = sorted(sorted(each) for each in names.values() if len(each) > 1)
    return found
