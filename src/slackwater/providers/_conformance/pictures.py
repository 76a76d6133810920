# SPDX-License-Identifier: Apache-2.0
"""What is in a directory, to be compared; and a directory with one of everything."""

import hashlib
import os
import stat

Picture = dict[str, tuple[object, ...]]


def picture(path: str) -> Picture:
    """Everything that a copy has to keep, by path; of the root itself not the times, which a switch may move."""
    found: Picture = {}
    names: dict[int, str] = {}
    for folder, folders, files in os.walk(path):
        for each in ("", *folders, *files):
            if not each and folder != path:
                continue
            full = os.path.join(folder, each) if each else folder
            status = os.lstat(full)
            inner = os.path.relpath(full, path)
            found[inner] = (
                oct(status.st_mode), status.st_uid, status.st_gid, status.st_mtime_ns if each else 0, status.st_rdev,
                _extended(full), _content(full, status), _first_name(names, status, inner),
            )  # fmt: skip
    return found


def difference(wanted: Picture, present: Picture) -> str:
    """The first path that differs, in words; empty when none does."""
    for path in sorted(wanted.keys() | present.keys()):
        if path not in present:
            return f"{path} is missing"
        if path not in wanted:
            return f"{path} should not be there"
        if wanted[path] != present[path]:
            return f"{path} is {present[path]} and should be {wanted[path]}"
    return ""


def zoo(path: str) -> None:
    """Put one of everything into a directory that a database or an administrator could have made."""
    os.makedirs(os.path.join(path, "deep", "er", "empty"))
    with open(os.path.join(path, "sparse"), "wb") as f:
        f.truncate(16 << 20)
        f.seek(8 << 20)
        f.write(b"island")
    for name in ("plain", "deep/second", "nothing"):
        with open(os.path.join(path, name), "wb") as f:
            f.write(b"" if name == "nothing" else name.encode() * 5000)
    os.link(os.path.join(path, "plain"), os.path.join(path, "deep", "hard"))
    os.symlink("../plain", os.path.join(path, "deep", "link"))
    os.mkfifo(os.path.join(path, "pipe"), 0o640)
    if os.geteuid() == 0:
        os.chown(os.path.join(path, "plain"), 1234, 4321)
    os.chmod(os.path.join(path, "plain"), 0o4750)  # noqa: S103
    os.setxattr(os.path.join(path, "deep"), "user.colour", b"blue")
    os.utime(os.path.join(path, "sparse"), ns=(10**18 + 7, 10**18 + 9))


def _extended(path: str) -> tuple[tuple[str, bytes], ...]:
    names = os.listxattr(path, follow_symlinks=False)
    return tuple(
        (name, os.getxattr(path, name, follow_symlinks=False)) for name in sorted(names) if ".slackwater." not in name
    )


def _content(path: str, status: os.stat_result) -> str:
    if stat.S_ISLNK(status.st_mode):
        return os.readlink(path)
    if not stat.S_ISREG(status.st_mode):
        return ""
    with open(path, "rb") as f:
        return f"{status.st_size} {hashlib.file_digest(f, 'sha256').hexdigest()}"


def _first_name(names: dict[int, str], status: os.stat_result, inner: str) -> str:
    """The same for all names of one file."""
    return names.setdefault(status.st_ino, inner) if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode) else ""
