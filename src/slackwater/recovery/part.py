# SPDX-License-Identifier: Apache-2.0
"""Recovering some components of a replica alone: those whose volumes carry none of the others."""

from collections.abc import Collection
from dataclasses import replace

from slackwater.errors import NotFoundError, RefusedError
from slackwater.model.component import ComponentRef
from slackwater.model.facts import Finding, Severity
from slackwater.model.replica import BackupComponents, ComponentRecord
from slackwater.system import mounts


def part(document: BackupComponents, wanted: Collection[ComponentRef]) -> BackupComponents:
    """The document of a part of a replica; all of it when nothing is wanted in particular.

    Raises:
        NotFoundError: the replica holds no such component.
        RefusedError: another one would be turned back with it.
    """
    if not wanted:
        return document
    here = [record.component.ref for record in document.components]
    for ref in wanted:
        if ref not in here:
            raise NotFoundError(
                f"{document.session} holds no {ref}.",
                data="Nothing was changed.",
                hint=f"It holds {', '.join(map(str, here))}.",
                code="no-component",
            )
    chosen = [each for each in document.components if each.component.ref in wanted]
    paths = {path for record in chosen for path in _volumes(record, document)}
    _refuse_shared(document, wanted, paths)
    copies = tuple(copy for copy in document.copies if copy.volume.path in paths)
    return replace(document, components=tuple(chosen), copies=copies)


def left_behind(document: BackupComponents, wanted: Collection[ComponentRef]) -> list[Finding]:
    """What the recovery of a part means to the others of the replica."""
    others = [str(each.component.ref) for each in document.components if each.component.ref not in wanted]
    if not wanted or not others:
        return []
    told = f"{', '.join(others)} stay as they are now: what they and {', '.join(map(str, wanted))} say of each other"
    return [Finding("others-stay", Severity.WARNING, f"{told} may not fit any more.")]


def _refuse_shared(document: BackupComponents, wanted: Collection[ComponentRef], paths: Collection[str]) -> None:
    others = [each for each in document.components if each.component.ref not in wanted]
    shared = {each.component.ref: sorted(_volumes(each, document) & set(paths)) for each in others}
    along = {ref: on for ref, on in shared.items() if on}
    if along:
        names = ", ".join(map(str, along))
        volumes = ", ".join(dict.fromkeys(path for on in along.values() for path in on))
        raise RefusedError(
            f"{names} would go back in time with {', '.join(map(str, wanted))}: they share {volumes}.",
            data="Nothing was changed.",
            hint=f"{_with(along)}; or take what you need out of a copy that harms nobody: "
            f"slackwater clone create {document.session} --name before",
            code="shared-volume",
        )


def _with(others: Collection[ComponentRef]) -> str:
    return f"To accept that: {' '.join(f'--component {each}' for each in others)}"


def _volumes(record: ComponentRecord, document: BackupComponents) -> set[str]:
    """The paths of the volumes that carried a component's files."""
    paths = [copy.volume.path for copy in document.copies]
    return {path for files in record.component.files if (path := mounts.innermost(files.path, paths, str)) is not None}
