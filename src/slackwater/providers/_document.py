# SPDX-License-Identifier: Apache-2.0
"""The backup components document as it lies beside a replica: one JSON object, sealed with a checksum."""

import dataclasses
import functools
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from slackwater.model.replica import BackupComponents
from slackwater.model.storage import ShadowCopy
from slackwater.system import mounts

if TYPE_CHECKING:
    from pydantic import TypeAdapter


def seal(document: BackupComponents) -> bytes:
    """Write a document as JSON, with the SHA-256 of its canonical form (keys sorted, no blanks) beside it."""
    plain = _plain(document)
    return json.dumps({"seal": _seal_of(plain), "document": plain}, indent=1, sort_keys=True).encode()


def unseal(text: bytes) -> BackupComponents | None:
    """Read a document back; None when it is not whole, not of a form we know, or was altered."""
    from pydantic import ValidationError

    try:
        whole = json.loads(text)
        if whole["seal"] != _seal_of(whole["document"]):
            return None
        return _adapter().validate_python(whole["document"])
    except (ValueError, KeyError, TypeError, RecursionError, ValidationError):
        return None


def store(directory: int, name: str, text: bytes) -> None:
    """Put a file in place of another in one step, on the disk when this returns. Idempotent."""
    draft = f"{name}.new"
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=directory)
    with open(fd, "wb") as f:
        f.write(text)
        f.flush()
        os.fsync(fd)
    os.rename(draft, name, src_dir_fd=directory, dst_dir_fd=directory)
    os.fsync(directory)


def load(directory: int, name: str) -> BackupComponents | None:
    """Read the document in a directory; None when there is none or it is not whole."""
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
        with open(fd, "rb") as f:
            return unseal(f.read())
    except OSError:
        return None


def by_hand(document: BackupComponents, copies: Sequence[ShadowCopy]) -> list[str]:
    """The commands by which writers have files made ready that lie on some of a document's copies, in place by then."""
    commands: list[str] = []
    for record in document.components:
        if record.expected.get("by_hand") and _carrier(record.component.files[0].path, document.copies) in copies:
            commands += str(record.expected["by_hand"]).splitlines()
    return commands


def _carrier(path: str, copies: Sequence[ShadowCopy]) -> ShadowCopy | None:
    """The copy of the innermost volume that carries a path."""
    return mounts.innermost(path, copies, lambda each: each.volume.path)


@functools.cache
def _adapter() -> "TypeAdapter[BackupComponents]":
    from pydantic import TypeAdapter

    return TypeAdapter(BackupComponents)


def _seal_of(plain: object) -> str:
    canonical = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    return "sha256:" + hashlib.sha256(canonical.encode()).hexdigest()


def _plain(value: object) -> object:
    """Dataclasses, mappings and tuples as JSON knows them."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(each) for each in value]
    return value.isoformat() if isinstance(value, datetime) else value
