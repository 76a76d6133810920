# SPDX-License-Identifier: Apache-2.0
"""A small application of files on a Btrfs of its own, for tests of the provider."""

import json
import os
import subprocess
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from slackwater.demo.disk import BtrfsDisk
from slackwater.journal.effects import Effect, EffectKinds, fields_of
from slackwater.model.facts import Severity
from slackwater.model.hold import Consistency, Hold
from slackwater.model.plan import Window
from slackwater.model.replica import BackupComponents, ReplicaKind
from slackwater.model.storage import ShadowCopy, Take, Volume
from slackwater.providers.btrfs import BtrfsProvider
from slackwater.providers.contract import Switch
from slackwater.system.command import run

OWNER = "sw-owner"
EFFECTS = EffectKinds(BtrfsProvider.effects)


def stored(effect: Any) -> Effect:
    """An effect as another process reads it from the journal."""
    loaded = EFFECTS.load(effect.kind, json.loads(json.dumps(fields_of(effect))))
    assert loaded is not None
    assert loaded == effect
    return loaded


@dataclass
class Ground:
    """A disk, and the provider that works on it."""

    disk: BtrfsDisk
    provider: BtrfsProvider = field(default_factory=lambda: BtrfsProvider(OWNER))

    def volume(self, path: str) -> Volume:
        found = self.provider.volume_of(path)
        assert found is not None
        return found

    def backup(self, volumes: Sequence[Volume], session: str) -> list[ShadowCopy]:
        """As a backup does it: place, prepared commits, the instant, and only then the facts."""
        snapshots = [self.provider.snapshot_effect(volume, session) for volume in volumes]
        for place in dict.fromkeys(self.provider.place_effect(volume, session) for volume in volumes):
            stored(place).make()
        with ExitStack() as opened:
            for commit in [opened.enter_context(self.provider.open(Take(volume), session)) for volume in volumes]:
                commit()
        facts = [stored(snapshot).make() for snapshot in snapshots]
        copies = [self.provider.copy(v, session, each) for v, each in zip(volumes, facts, strict=True)]
        self.provider.write_document(document(session, copies))
        return copies

    def recover(self, copies: Sequence[ShadowCopy], paths: Sequence[str], session: str) -> Switch:
        """All steps of a recovery, each as a journal would load it."""
        switch = self.provider.switch(copies, [self.volume(path) for path in paths], session)
        for effect in steps(switch):
            stored(effect).make()
        return switch


def steps(switch: Switch) -> list[Effect]:
    return [*switch.clones, *switch.bar, *switch.exchange, *switch.unbar, *switch.seal]


def undo(effects: Sequence[Effect]) -> None:
    for effect in reversed(effects):
        stored(effect).undo()


def document(session: str, copies: Sequence[ShadowCopy], owner: str = OWNER) -> BackupComponents:
    return BackupComponents(
        schema_version=1,
        owner=owner,
        session=session,
        kind=ReplicaKind.BACKUP,
        specification="test",
        created=datetime.now(UTC),
        hold=Hold.ATOMIC,
        reason="one commit covers all files",
        consistency=Consistency.APPLICATION,
        window=Window(1.5, 0.25),
        components=(),
        copies=tuple(copies),
    )


def write(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8") as f:
        f.write(text)


def read(path: str) -> str:
    with open(path, encoding="utf-8") as f:
        return f.read()


def refusals(found: Sequence[Any]) -> list[str]:
    return sorted(each.code for each in found if each.severity is Severity.REFUSAL)


def subvolumes(disk: BtrfsDisk) -> set[str]:
    """Every subvolume of the disk, by its path from the top level."""
    lines = run("btrfs", "subvolume", "list", disk.path).output.splitlines()
    return {line.split(" path ", 1)[1] for line in lines}


def tree(path: str) -> list[str]:
    return sorted(os.path.relpath(os.path.join(d, f), path) for d, _, files in os.walk(path) for f in files)


class Sleeper:
    """A process that holds something until it is told to go."""

    def __init__(self, script: str, *arguments: str, unshare: str = "") -> None:
        """Start it.

        Args:
            script: what it does first.
            arguments: `$1` and so on.
            unshare: the propagation of a mount namespace of its own (`private`, `slave`); empty for none.
        """
        command = ["sh", "-c", f"{script}\necho ready; exec sleep 60", "sh", *arguments]
        prefix = ["unshare", "--mount", "--propagation", unshare] if unshare else []
        self.process = subprocess.Popen([*prefix, *command], stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"
        while Path(f"/proc/{self.process.pid}/comm").read_text() != "sleep\n":
            time.sleep(0.01)

    def __enter__(self) -> int:
        return self.process.pid

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()
