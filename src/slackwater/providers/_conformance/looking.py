# SPDX-License-Identifier: Apache-2.0
"""What is looked at before anything is made."""

import os

from slackwater.model.facts import Severity
from slackwater.providers._conformance.ground import Ground, write
from slackwater.providers._conformance.pictures import zoo
from slackwater.providers._conformance.promises import promise


@promise
def one_volume_has_one_name(ground: Ground) -> None:
    """A volume has one id by every way to it, and a name that is a plain file name."""
    path = ground.paths[0]
    os.makedirs(os.path.join(path, "a", "b"))
    os.symlink(path, link := os.path.join(path, "a", "link"))
    volume = ground.volume(path)
    for way in (link, f"{path}/a/..", os.path.join(path, "a", "b", "..", "..")):
        ground.check(ground.volume(way).id == volume.id, f"{way} has another id than {path}")
    ground.check(volume.provider == ground.provider.name, "volume.provider is not the provider's name")
    ground.check(volume.path == path, "volume.path is not where the volume is reached")
    plain = volume.name and "/" not in volume.name and not volume.name.startswith(".") and len(volume.name) <= 64
    ground.check(plain, f"{volume.name!r} is no plain file name")
    ground.check(ground.provider.volume_of("/proc/self") is None, "/proc is a volume")


@promise
def looking_writes_nothing(ground: Ground) -> None:
    """Looking, checking, measuring and finding change nothing on the volume, and refuse nothing on a quiet one."""
    zoo(path := ground.paths[0])
    before = _times(path)
    volume, beside = ground.volume(), ground.volumes()[1:]
    against = [*ground.provider.check_backup(volume, [path], beside), *ground.provider.check_recovery(
        volume, frozenset(), beside)]  # fmt: skip
    refused = [each.sentence for each in against if each.severity is Severity.REFUSAL]
    ground.check(not refused, f"a quiet scratch volume is refused: {refused[:1]}")
    ground.provider.foreign(volume, [os.path.join(path, "deep")])
    ground.check(ground.provider.estimate_s(volume) >= 0, "the estimate is negative")
    ground.check(not ground.found(), "something of ours is found before anything was made")
    ground.check(_times(path) == before, "looking changed something on the volume")


@promise
def what_else_lies_there_is_told(ground: Ground) -> None:
    """`foreign` names what lies beside the trees: at most 20 entries, folders with a slash, shortest first."""
    path = ground.paths[0]
    os.makedirs(os.path.join(path, "app", "data", "inner"))
    os.makedirs(os.path.join(path, "app", "else"))
    write(path, "file", "")
    volume = ground.volume()
    found = list(ground.provider.foreign(volume, [os.path.join(path, "app", "data")]))
    wanted = [os.path.join(path, "file"), os.path.join(path, "app", "else") + "/"]
    ground.check(found == wanted, f"{found} and not {wanted}")
    ground.check(not ground.provider.foreign(volume, [path]), "something is beside the whole volume")
    for number in range(30):
        write(path, f"more{number}", "")
    ground.check(len(ground.provider.foreign(volume, [os.path.join(path, "app")])) == 20, "not 20 entries of 31")


@promise
def room_is_told(ground: Ground) -> None:
    """`room` tells a free part of the whole that shrinks when a file is written."""
    volume = ground.volume()
    before = ground.provider.room(volume)
    ground.check(0 < before.free_bytes <= before.total_bytes, f"{before} is no room")
    with open(os.path.join(ground.paths[0], "ballast"), "wb") as f:
        for _ in range(24):
            f.write(os.urandom(1 << 20))
        f.flush()
        os.fsync(f.fileno())
    after = ground.provider.room(volume)
    ground.check(after.free_bytes < before.free_bytes, "24 MiB were written and no less is free")


def _times(path: str) -> list[tuple[str, int, int]]:
    entries = [path, *(os.path.join(d, n) for d, folders, files in os.walk(path) for n in (*folders, *files))]
    return [(each, (s := os.lstat(each)).st_mtime_ns, s.st_ctime_ns) for each in sorted(entries)]
