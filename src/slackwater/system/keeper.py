# SPDX-License-Identifier: Apache-2.0
"""The first process of an enclosure: it mounts what is to be seen there, makes the rest read-only, and then only waits.

Standard library only; `namespaces.py` starts it by unshare(1) in mount, process, IPC, network and UTS namespaces of
their own, with its plan on standard input. Being process 1 of its namespace, its end is the end of everybody in there
(pid_namespaces(7)), and with the last of them go all mounts that were made here: nothing of it can be left on the host.
"""

import ctypes
import json
import os
import re
import signal
import subprocess
import sys
from typing import Any

#: In the path of every copy inside its filesystem, see providers/_places.py.
_PLACE = "/.slackwater/"
_BIND, _REMOUNT, _READ_ONLY, _DETACH = 4096, 32, 1, 2
#: mount_setattr bears the same number on every architecture (Linux 5.12 and later), see mount_setattr(2).
_MOUNT_SETATTR, _AT_FDCWD, _AT_RECURSIVE = 442, -100, 0x8000
_FLAGS = {"ro": 1, "nosuid": 2, "nodev": 4, "noexec": 8, "noatime": 1024, "nodiratime": 2048, "relatime": 1 << 21}
_ESCAPE = re.compile(r"\\([0-7]{3})")
_libc = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    """Set the enclosure up, say how that went in one line, and wait for the end."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
    try:
        _set_up(json.load(sys.stdin))
    except (OSError, ValueError, KeyError, subprocess.SubprocessError) as e:
        print(f"failed: {e}", flush=True)
        sys.exit(1)
    print("ready", flush=True)
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    while signal.sigwait({signal.SIGCHLD, signal.SIGTERM}) == signal.SIGCHLD:
        _reap()


def _set_up(plan: dict[str, Any]) -> None:
    shown = sorted(plan["mounts"], key=lambda each: len(each["target"]))
    for each in shown:
        _detach(each["target"])
    _detach_copies()
    for each in shown:
        _mount(each)
    _call(b"", plan["folder"], _BIND, plan["folder"])
    _all_read_only()
    for writable in (plan["folder"], *(each["target"] for each in shown)):
        _call(b"", writable, _BIND | _REMOUNT | _FLAGS["nosuid"] | _FLAGS["nodev"], "")


def _mount(order: dict[str, Any]) -> None:
    if not os.path.isdir(order["target"]):
        raise OSError(f"there is no directory {order['target']} on this host: make it, empty")
    words = ["mount", "-n", "-t", order["fstype"], "-o", ",".join(order["options"]), "--"]
    words += [order["source"], order["target"]]
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, check=False, cwd="/")
    if done.returncode != 0:
        raise OSError(done.stderr.decode(errors="replace").strip())


def _detach(target: str) -> None:
    """Take the live volume out of sight: what is mounted at the target, wherever else the same is mounted, and below.

    This namespace is a copy of the host's. What stayed mounted here would keep the volume from being exchanged there.
    """
    table = _mounts()
    here = {(m["device"], m["root"]) for m in table if m["target"] == target}
    for mount in reversed(table):
        below = mount["target"].startswith(f"{target}/")
        if below or (mount["device"], mount["root"]) in here:
            _libc.umount2(os.fsencode(mount["target"]), _DETACH)


def _detach_copies() -> None:
    """Take every copy out of sight that is shown somewhere on the host: it could not be deleted while we have it."""
    for mount in reversed(_mounts()):
        if _PLACE in mount["root"]:
            _libc.umount2(os.fsencode(mount["target"]), _DETACH)


def _all_read_only() -> None:
    """Let nobody in here write anywhere, whatever a link leads to.

    A bind mount inherits this from what it shows, so it comes after all mounts, and is taken back for what is writable.
    """
    attributes = (ctypes.c_uint64 * 4)(_READ_ONLY, 0, 0, 0)
    done = _libc.syscall(
        ctypes.c_long(_MOUNT_SETATTR), ctypes.c_long(_AT_FDCWD), b"/", ctypes.c_long(_AT_RECURSIVE),
        ctypes.byref(attributes), ctypes.c_size_t(ctypes.sizeof(attributes)),
    )  # fmt: skip
    if done == 0:
        return
    for mount in _mounts():
        flags = sum(_FLAGS.get(each, 0) for each in mount["options"])
        _call(b"", mount["target"], _BIND | _REMOUNT | flags | _READ_ONLY, "")


def _mounts() -> list[dict[str, Any]]:
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as f:
        fields = [line.split() for line in f]
    return [
        {"device": each[2], "root": _plain(each[3]), "target": _plain(each[4]), "options": each[5].split(",")}
        for each in fields
    ]


def _plain(text: str) -> str:
    raw = _ESCAPE.sub(lambda match: chr(int(match[1], 8)), text.encode().decode("latin-1"))
    return raw.encode("latin-1").decode(errors="surrogateescape")


def _call(fstype: bytes, target: str, flags: int, source: str) -> None:
    if _libc.mount(os.fsencode(source), os.fsencode(target), fstype, ctypes.c_ulong(flags), None) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"mounting {target}: {os.strerror(code)}")


def _reap() -> None:
    """Bury the dead: whoever loses its parent in here becomes our child."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return


if __name__ == "__main__":
    main()
