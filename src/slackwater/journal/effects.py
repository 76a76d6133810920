# SPDX-License-Identifier: Apache-2.0
"""The contract of an effect: something made outside the process that can be undone or finished by anybody.

An effect is a frozen dataclass whose fields are strings, numbers, booleans, or tuples of strings: enough to make or
undo it in another process, after a crash, with nothing in memory. It finds out on the storage or in the kernel how
far it came; it never trusts that it was made, nor that it was not.
"""

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any, ClassVar, Protocol, runtime_checkable

from slackwater.model.facts import Facts


@runtime_checkable
class Effect(Protocol):
    """One thing outside the process: a snapshot, a mount, a moved process, a stopped server."""

    kind: ClassVar[str]
    """Stable name, `room.verb`, as `btrfs.clone`; it is stored, so it is never given a second meaning."""

    def describe(self) -> str:
        """Say in one plain line what making it does, for previews and reports."""
        ...

    def make(self) -> Facts:
        """Bring it about and return what was learnt. Made already: return the same again, change nothing.

        Raises:
            SlackwaterError: it could not be made; what was begun is undone by `undo`, which the caller calls.
        """
        ...

    def undo(self) -> None:
        """Put back what was before. Never made, half made, undone already: all fine. Touches nothing that is not ours.

        Raises:
            SlackwaterError: it could not be undone now; the journal keeps it open and the next reconcile tries again.
        """
        ...


class EffectKinds:
    """All effects this host knows, by kind; built once from what the rooms bring, without side effects of import."""

    def __init__(self, kinds: Iterable[type[Effect]]) -> None:
        self._kinds: dict[str, type[Effect]] = {}
        for each in kinds:
            if self._kinds.setdefault(each.kind, each) is not each:
                raise ValueError(f"two effects are called {each.kind}")

    def load(self, kind: str, fields: dict[str, Any]) -> Effect | None:
        """Rebuild an effect from its journal entry; None when no room here knows it, or knows it with other fields."""
        found = self._kinds.get(kind)
        if found is None:
            return None
        try:
            return found(**{k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()})
        except (AttributeError, TypeError):  # of another version of it, or damaged
            return None


def fields_of(effect: Effect) -> dict[str, Any]:
    """The fields of an effect, as the journal stores them."""
    return asdict(effect)  # type: ignore[call-overload,no-any-return]  # every effect is a dataclass
