# SPDX-License-Identifier: Apache-2.0
"""Scratch volumes, with backups and recoveries on them as sessions make them."""

import json
import os
import secrets
import shutil
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime

from slackwater.journal.effects import Effect, EffectKinds, fields_of
from slackwater.model.facts import Facts, Severity
from slackwater.model.hold import Consistency, Hold
from slackwater.model.plan import Window
from slackwater.model.replica import BackupComponents, FoundReplica, ReplicaKind
from slackwater.model.storage import ShadowCopy, Take, Volume
from slackwater.providers._conformance.pictures import Picture, difference, picture
from slackwater.providers.contract import Provider, Switch


class BrokenPromiseError(Exception):
    """A provider did not do what every provider promises."""


class Ground:
    """What a check works on."""

    def __init__(self, factory: Callable[[str], Provider], owner: str, paths: Sequence[str]) -> None:
        self.factory = factory
        self.owner = owner
        self.paths = [os.path.realpath(path) for path in paths]
        self.provider = factory(owner)
        self.spoilt = ""
        """Why no further check could be believed."""
        self._effects: list[Effect] = []

    # -- scratch ---------------------------------------------------------------------------------------------------

    def must_be_scratch(self) -> None:
        """Refuse whatever is not made for this.

        Raises:
            ValueError: a path is no empty directory, or no volume of its own.
        """
        if not self.paths:
            raise ValueError("no scratch volume was given")
        for path in self.paths:
            if not os.path.isdir(path) or os.listdir(path):
                raise ValueError(f"{path} is no empty directory")
            volume = self.provider.volume_of(path)
            if volume is None:
                raise ValueError(f"{path} is no volume of the provider {self.provider.name}")
            if volume.path != path:
                raise ValueError(f"{path} is a part of the volume {volume.path}, and not one of its own")
        if len({self.volume(path).id for path in self.paths}) != len(self.paths):
            raise ValueError("two of the paths are one volume")

    def can(self, check: str) -> bool:
        """Whether a check can be made here: some need two volumes, some a provider that copies file by file."""
        if check.startswith("several") and len(self.paths) < 2:
            return False
        return not check.startswith("file") or self.provider.capabilities.by_file

    def clear_copies(self) -> list[str]:
        """Undo every effect that the check made: what could not be undone, in words."""
        left = []
        while self._effects:
            effect = self._effects.pop()
            try:
                effect.undo()
            except Exception as e:  # noqa: BLE001  # the next may still be undone
                left.append(f"{effect.describe()} could not be undone: {e}")
        return left

    def clear(self) -> str:
        """Take away what a check made: what could not be taken away, in words, and then `spoilt` tells the same."""
        left = self.clear_copies()
        for path in self.paths:
            try:
                empty(path)
            except OSError as e:
                left.append(f"{path} could not be emptied: {e}")
        left += [f"{each.session} is still found on the storage" for each in self.found()]
        self.spoilt = left[0] if left else ""
        return self.spoilt

    # -- asking ----------------------------------------------------------------------------------------------------

    @staticmethod
    def check(true: object, why: str) -> None:
        """Raise when something is not as promised.

        Raises:
            BrokenPromiseError: it is not.
        """
        if not true:
            raise BrokenPromiseError(why)

    def same(self, wanted: Picture, path: str, where: str) -> None:
        """Raise unless a directory holds exactly this.

        Raises:
            BrokenPromiseError: it does not.
        """
        found = difference(wanted, picture(path))
        self.check(not found, f"{where}: {found}")

    def raises(self, call: Callable[[], object], why: str) -> None:
        """Raise unless a call does.

        Raises:
            BrokenPromiseError: it did not.
        """
        try:
            call()
        except Exception:  # noqa: BLE001  # which of them, the contract does not always say
            return
        raise BrokenPromiseError(why)

    def volume(self, path: str = "") -> Volume:
        """The volume at a path, the first one when left out.

        Raises:
            BrokenPromiseError: there is none.
        """
        found = self.provider.volume_of(path or self.paths[0])
        if found is None:
            raise BrokenPromiseError(f"{path or self.paths[0]} is no volume any more")
        return found

    def volumes(self) -> list[Volume]:
        """All volumes, as they are now."""
        return [self.volume(path) for path in self.paths]

    def found(self) -> list[FoundReplica]:
        """The replicas of this owner that the storage shows."""
        return list(self.provider.find())

    def refusals(self, volume: Volume, pids: frozenset[int] = frozenset()) -> list[str]:
        """What stands against a recovery of the volume."""
        found = self.provider.check_recovery(volume, pids, [v for v in self.volumes() if v.id != volume.id])
        return [each.sentence for each in found if each.severity is Severity.REFUSAL]

    # -- doing -----------------------------------------------------------------------------------------------------

    @staticmethod
    def session() -> str:
        """A new session's id."""
        return f"check-{secrets.token_hex(6)}"

    def stored(self, effect: Effect) -> Effect:
        """An effect as another process reads it from the journal; it is undone when the check has ended.

        Raises:
            BrokenPromiseError: it does not come through.
        """
        kinds = EffectKinds(self.provider.effects)
        loaded = kinds.load(effect.kind, json.loads(json.dumps(fields_of(effect))))
        if loaded is None or loaded != effect:
            raise BrokenPromiseError(f"the effect {effect.kind} does not come through the journal as it was")
        return loaded

    def make(self, effect: Effect) -> Facts:
        """Make an effect that the end of the check undoes."""
        loaded = self.stored(effect)
        self._effects.append(loaded)
        return loaded.make()

    def places(self, volumes: Sequence[Volume], session: str) -> None:
        """Make the directories for a session's copies."""
        for effect in dict.fromkeys(self.provider.place_effect(volume, session) for volume in volumes):
            self.make(effect)

    def backup(self, session: str = "", between: Callable[[], None] = lambda: None) -> list[ShadowCopy]:
        """Take all volumes as a session does; `between` is called right before the instant."""
        return self.take([[Take(volume) for volume in self.volumes()]], session or self.session(), between)

    def take(
        self, stages: Sequence[Sequence[Take]], session: str, between: Callable[[], None] = lambda: None
    ) -> list[ShadowCopy]:
        """Take volumes in stages; `between` is called right before each of them."""
        volumes = list({each.volume.id: each.volume for stage in stages for each in stage}.values())
        self.places(volumes, session)
        snapshots = [self.stored(self.provider.snapshot_effect(volume, session)) for volume in volumes]
        self._effects += snapshots
        with ExitStack() as opened:
            ready = [[opened.enter_context(self.provider.open(take, session)) for take in stage] for stage in stages]
            for commits in ready:
                between()
                for commit in commits:
                    commit()
            facts = [snapshot.make() for snapshot in snapshots]
        return [self.provider.copy(v, session, each) for v, each in zip(volumes, facts, strict=True)]

    def switch(self, copies: Sequence[ShadowCopy], session: str) -> Switch:
        """Plan to put clones of the copies in the place of the volumes as they are now."""
        live = {volume.id: volume for volume in self.volumes()}
        return self.provider.switch(copies, [live[copy.volume.id] for copy in copies], session)

    def recover(self, copies: Sequence[ShadowCopy], session: str = "") -> Switch:
        """Switch; taken back when the check has ended."""
        switch = self.switch(copies, session or self.session())
        for effect in steps(switch):
            self.make(effect)
        return switch

    def document(self, session: str, copies: Sequence[ShadowCopy]) -> BackupComponents:
        """What lies beside copies."""
        return BackupComponents(
            schema_version=1,
            owner=self.owner,
            session=session,
            kind=ReplicaKind.BACKUP,
            specification="conformance",
            created=datetime.fromisoformat("2026-01-02T03:04:05.678+00:00").astimezone(UTC),
            hold=Hold.ATOMIC,
            reason="a check",
            consistency=Consistency.CRASH,
            window=Window(),
            components=(),
            copies=tuple(copies),
        )


def steps(switch: Switch) -> list[Effect]:
    """All effects of a switch, in order."""
    return [*switch.clones, *switch.bar, *switch.exchange, *switch.unbar, *switch.seal]


def write(path: str, name: str, text: str) -> None:
    """Write a small file."""
    with open(os.path.join(path, name), "w", encoding="utf-8") as f:
        f.write(text)


def read(path: str, name: str) -> str:
    """Read it."""
    with open(os.path.join(path, name), encoding="utf-8") as f:
        return f.read()


def empty(path: str) -> None:
    """Remove everything in a directory."""
    for entry in os.scandir(path):
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path)
        else:
            os.unlink(entry.path)
