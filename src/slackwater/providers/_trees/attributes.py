# SPDX-License-Identifier: Apache-2.0
"""Carrying over what a file is besides its data: owner, rights, times, and extended attributes with ACLs."""

import os
import stat

#: Tags of ours, which say what a directory is and not what is in it.
_OURS = ("trusted.slackwater.", "user.slackwater.")


def carry(target: int, source: int, wanted: os.stat_result) -> None:
    """Make a file or directory like another in all but its data and its times; both open."""
    _own(target, os.fstat(target), wanted)
    carry_extended(target, source, follow=True)


def carry_name(name: str, target: int, source: int, wanted: os.stat_result) -> None:
    """Make what cannot be opened (a link, a pipe, a device) like another of the same name in another directory."""
    os.chown(name, wanted.st_uid, wanted.st_gid, dir_fd=target, follow_symlinks=False)
    if not stat.S_ISLNK(wanted.st_mode):
        os.chmod(name, stat.S_IMODE(wanted.st_mode), dir_fd=target)
    carry_extended(f"/proc/self/fd/{target}/{name}", f"/proc/self/fd/{source}/{name}", follow=False)
    os.utime(name, ns=(wanted.st_atime_ns, wanted.st_mtime_ns), dir_fd=target, follow_symlinks=False)


def carry_extended(target: int | str, source: int | str, *, follow: bool) -> None:
    """Give a file the extended attributes of another, and no others; nothing is written where they are the same."""
    wanted = {
        name: os.getxattr(source, name, follow_symlinks=follow)
        for name in os.listxattr(source, follow_symlinks=follow)
        if not name.startswith(_OURS)
    }
    present = [name for name in os.listxattr(target, follow_symlinks=follow) if not name.startswith(_OURS)]
    for name in present:
        if name not in wanted:
            os.removexattr(target, name, follow_symlinks=follow)
        elif os.getxattr(target, name, follow_symlinks=follow) == wanted[name]:
            del wanted[name]
    for name, value in wanted.items():
        os.setxattr(target, name, value, follow_symlinks=follow)


def _own(target: int, present: os.stat_result, wanted: os.stat_result) -> None:
    """Owner first: giving a file away takes its set-user-ID bit."""
    moved = (present.st_uid, present.st_gid) != (wanted.st_uid, wanted.st_gid)
    if moved:
        os.chown(target, wanted.st_uid, wanted.st_gid)
    if moved or present.st_mode != wanted.st_mode:
        os.chmod(target, stat.S_IMODE(wanted.st_mode))
