# SPDX-License-Identifier: Apache-2.0
"""Being another user for the length of one call, in this thread only.

PostgreSQL's peer authentication believes the effective user of whoever calls connect(2) (SO_PEERCRED, unix(7)), so
root has to be the cluster's owner for just that moment. `os.seteuid` would change it for every thread of the process
(setxid signalling, nptl(7)); Linux keeps credentials per thread, and the bare system call changes only the caller's.
"""

import codecs
import ctypes
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager

#: setresuid, setresgid and setgroups, from the kernel's system call tables.
_NUMBERS = {
    "x86_64": (117, 119, 116),
    "aarch64": (147, 149, 159),
    "riscv64": (147, 149, 159),
    "ppc64le": (164, 169, 81),
    "s390x": (208, 210, 206),
}
_libc = ctypes.CDLL(None, use_errno=True)
_UNCHANGED = ctypes.c_long(-1)
codecs.lookup("ascii")  # Python loads it when it is first used, from a file that another user may be unable to read


@contextmanager
def as_user(uid: int, gid: int) -> Iterator[None]:
    """Have another effective user and group inside the context; nothing happens when they are ours already.

    Of supplementary groups there are none inside: root's own would let another user into what is its group's.

    Raises:
        PermissionError: we are not root.
        OSError: the machine's system call numbers are not known here.
    """
    own_uid, own_gid, groups = os.geteuid(), os.getegid(), os.getgroups()
    if (uid, gid) == (own_uid, own_gid):
        yield
        return
    _set_groups([])
    try:
        _set(gid, user=False)
        try:
            _set(uid, user=True)
            try:
                yield
            finally:
                _set(own_uid, user=True)
        finally:
            _set(own_gid, user=False)
    finally:
        _set_groups(groups)


def _set(number: int, *, user: bool) -> None:
    _call(0 if user else 1, _UNCHANGED, ctypes.c_long(number), _UNCHANGED)


def _set_groups(groups: list[int]) -> None:
    if groups != os.getgroups():
        _call(2, ctypes.c_long(len(groups)), (ctypes.c_uint32 * len(groups))(*groups))


def _call(which: int, *arguments: object) -> None:
    try:
        number = _NUMBERS[platform.machine()][which]
    except KeyError:
        raise OSError(f"no system call numbers for {platform.machine()}") from None
    if _libc.syscall(number, *arguments) < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
