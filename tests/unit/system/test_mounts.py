# SPDX-License-Identifier: Apache-2.0
"""Mountinfo, fstab and mount units, as text."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slackwater.system import fstab, mounts

TABLE = r"""22 27 0:20 / /proc rw,nosuid,nodev,noexec,relatime shared:12 - proc proc rw
27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard
43 27 0:39 /pg/my\040data /srv/a\040b ro,noatime shared:7 master:3 propagate_from:2 - btrfs /dev/loop0 rw,subvol=/m\040d
44 27 0:39 /old//deleted /srv/gone rw - btrfs /dev/loop0 rw
45 27 0:41 / /srv/a\040b rw - tmpfs  rw
46 45 0:42 / /srv/a\040b/\134back\011tab rw unbindable - tmpfs tm\043pfs rw
"""


def test_every_field_is_read() -> None:
    table = mounts.parse(TABLE)
    assert [mount.id for mount in table] == [22, 27, 43, 44, 45, 46]
    btrfs = table[2]
    assert btrfs == mounts.Mount(
        id=43,
        parent=27,
        superblock="0:39",
        root="/pg/my data",
        target="/srv/a b",
        options=("ro", "noatime"),
        peers=frozenset({7, 3}),
        fstype="btrfs",
        source="/dev/loop0",
        super_options=("rw", "subvol=/m d"),
    )
    assert table[5].target == "/srv/a b/\\back\ttab"
    assert table[5].source == "tm#pfs"
    assert table[4].source == ""
    assert table[5].peers == frozenset()


def test_the_topmost_mount_counts() -> None:
    table = mounts.parse(TABLE)
    found = mounts.at("/srv/a b", table)
    assert found is not None
    assert found.fstype == "tmpfs"
    assert mounts.at("/srv", table) is None


@pytest.mark.parametrize(
    "text", ["", "\n\n", "nonsense", "1 2 0:1 / /", "1 2 0:1 / / rw - ext4", "27 1 254:0 / / rw shared:1"]
)
def test_what_is_no_line_of_mountinfo_is_left_out(text: str) -> None:
    assert mounts.parse(text) == ()


def escape(text: str) -> str:
    """As the kernel writes it (seq_path: blank, tab, newline, backslash)."""
    return "".join(f"\\{ord(c):03o}" if c in " \t\n\\" else c for c in text)


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40))
def test_escapes_are_undone(text: str) -> None:
    assert mounts.unescape(escape(text)) == text


def test_escapes_of_bytes_that_are_no_text() -> None:
    assert os.fsencode(mounts.unescape("/a\\377b")) == b"/a\xffb"


def test_the_kernels_own_table() -> None:
    table = mounts.read()
    assert mounts.at("/", table) is not None
    found = mounts.mount_of("/proc/self")
    assert found is not None
    assert (found.target, found.fstype) == ("/proc", "proc")
    with pytest.raises(FileNotFoundError):
        mounts.mount_of("/no/such/path")


def test_inside_is_by_whole_names() -> None:
    assert mounts.inside("/a/b", "/a")
    assert mounts.inside("/a", "/a")
    assert mounts.inside("/a", "/")
    assert not mounts.inside("/ab", "/a")
    assert not mounts.inside("/a", "/a/b")


def test_our_namespace_is_among_all() -> None:
    own = {space.inode: space for space in mounts.namespaces()}[mounts.own_namespace()]
    assert os.getpid() in own.pids
    assert {mount.id for mount in mounts.read()} <= {mount.id for mount in own.mounts}


def follows(theirs_parent: str, ours_parent: str = "shared:1", target: str = "/data") -> bool:
    ours = mounts.parse(f"1 0 0:1 / / rw {ours_parent} - ext4 a rw\n2 1 0:2 /pg /data rw - btrfs b rw\n")
    theirs = mounts.parse(f"8 0 0:1 / / rw {theirs_parent} - ext4 a rw\n9 8 0:2 /pg {target} rw - btrfs b rw\n")
    return mounts.follows(theirs[1], theirs, ours[1], ours)


def test_who_follows_our_mounts() -> None:
    assert follows("master:1")
    assert follows("shared:1")
    assert not follows("shared:2")
    assert not follows("")
    assert not follows("master:1", ours_parent="")
    assert not follows("master:1", target="/elsewhere")


# -- fstab and units -----------------------------------------------------------------------------------------------


@pytest.fixture
def init(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("etc", "lib"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(fstab, "FSTAB", str(tmp_path / "fstab"))
    monkeypatch.setattr(fstab, "UNIT_DIRECTORIES", (str(tmp_path / "etc"), str(tmp_path / "lib")))
    return tmp_path


def test_without_fstab_there_is_nothing(init: Path) -> None:
    assert fstab.entries() == ()


def test_fstab_lines(init: Path) -> None:
    (init / "fstab").write_text(
        "# a comment\n\n"
        "UUID=1234-5678 /data\\040dir/ btrfs noatime,subvolid=257,subvolid=258 0 0\n"
        "/dev/sdb1\t/plain\text4\n"
        "broken line\n"
    )
    first, second = fstab.entries()
    assert (first.target, first.option("subvolid"), first.option("subvol")) == ("/data dir", "258", None)
    assert (first.source, first.device) == ("UUID=1234-5678", "UUID=1234-5678")
    assert first.line == "UUID=1234-5678 /data\\040dir/ btrfs noatime,subvolid=257,subvolid=258 0 0"
    assert (second.source, second.device, second.options) == ("/dev/sdb1", "/dev/sdb1", ("defaults",))


def test_mount_units_with_their_drop_ins(init: Path) -> None:
    (init / "lib" / "a.mount").write_text("[Mount]\nWhat=/dev/vendor\nWhere=/a\n")
    (init / "etc" / "a.mount").write_text("[Mount]\nWhat=/dev/x\nWhere=/a/\nType=btrfs\nOptions=subvolid=9\n")
    (init / "lib" / "b.mount").write_text("[Unit]\nWhat=no\n[Mount]\nWhat=/dev/y\nWhere=/b\n")
    (init / "lib" / "b.mount.d").mkdir()
    (init / "lib" / "b.mount.d" / "x.conf").write_text("[Mount]\nOptions=subvol=/b,ro\n")
    (init / "etc" / "masked.mount").symlink_to("/dev/null")
    a, b = fstab.entries()
    assert (a.source, a.target, a.option("subvolid"), a.origin) == ("/dev/x", "/a", "9", str(init / "etc" / "a.mount"))
    assert (b.target, b.option("subvol"), b.origin) == ("/b", "/b", str(init / "lib" / "b.mount.d" / "x.conf"))
