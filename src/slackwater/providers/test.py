# SPDX-License-Identifier: Apache-2.0
"""The provider `test`: directories of an exercise, copied as `reflink` does, that fail, hang, lie or die as it says.

Its copies lie in the exercise's folder. Without an exercise it is silent: it has no volumes, and refuses to touch what
one has made.
"""

import os
from dataclasses import replace
from typing import ClassVar

from slackwater.exercise.file import Exercise, current
from slackwater.exercise.lies import INVENTED
from slackwater.exercise.weave import Room
from slackwater.journal.effects import Effect
from slackwater.model.replica import FoundReplica
from slackwater.model.storage import Capabilities, CommitForm, Volume
from slackwater.model.storage import Room as Space
from slackwater.providers._places import name_of
from slackwater.providers._trees.places import TreePlace
from slackwater.providers.contract import Commit, Provider, Receiver
from slackwater.providers.reflink import ReflinkProvider
from slackwater.system import mounts


class _Copies(ReflinkProvider):
    """The provider `reflink`, for the directories of an exercise and with its places in the exercise's folder."""

    name: ClassVar[str] = "test"

    def volume_of(self, path: str) -> Volume | None:
        """The directory of the exercise that carries a path."""
        exercise, real = current(), os.path.realpath(path)
        for each in exercise.volume if exercise else ():
            at = exercise.path(each.directory) if exercise else ""
            if mounts.inside(real, at) and (found := super().volume_of(at)) and exercise:
                base = _base(exercise, found)
                return replace(
                    found, name=name_of(each.directory), facts={**found.facts, "base": base, "live": each.directory},
                )  # fmt: skip
        return None

    def _bases(self) -> dict[TreePlace, str]:
        """The folder."""
        exercise = current()
        found = super().volume_of(exercise.folder) if exercise else None
        if exercise is None or found is None:
            return {}
        facts = {name: str(found.facts[name]) for name in ("filesystem", "source", "fstype")}
        place = TreePlace(**facts, owner=self._owner, session="", base=str(found.facts["inner"]))
        return {place: found.superblock}


def _base(exercise: Exercise, volume: Volume) -> str:
    """The path of the folder inside its filesystem."""
    up = os.path.relpath(exercise.folder, volume.path)
    return os.path.normpath(os.path.join(str(volume.facts["inner"]), up))


def _aliases(names: frozenset[str]) -> frozenset[str]:
    """The directories that the names of volumes stand for."""
    exercise = current()
    known = {name_of(each.directory): each.directory for each in exercise.volume} if exercise else {}
    return names | {known[name] for name in names if name in known}


def _found(kind: str) -> tuple[FoundReplica, ...]:
    """Nothing of what is there; or, invented, what is not."""
    return (FoundReplica("2000-01-01-1", "0:0", ("invented",), None, {}),) if kind == "invent" else ()


ROOM = Room(
    "provider", [Provider, Receiver],
    within={"open": ("provider.commit", Commit)},
    silent={"volume_of": None, "find": (), "mounted_at": ()},
    own_lies={"provider.find": _found, "provider.room": lambda _: Space(1 << 60, 1 << 60)}
    | {f"provider.{each}": lambda _: dict(INVENTED)
       for each in ("snapshot", "fill", "clone", "exchange", "seal", "clone.keep")},
    aliases=_aliases,
)  # fmt: skip


@ROOM.plug_in
class ExerciseProvider:
    """Copies of the directories of an exercise, with its faults."""

    name: ClassVar[str] = "test"
    effects: ClassVar[tuple[type[Effect], ...]] = ROOM.effects(ReflinkProvider.effects)

    def __init__(self, owner: str) -> None:
        self._inner = _Copies(owner)
        exercise = current()
        claims = exercise.provider if exercise else None
        self.capabilities = Capabilities(
            commit_form=claims.commit_form if claims else CommitForm.SYSTEM_CALL,
            instant_over=claims.instant_over if claims else "file",
            reads_through_filesystem=claims.reads_through_filesystem if claims else True,
            rootless=True,
        )
