# SPDX-License-Identifier: Apache-2.0
"""The catalog as one JSON document: put away elsewhere, and taken in again where the catalog was lost.

It holds all that storage cannot tell: sessions, what earlier recoveries learnt, when a replica was verified.
"""

import functools
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from slackwater import __version__
from slackwater.config.files import create_private, refuse_untrusted
from slackwater.errors import NotFoundError, RefusedError, SlackwaterError, UsageError
from slackwater.hosts.rights import require_root
from slackwater.model.clone import Clone, CloneState
from slackwater.model.replica import Replica, ReplicaState
from slackwater.model.session import Session
from slackwater.sessions.alone import alone
from slackwater.sessions.cell import Cell

if TYPE_CHECKING:
    from pydantic import TypeAdapter

SCHEMA_VERSION = 1
_UNCHANGED = "Nothing was changed."


@dataclass(frozen=True, slots=True)
class CatalogDocument:
    """Everything that a catalog knows."""

    owner: str
    """The installation's id, which its replicas bear on the storage."""
    version: str
    """Of the slackwater that wrote it."""
    created: datetime
    days: Mapping[str, int]
    """The last number that was given out on each day."""
    sessions: tuple[Session, ...]
    replicas: tuple[Replica, ...]
    clones: tuple[Clone, ...] = ()


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written."""

    path: str
    sessions: int
    replicas: int


@dataclass(frozen=True, slots=True)
class Imported:
    """What was taken in; what the catalog knew before stays as it was."""

    path: str
    sessions: tuple[str, ...]
    replicas: tuple[str, ...]
    missing: tuple[str, ...]
    """Which of these replicas the storage does not hold as they were made."""


def export(cell: Cell, path: str) -> Exported:
    """Write the whole catalog into a new file that only root may read: it holds copies of configuration files.

    Raises:
        UsageError: the file is there already.
        SlackwaterError: it cannot be written.
    """
    require_root()
    found = contents(cell)
    write_new(path, write(found).encode())
    return Exported(path, len(found.sessions), len(found.replicas))


def contents(cell: Cell) -> CatalogDocument:
    """Read the catalog; writes nothing."""
    catalog = cell.catalog
    return CatalogDocument(
        owner=cell.host.owner,
        version=__version__,
        created=cell.clock.now(),
        days=catalog.days(),
        sessions=catalog.sessions.list(),
        replicas=catalog.replicas.list(),
        clones=catalog.clones.list(),
    )


async def take_in(cell: Cell, path: str) -> Imported:
    """Add to the catalog what a file of `export` knows and it does not. Deletes and replaces nothing. Idempotent.

    A replica's state is the storage's word of today, so a deletion that was under way then is not gone on with. Clones
    of which nothing is left are forgotten by the next reconcile.

    Raises:
        UsageError: the file is none of ours, was altered, or is of a newer version.
        RightsError: others than root may write it.
        RefusedError: it is of another installation.
        BusyError: a session runs.
    """
    require_root()
    document = read(path)
    with alone(cell, "catalog import"):
        if not cell.places.take_owner(document.owner):
            raise RefusedError(
                f"{path} is the catalog of another installation of slackwater, {document.owner}.",
                data=_UNCHANGED,
                hint=f"Where this host is to go on in its place: move {cell.places.state_dir} away, then import again.",
                code="other-owner",
            )
        known = {each.id for each in cell.catalog.replicas.list()}
        today = [await _today(cell, each) for each in document.replicas if each.id not in known]
        clones = [replace(each, state=CloneState.KEPT) for each in document.clones]
        sessions, replicas = cell.catalog.merge(document.sessions, today, document.days, clones)
    return Imported(path, sessions, replicas, tuple(e.id for e in today if e.state is ReplicaState.MISSING))


async def _today(cell: Cell, replica: Replica) -> Replica:
    missing = await cell.host.missing(replica)
    return replace(replica, state=ReplicaState.MISSING if missing else ReplicaState.GOOD)


def write(document: CatalogDocument) -> str:
    """One JSON object, sealed with the SHA-256 of what it holds."""
    plain = _adapter().dump_python(document, mode="json")
    head = {"schema_version": SCHEMA_VERSION, "what": "catalog of slackwater", "seal": _seal_of(plain)}
    return json.dumps({**head, "catalog": plain}, indent=1, ensure_ascii=False) + "\n"


def read(path: str) -> CatalogDocument:
    """Read a file of `export`.

    Raises:
        NotFoundError: there is no such file.
        UsageError: it is none of ours, was altered, or is of a newer version.
        RightsError: others than root may write it.
    """
    try:
        with open(path, "rb") as f:
            refuse_untrusted(os.fstat(f.fileno()), path)
            return parse(f.read(), path)
    except FileNotFoundError as e:
        raise NotFoundError(f"There is no file {path}.", data=_UNCHANGED) from e
    except OSError as e:
        raise SlackwaterError(f"{path} cannot be read: {e.strerror}.", data=_UNCHANGED) from e


def parse(text: bytes, path: str) -> CatalogDocument:
    """Read what stands in a file of `export`.

    Raises:
        UsageError: as `read`.
    """
    try:
        whole = json.loads(text)
        version = int(whole["schema_version"])
        if version <= SCHEMA_VERSION:
            if whole["seal"] != _seal_of(whole["catalog"]):
                raise ValueError("its checksum does not fit")
            document = _adapter().validate_python(whole["catalog"])
            if strangers := [each.id for each in document.replicas if each.document.owner != document.owner]:
                raise ValueError(f"{strangers[0]} is of another installation")
            return document
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as e:  # pydantic's own is a ValueError
        why = "its checksum does not fit" if "checksum" in str(e) else type(e).__name__
        raise UsageError(
            f"{path} is no whole catalog of slackwater ({why}).",
            data=_UNCHANGED,
            hint="Take another file that `slackwater catalog export` wrote; or: slackwater catalog rebuild",
            code="no-catalog",
        ) from e
    raise UsageError(
        f"{path} was written by a newer version of slackwater (its schema is {version}, this version knows up to "
        f"{SCHEMA_VERSION}).",
        data=_UNCHANGED,
        hint="Update slackwater on this host.",
        code="newer-catalog",
    )


def write_new(path: str, data: bytes) -> None:
    """Write a private file, whole or not at all.

    Raises:
        UsageError: it is there already.
        SlackwaterError: it cannot be written.
    """
    try:
        create_private(path, data)
    except FileExistsError as e:
        raise UsageError(f"{path} is there already.", data=_UNCHANGED, hint="Name a file that is not.") from e
    except OSError as e:
        raise SlackwaterError(f"{path} cannot be written: {e.strerror}.", data="It was not made.") from e


@functools.cache
def _adapter() -> "TypeAdapter[CatalogDocument]":
    from pydantic import TypeAdapter

    return TypeAdapter(CatalogDocument)


def _seal_of(plain: Any) -> str:  # noqa: ANN401  # whatever JSON holds
    canonical = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    return "sha256:" + hashlib.sha256(canonical.encode()).hexdigest()
