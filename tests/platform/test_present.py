# SPDX-License-Identifier: Apache-2.0
"""Mounting as an effect, and an enclosure, on the real kernel."""

import os
import secrets
import stat
from pathlib import Path

import pytest

from slackwater.errors import RefusedError, SlackwaterError
from slackwater.model.storage import MountOrder
from slackwater.system import mounts, namespaces
from slackwater.system.command import run
from slackwater.system.present import CAREFUL, present

pytestmark = pytest.mark.root


def order_of(path: Path) -> MountOrder:
    """Bind a directory; by its path inside the filesystem it is known again."""
    mount = mounts.mount_of(str(path))
    assert mount is not None
    root = os.path.normpath(os.path.join(mount.root, os.path.relpath(path, mount.target)))
    return MountOrder("none", str(path), root, ("bind",))


def test_a_mount_is_made_once_and_taken_away_with_its_folders(tmp_path: Path) -> None:
    for name in ("copy", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    target = tmp_path / "a/b"
    effect = present(order_of(tmp_path / "copy"), str(target), (*CAREFUL, "ro"))
    effect.undo()
    for _ in range(2):
        effect.make()
        assert (target / "file").read_text() == "copy"
    assert [m.target for m in mounts.read()].count(str(target)) == 1
    with pytest.raises(OSError, match="Read-only"):
        (target / "new").touch()
    with open(target / "file", encoding="utf-8"), pytest.raises(RefusedError, match="holds it"):
        effect.undo()
    for _ in range(2):
        effect.undo()
        assert not (tmp_path / "a").exists()
    target.mkdir(parents=True)
    run("mount", "--bind", str(tmp_path / "other"), str(target))
    try:
        with pytest.raises(RefusedError, match="is a mount point already"):
            effect.make()
        effect.undo()
        assert (target / "file").read_text() == "other", "a stranger's mount stays"
    finally:
        run("umount", str(target))


def test_in_an_enclosure_the_clone_lies_over_the_original_and_all_else_can_only_be_read(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    for name in ("live", "clone"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    (tmp_path / "clone/link").symlink_to(tmp_path / "live")
    folder, owner = tmp_path / "clones/folder", secrets.token_hex(8)
    shown = [(order_of(tmp_path / "clone"), str(tmp_path / "live"))]
    effect = namespaces.enclose(owner, "2026-11-22-1", str(folder), shown)
    effect.undo()
    try:
        before = os.umask(0o077)
        first = effect.make()
        os.umask(before)
        assert {stat.S_IMODE(os.stat(each).st_mode) for each in (folder, folder.parent)} == {0o755}
        assert effect.make() == first, "made already"
        inside = namespaces.inside(effect.mark)
        assert run(*inside, "cat", str(tmp_path / "live/link/file")).output == "clone"
        run(*inside, "sh", "-c", f"echo new > {tmp_path}/live/link/file; echo told > {folder}/told")
        assert (tmp_path / "live/file").read_text() == "live", "through its own link, the clone was written to"
        assert (tmp_path / "clone/file").read_text() == "new\n"
        assert (folder / "told").read_text() == "told\n"
        for path in (tmp_path, Path("/"), Path("/dev/shm")):
            assert run(*inside, "touch", f"{path}/stray-{owner}", check=False).status != 0
        assert namespaces.enclosed(int(str(first["pid"])))
        assert not namespaces.enclosed(os.getpid())
    finally:
        effect.undo()
    effect.undo()
    assert namespaces.keeper_of(effect.mark) is None
    assert not folder.exists()
    with pytest.raises(SlackwaterError, match="are gone"):
        namespaces.inside(effect.mark)
    missing = namespaces.enclose(owner, "2026-11-22-1", str(folder), [(shown[0][0], f"{tmp_path}/nowhere")])
    with pytest.raises(SlackwaterError, match="there is no directory"):
        missing.make()
    missing.undo()
    assert namespaces.keeper_of(missing.mark) is None
