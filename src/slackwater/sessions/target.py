# SPDX-License-Identifier: Apache-2.0
"""From what was typed to specifications and components."""

import difflib
from collections.abc import Sequence

from slackwater.config import specification as specs
from slackwater.config.specification import Specification
from slackwater.errors import NotFoundError, RefusedError, RightsError, UsageError
from slackwater.hosts.contract import Identified
from slackwater.model.component import Component, ComponentRef
from slackwater.model.facts import Finding, Severity
from slackwater.model.replica import Replica, ReplicaState
from slackwater.sessions.cell import Cell


def resolve(cell: Cell, target: str) -> Specification:
    """The specification called `target`, or one made up for the component `WRITER:COMPONENT`.

    Raises:
        NotFoundError: no such specification.
        UsageError: the specification is wrong.
        RefusedError: the settings disable a writer that it names.
    """
    specification = _named(cell, target)
    for ref in specification.components:
        if ref.writer in cell.settings.writers.disable:
            raise RefusedError(
                f"The writer {ref.writer} of {ref} is disabled.",
                data="Nothing was changed.",
                hint=f"Take it out of disable in [writers] of {cell.places.settings_file}.",
                code="writer-disabled",
            )
    return specification


def _named(cell: Cell, target: str) -> Specification:
    if ":" not in target:
        return specs.find(cell.places.specs_dir, target)
    try:
        return specs.implicit(ComponentRef.parse(target))
    except ValueError as e:
        raise UsageError(f"{e}.", data="Nothing was changed.") from None


def select(identified: Identified, refs: Sequence[ComponentRef]) -> list[Component]:
    """The components of these names, in this order.

    Raises:
        NotFoundError: one is not there; the hint names what comes close, or why nothing can be seen.
    """
    by_ref = {each.ref: each for each in identified.components}
    for ref in refs:
        if ref not in by_ref:
            raise NotFoundError(
                f"There is no component {ref} on this host.",
                data="Nothing was changed.",
                hint=_what_there_is(ref, [str(each) for each in by_ref], identified.failures),
                code="no-component",
            )
    return [by_ref[ref] for ref in refs]


#: Writers whose components are named by their path alone, and need not be found before.
_NAMED_BY_PATH = frozenset({"files", "sqlite"})


def _what_there_is(wanted: ComponentRef, names: Sequence[str], failures: Sequence[Finding]) -> str:
    if wanted.writer in _NAMED_BY_PATH:
        return "Name it by an absolute path that exists."
    if close := difflib.get_close_matches(str(wanted), names, n=3):
        return f"Did you mean {' or '.join(close)}?"
    if names:
        return "`slackwater discover` shows what there is."
    if failures:
        return failures[0].sentence
    return "No writer found an application here. Is the server running, and are you root?"


#: Refusals by which a writer says that it was not let in, or may not do enough.
_NO_RIGHT = frozenset({"permission", "wrong-password", "no-password", "no-password-file", "not-admitted", "no-right"})

#: Refusals by what may pass by itself: no room, a server that starts or hangs, a stranger who writes at the moment.
_PASSING = frozenset({"min-free", "no-room", "starting", "not-answering", "outside-writer"})


def refuse(findings: Sequence[Finding]) -> None:
    """Raise when anything stands against the session.

    Raises:
        RefusedError: with every reason, the first one's hint and code.
        RightsError: the same, when all of them are missing rights.
    """
    against = [each for each in findings if each.severity is Severity.REFUSAL]
    if against:
        kind = RightsError if all(each.code in _NO_RIGHT for each in against) else RefusedError
        raise kind(
            " ".join(each.sentence for each in against),
            data="Nothing was changed.",
            hint=" ".join(dict.fromkeys(each.hint for each in against if each.hint)),
            code=against[0].code,
            retryable=all(each.code in _PASSING for each in against),
        )


def refuse_going(cell: Cell, chosen: Replica) -> None:
    """Refuse to do anything with a replica whose deletion was decided; asked once more with the session's lock held.

    Raises:
        RefusedError: it is going.
    """
    if any(each.id == chosen.id for each in cell.catalog.replicas.list(state=ReplicaState.DELETING)):
        raise RefusedError(
            f"The deletion of {chosen.id} was decided, and is not finished yet.",
            data="Nothing was changed.",
            hint="slackwater reconcile finishes it; take another replica.",
            code="going",
        )
