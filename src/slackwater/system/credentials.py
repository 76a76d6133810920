# SPDX-License-Identifier: Apache-2.0
"""Being another user for the length of one call, in this thread only.

PostgreSQL's peer authentication believes the effective user of whoever calls connect(2) (SO_PEERCRED, unix(7)), so
root has to be the cluster's owner for just that moment. `os.seteuid` would change it for every thread of the process
(setxid signalling, nptl(7)); Linux keeps credentials per thread, and the bare system call changes only the caller's.
"""

import ctypes
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager

#: setresuid and setresgid, from the kernel's system call tables.
_NUMBERS = {
    "x86_64": (117, 119),
    "aarch64": (147, 149),
    "riscv64": (147, 149),
    "ppc64le": (164, 169),
    "s390x": (208, 210),
}
_libc = ctypes.CDLL(None, use_errno=True)
_UNCHANGED = ctypes.c_long(-1)


@contextmanager
def as_user(uid: int, gid: int) -> Iterator[None]:
    """Have another effective user and group inside the context; nothing happens when they are ours already.

    Raises:
        PermissionError: we are not root.
        OSError: the machine's system call numbers are not known here.
    """
    own_uid, own_gid = os.geteuid(), os.getegid()
    if (uid, gid) == (own_uid, own_gid):
        yield
        return
    _set(gid, user=False)
    try:
        _set(uid, user=True)
        try:
            yield
        finally:
            _set(own_uid, user=True)
    finally:
        _set(own_gid, user=False)


def _set(number: int, *, user: bool) -> None:
    try:
        numbers = _NUMBERS[platform.machine()]
    except KeyError:
        raise OSError(f"no system call numbers for {platform.machine()}") from None
    if _libc.syscall(numbers[0 if user else 1], _UNCHANGED, ctypes.c_long(number), _UNCHANGED) < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
