# SPDX-License-Identifier: Apache-2.0
"""What stands against a recovery, found before anything is touched."""

from collections.abc import Sequence

from slackwater.model.component import Component
from slackwater.model.facts import Finding, Severity
from slackwater.model.replica import ComponentRecord
from slackwater.model.storage import Volume
from slackwater.recovery.steps import Hands, RecoveryOrder


def check(order: RecoveryOrder, hands: Hands) -> list[Finding]:
    """Check the replica's health, the layout, who holds the volumes, and what the writers said. Reads only."""
    found: list[Finding] = []
    for record, now in zip(order.source.components, order.now, strict=True):
        found += _managed(now)
        found += [each for each in now.findings if each.code == "in-container"]
        found += _moved(now, order.live, hands)
        found += _configuration(record)
    pids = _processes(order, hands)
    for copy, volume in zip(order.source.copies, order.live, strict=True):
        provider = hands.providers[volume.provider]
        found += _health(provider.altered(copy), copy.place)
        found += _layout(copy.volume, volume)
        found += provider.check_recovery(volume, pids, [each for each in order.live if each.id != volume.id])
    return found


def _processes(order: RecoveryOrder, hands: Hands) -> frozenset[int]:
    """The processes that will be stopped."""
    pids: frozenset[int] = frozenset()
    for each in order.now:
        pids |= hands.writers[each.ref.writer].processes(each)
    return pids


def _managed(component: Component) -> list[Finding]:
    manager = component.facts.get("managed_by")
    if not manager:
        return []
    return [
        Finding(
            "managed",
            Severity.REFUSAL,
            f"{component.ref} is managed by {manager}, which would start, stop or promote it during the recovery.",
            f"Pause {manager} for this cluster first.",
        )
    ]


def _moved(component: Component, live: Sequence[Volume], hands: Hands) -> list[Finding]:
    """Files that the application has today and the replica's volumes do not carry."""
    ids = {volume.id for volume in live}
    return [
        Finding(
            "layout-changed",
            Severity.REFUSAL,
            f"The {files.role} of {component.ref} lies in {files.path} today, on none of the replica's volumes.",
            "Recover onto the layout that was backed up: move it back, or drop it, first.",
        )
        for files in component.files
        if not any((volume := each.volume_of(files.path)) and volume.id in ids for each in hands.providers.values())
    ]


def _configuration(record: ComponentRecord) -> list[Finding]:
    """Configuration outside the volumes stays as it is; a difference is worth knowing."""
    found = []
    for path, text in record.configuration.items():
        present = read_text(path)
        if present is None:
            found.append(
                Finding(
                    "configuration-missing",
                    Severity.WARNING,
                    f"{path} is gone; the replica's document holds its text of the time of the backup.",
                    "`slackwater replica show ID --json` prints it.",
                )
            )
        elif present != text:
            found.append(
                Finding(
                    "configuration-differs",
                    Severity.NOTE,
                    f"{path} has changed since the backup; the present one stays.",
                )
            )
    return found


def _health(why: str, place: str) -> list[Finding]:
    if not why:
        return []
    return [
        Finding(
            "replica-altered",
            Severity.REFUSAL,
            f"The copy {place} is not what was backed up: {why}.",
            "Recover from another replica; `slackwater replica list` shows them.",
        )
    ]


def _layout(recorded: Volume, live: Volume) -> list[Finding]:
    if recorded.id == live.id:
        return []
    return [
        Finding(
            "layout-changed",
            Severity.REFUSAL,
            f"{recorded.path} was the volume {recorded.id} at the backup and is {live.id} now.",
            "Mount the volume that was backed up there again.",
        )
    ]


def read_text(path: str, limit_bytes: int = 1 << 20) -> str | None:
    """The text of a small configuration file; None when it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(limit_bytes)
    except OSError:
        return None
