# SPDX-License-Identifier: Apache-2.0
"""A session that was cut off, as it is told: how it was found, and what was done about each of its effects."""

from collections import Counter
from dataclasses import dataclass
from datetime import datetime

from slackwater.hosts.contract import Reconciled
from slackwater.journal.journal import Decision
from slackwater.model.session import Message
from slackwater.system.processes import of_this_boot


@dataclass(frozen=True, slots=True)
class CutOff:
    """A session that was cut off: how it was found, and what was done about it."""

    mended: Reconciled
    specification: str = ""
    """Empty where the catalog does not know it."""
    began: datetime | None = None
    compared: Message | None = None
    """Of a recovery that was finished: whether it has reached what it had to, and what to do if not."""

    @property
    def name(self) -> str:
        """Which it is, as `Session 2026-11-22-9, backup of orders`."""
        of = f" of {self.specification}" if self.specification else ""
        return f"Session {self.mended.session}, {self.mended.kind}{of}"

    @property
    def how(self) -> str:
        """How it was cut off, in a sentence."""
        died = "The machine was restarted" if self.restarted else "Its process died"
        number = f" (process {self.pid})" if self.pid is not None else ""
        return f"{died}{number} {_MOMENTS[self.mended.found]}."

    @property
    def restarted(self) -> bool:
        """Whether the machine was started since."""
        return bool(self.mended.process) and not of_this_boot(self.mended.process)

    @property
    def pid(self) -> int | None:
        """The number of its process; None where that cannot be read."""
        number = self.mended.process.partition(":")[0]
        return int(number) if number.isdecimal() else None

    @property
    def done(self) -> tuple[tuple[str, str], ...]:
        """What was done about each effect, and what it is: `undone`, `finished`, `kept` or `not yet`."""
        told = []
        for each in self.mended.mended:
            did = _DID[each.action] if each.done else "not yet"
            told.append((did, f"{each.effect}: {each.error}" if each.error else each.effect))
        return tuple(told)

    @property
    def in_short(self) -> str:
        """One line for those who run something else."""
        left = [f"{each.effect}: {each.error}" for each in self.mended.mended if each.error]
        ended = "not put right yet" if left else "nothing was left to do"
        if self.done and not left:
            counts = Counter(did for did, _ in self.done)
            ended = ", ".join(f"{number} effect{'s' * (number > 1)} {did}" for did, number in counts.items())
        kept = f"; its replica {self.mended.document.session} is kept" if self.mended.document else ""
        why = f": {left[0]}" if left else ""
        doubt = f". {self.compared.text}" if self.compared and self.compared.severity != "note" else ""
        more = "slackwater reconcile" if left else f"slackwater session show {self.mended.session}"
        return f"{self.name}, had been cut off: {f'{ended}{kept}{why}{doubt}'.rstrip('.')}. More: {more}"

    def story(self, now: datetime) -> list[Message]:
        """All of it as messages of the session itself."""
        told = [("error" if did == "not yet" else "note", f"{did.capitalize()}: {what}") for did, what in self.done]
        return [Message(now, severity, text) for severity, text in (("note", self.how), *told)]


_MOMENTS = {
    Decision.OPEN: "before it had decided that what it made is whole",
    Decision.UNDO: "while it put everything back",
    Decision.KEEP: "while a recovery was taken back whose application may have run",
    Decision.FINISH: "after it had decided that what it made stays",
    Decision.STAY: "after its switch, with the order to stay there whatever fails",
    Decision.UNREADABLE: "at a moment that cannot be read any more",
}
_DID = {
    Decision.UNDO: "undone",
    Decision.KEEP: "kept",
    Decision.FINISH: "finished",
    Decision.STAY: "finished",
    Decision.OPEN: "not yet",
    Decision.UNREADABLE: "not yet",
}
