# SPDX-License-Identifier: Apache-2.0
"""What is in a copy."""

import mmap
import os

from slackwater.model.storage import ShadowCopy, Take
from slackwater.providers._conformance.ground import Ground, read, write
from slackwater.providers._conformance.pictures import picture, zoo
from slackwater.providers._conformance.promises import promise


@promise
def the_copy_is_the_instant(ground: Ground) -> None:
    """A copy holds all that was written before its commit, also what no disk has yet, and nothing of after it."""
    path = ground.paths[0]
    zoo(path)
    with open(os.path.join(path, "mapped"), "wb") as zeros:
        zeros.write(bytes(65536))
    wanted = {}
    with open(os.path.join(path, "mapped"), "r+b") as f, mmap.mmap(f.fileno(), 0) as mapped:
        mapped[0] = 1

        def late() -> None:
            write(path, "plain", "written late")
            os.rename(os.path.join(path, "nothing"), os.path.join(path, "deep", "moved"))
            os.makedirs(os.path.join(path, "new", "er"))
            write(path, "new/er/file", "new")
            mapped[4096] = 2
            wanted.update(picture(path))

        copy = ground.backup(between=late)[0]
        mapped[8192] = 3
    write(path, "plain", "after")
    os.unlink(os.path.join(path, "new", "er", "file"))
    with ground.provider.reach(copy) as root:
        ground.same(wanted, root, "the copy")


@promise
def everything_is_kept(ground: Ground) -> None:
    """Owners, rights, times, attributes, links, holes and empty directories are in the copy and in its clone."""
    zoo(path := ground.paths[0])
    wanted = picture(path)
    copies = ground.backup()
    with ground.provider.reach(copies[0]) as root:
        ground.same(wanted, root, "the copy")
        blocks = os.stat(os.path.join(root, "sparse")).st_blocks * 512
        ground.check(blocks < 4 << 20, f"a file with a hole takes {blocks} bytes in the copy")
    ground.recover(copies)
    ground.same(wanted, path, "what was recovered")


@promise
def opened_and_left_is_no_copy(ground: Ground) -> None:
    """Without a commit there is no copy: reading its facts fails, and undoing takes away what was prepared."""
    write(path := ground.paths[0], "rows", "one")
    session = ground.session()
    volume = ground.volume()
    ground.places([volume], session)
    snapshot = ground.stored(ground.provider.snapshot_effect(volume, session))
    snapshot.undo()
    with ground.provider.open(Take(volume), session):
        pass
    try:
        ground.raises(snapshot.make, "a copy that was never committed has facts")
    finally:
        snapshot.undo()
        snapshot.undo()
    ground.check(read(path, "rows") == "one", "the live volume was changed")


@promise
def a_copy_is_protected(ground: Ground) -> None:
    """A copy, reached, cannot be written to, is outside of the volume, and stays as it was when all else is written."""
    write(path := ground.paths[0], "rows", "one")
    (copy, *_) = ground.backup()
    ground.check(ground.provider.altered(copy) == "", f"altered: {ground.provider.altered(copy)}")
    ground.check(os.listdir(path) == ["rows"], "the copy lies inside of the volume")
    with ground.provider.reach(copy) as root:
        if os.geteuid() == 0:
            ground.raises(lambda: write(root, "rows", "forged"), "a copy can be written to")
        write(path, "rows", "two")
        ground.check(read(root, "rows") == "one", "the copy changed with the live volume")
    ground.check(ground.provider.altered(copy) == "", "altered, after nothing but the live volume was written")


@promise
def an_altered_copy_is_told(ground: Ground) -> None:
    """`altered` tells a copy that is gone, and one that was put in the place of another."""
    write(ground.paths[0], "rows", "one")
    session = ground.session()
    copies = ground.backup(session)
    first = copies[0]
    ground.provider.delete_effect(copies, session).make()
    ground.check(ground.provider.altered(first) != "", "a copy that was deleted is as it was made")
    ground.raises(lambda: _reach(ground, first), "a copy that was deleted can be reached")
    ground.backup(session)
    ground.check(ground.provider.altered(first) != "", "another copy under the same name counts as the first")


def _reach(ground: Ground, copy: ShadowCopy) -> None:
    with ground.provider.reach(copy):
        pass
