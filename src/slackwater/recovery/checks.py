# SPDX-License-Identifier: Apache-2.0
"""What stands against a recovery, found before anything is touched."""

import os
from collections.abc import Mapping, Sequence

from slackwater.model.component import Component
from slackwater.model.facts import Finding, Severity
from slackwater.model.replica import ComponentRecord, ReplicaKind
from slackwater.model.storage import Volume
from slackwater.recovery import filling
from slackwater.recovery.followers import followers
from slackwater.recovery.order import Hands, RecoveryOrder
from slackwater.system import companions, configuration, namespaces, owned, processes


def check(order: RecoveryOrder, hands: Hands) -> list[Finding]:
    """Check the replica's health, the layout, who holds the volumes, and what the writers said. Reads only."""
    found: list[Finding] = []
    for record, now in zip(order.source.components, order.now, strict=True):
        found += standing_against(now)
        found += _said(now)
        found += followers(now, order)
        found += _moved(now, order.live, hands)
        found += _configuration(record, order)
    paths = [volume.path for volume in order.live]
    found += [_clone_over(each) for each in namespaces.covers(paths)]
    pids = _processes(order, hands) | namespaces.no_hindrance(paths)
    for copy, volume in zip(order.source.copies, order.live, strict=True):
        provider = hands.providers[volume.provider]
        found += _health(hands.providers[copy.provider].altered(copy), copy.place)
        found += [] if copy.by else _layout(copy.volume, volume)
        found += provider.check_recovery(volume, pids, [each for each in order.live if each.id != volume.id])
    return [*found, *filling.check(order.source.copies, order.live, hands.providers)]


def standing_against(component: Component) -> list[Finding]:
    """What stands against stopping and starting a component today, whatever the replica."""
    return _managed(component) + _held(component)


def _clone_over(cover: namespaces.Cover) -> Finding:
    return Finding(
        "clone-over",
        Severity.WARNING,
        f"The engine on the clone of session {cover.session} is ended: it runs over {cover.path}, which is exchanged.",
        "What was written to the clone stays until it is deleted; `slackwater clone list` shows it.",
    )


def _processes(order: RecoveryOrder, hands: Hands) -> frozenset[int]:
    """The processes that will be stopped."""
    pids = companions.pids(order.services).union(*(hands.writers[now.ref.writer].processes(now) for now in order.now))
    all_of_them = any(each.stop for each in order.services)
    by_command = [each for each in order.now if all_of_them or each.facts.get("stop_command")]
    there = [files.path for each in by_command for files in each.files if os.path.exists(files.path)]
    # Whom a command stops is not known before, and seen afterwards; who is on a clone is nobody's application.
    held = {holder.pid for holder in processes.passing_holders({os.stat(path).st_dev for path in there})}
    return pids | {pid for pid in held if not namespaces.enclosed(pid)}


def _managed(component: Component) -> list[Finding]:
    manager = component.facts.get("managed_by")
    if not manager:
        return []
    what, how = f"{component.ref} is managed by {manager}, which", str(component.facts.get("managed_how") or "")
    if component.facts.get("manager_paused"):
        return [Finding("managed", Severity.WARNING, f"{what} is paused, and has to stay so until it is back.", how)]
    told = f"{what} would start, stop or promote it during the recovery."
    return [Finding("managed", Severity.REFUSAL, told, how or f"Pause {manager} for this cluster first.")]


def _held(component: Component) -> list[Finding]:
    holders = component.facts.get("held_by")
    if not holders:
        return []
    return [
        Finding(
            "held",
            Severity.REFUSAL,
            f"{component.ref} is open in {holders}, and nobody said how to stop and start them.",
            'Stop them, or say how in the component\'s table: unit = "…", or stop = "…" and start = "…".',
        )
    ]


#: What a writer says of a component today that forbids to recover it; that it cannot be asked does not.
_FORBIDS = frozenset({"in-container", "standby"})


def _said(component: Component) -> list[Finding]:
    """What its writer says today. An application that is broken, stopped or locked to us is what recoveries are for."""
    found = []
    for each in component.findings:
        if each.code in _FORBIDS or each.code == "not-found":
            found.append(each)
        elif each.severity is Severity.REFUSAL:
            told = f"{component.ref} is recovered by what the replica's document says of it, for: {each.sentence}"
            found.append(Finding(each.code, Severity.WARNING, told, each.hint))
    return found


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
        if os.path.exists(files.path)  # else they are gone, and come back
        and not any((volume := each.volume_of(files.path)) and volume.id in ids for each in hands.providers.values())
    ]


def _configuration(record: ComponentRecord, order: RecoveryOrder) -> list[Finding]:
    """Configuration outside the volumes stays as it is, unless it was asked for; a difference is worth knowing."""
    if order.configuration is not None:
        hint = _PUT_RIGHT if order.source.kind is ReplicaKind.UNDO else _BY_HAND
        return _put_back(record, order.configuration.get(record.component.ref, {}), hint)
    found = []
    for path, text in record.configuration.items():
        present = configuration.read_text(path, configuration.owner_of(record.component))
        if present is None:
            found.append(
                Finding(
                    "configuration-missing",
                    Severity.WARNING,
                    f"{path} is gone; the replica's document holds its text of the time of the backup.",
                    "--with-config puts it back.",
                )
            )
        elif present != text:
            found.append(
                Finding(
                    "configuration-differs",
                    Severity.NOTE,
                    f"{path} has changed since the backup; the present one stays.",
                    "--with-config puts that of the backup back.",
                )
            )
    return found


def _put_back(record: ComponentRecord, now: Mapping[str, str], hint: str) -> list[Finding]:
    """What is put back goes to the undo replica's document; so it has to be a text, on both sides.

    And it is put back with the rights of the engine's user: what he may not do himself is refused.
    """
    found = [
        Finding(
            "configuration-unreadable",
            Severity.REFUSAL,
            f"{path} cannot be put back to the byte: it is no UTF-8 text, or longer than 1 MiB.",
            hint,
        )
        for path, text in record.configuration.items()
        if not configuration.exact(text) or not configuration.exact(now.get(path, ""))
    ]
    owner = configuration.owner_of(record.component)
    for change in configuration.plan(record.configuration, record.absent, now, owner, ""):
        if why := owned.against(change.path, owner):
            told = f"{change.path} cannot be put back with the rights of the engine's user: {why}."
            found.append(Finding("configuration-guarded", Severity.REFUSAL, told, hint))
    return found


_BY_HAND = "Leave --with-config out, and put it back by hand."
_PUT_RIGHT = "Give it to the engine's user (chown), or move it away; what was there before is put back then."


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
