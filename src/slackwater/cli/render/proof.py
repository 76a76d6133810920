# SPDX-License-Identifier: Apache-2.0
"""Verifications, trials, clones and mounts for people."""

from slackwater.cli import values, words
from slackwater.cli.listing import Listing, receipt_grid
from slackwater.cli.render.kit import Shown, add_messages, render, window_of, word_of
from slackwater.model.quantities import format_bytes
from slackwater.model.replica import Verification
from slackwater.sessions.clone import CloneResult
from slackwater.sessions.mount import Mounted, Unmounted
from slackwater.sessions.trial import TrialResult
from slackwater.sessions.verify import VerificationResult


@render.register
def _verification(value: VerificationResult) -> Shown:
    yield f"Replica {value.replica} of {value.specification} recovers, and is sound."
    receipt = receipt_grid()
    receipt.add_row("recovered in", words.took(value.verification.recovery_ms))
    for name, found in checks_of(value.verification):
        receipt.add_row(name, found)
    receipt.add_row("phases", words.phases(value.phases))
    add_messages(receipt, value.messages)
    yield receipt


@render.register
def _trial(value: TrialResult) -> Shown:
    yield f"{value.specification} can be backed up and turned back here. Nothing was kept."
    receipt = receipt_grid()
    receipt.add_row("size", format_bytes(value.size_bytes))
    receipt.add_row("volumes", "\n".join(f"{each.path} ({each.provider})" for each in value.plan.volumes))
    receipt.add_row("window", window_of(value.plan, value.window))
    gap = f"not measured: {value.why_no_gap}" if value.gap_ms is None else f"{value.gap_ms:.1f} ms for an answer"
    receipt.add_row("longest wait", gap)
    receipt.add_row("time to be back", words.took(value.verification.recovery_ms))
    receipt.add_row("consistency", f"{words.CONSISTENCIES[value.consistency]}. {value.plan.reason}")
    for name, found in checks_of(value.verification):
        receipt.add_row(name, found)
    add_messages(receipt, value.messages)
    yield receipt
    yield f"Next: slackwater spec create NAME {value.specification}" if ":" in value.specification else ""


@render.register
def _clone_made(value: CloneResult) -> Shown:
    clone = value.shown.clone
    yield f"The clone {clone.name} of replica {clone.replica} runs."
    receipt = receipt_grid()
    for component, facts in clone.document.reached.items():
        directory, port = facts.get("socket_directory"), facts.get("port")
        receipt.add_row("component", component)
        if directory:
            receipt.add_row("socket", f"{directory}, port {port}")
        if opened := facts.get("command"):
            receipt.add_row("open it", str(opened))
        elif path := facts.get("path"):
            receipt.add_row("lies at", str(path))
    receipt.add_row("expires", words.local(clone.expires) if clone.expires else "never")
    receipt.add_row("phases", words.phases(value.phases))
    yield receipt
    yield f"Delete it: slackwater clone delete {clone.name}"


@render.register
def _clones(value: values.Clones) -> Shown:
    if not value.clones:
        yield "No clone."
        return
    table = Listing("NAME", "REPLICA", "CREATED", "EXPIRES", "STATE")
    for each in value.clones:
        clone = each.clone
        expires = words.local(clone.expires) if clone.expires else "never"
        row = (clone.name, clone.replica, words.local(clone.created), expires)
        table.add_row(*row, word_of(words.clone_state(each)))
    yield table


@render.register
def _clone_deleted(value: values.CloneDeleted) -> Shown:
    yield f"The clone {value.clone.name} is deleted; replica {value.clone.replica} stays."


@render.register
def _mounted(value: Mounted) -> Shown:
    yield f"Replica {value.replica} is mounted {'read-write, on a clone' if value.read_write else 'read-only'}."
    receipt = receipt_grid()
    for volume, target in value.mounts:
        receipt.add_row("volume", volume)
        receipt.add_row("seen at", target)
    yield receipt
    yield f"Unmount it: slackwater replica unmount {value.replica}"


@render.register
def _unmounted(value: Unmounted) -> Shown:
    for target in value.targets:
        yield f"{target} is unmounted."
    for name in value.deleted:
        yield f"The clone {name} is deleted, with what was written to it."


def checks_of(verification: Verification) -> list[tuple[str, str]]:
    """Each check that was made, and what it found; with the component where there are several."""
    several = len(verification.checks) > 1
    return [
        (f"{component} {name}" if several else name, found)
        for component, checks in verification.checks.items()
        for name, found in checks.items()
    ]
