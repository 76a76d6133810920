# SPDX-License-Identifier: Apache-2.0
"""What a client of an application would feel: one of our own asks the smallest question all the time."""

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass

from slackwater.errors import SlackwaterError
from slackwater.model.component import Component
from slackwater.model.replica import BackupComponents
from slackwater.recovery.order import Hands, trees_of
from slackwater.system.clock import Clock
from slackwater.writers.contract import Probe, Writer

_PAUSE_S = 0.002
_LAST_S = 10.0
"""How long the last answer is waited for: an application that stands still then is none that can be measured."""


@dataclass
class Gap:
    """The longest time between two answers."""

    longest_ms: float | None = None
    """None when no client could ask, or one of them lost its connection."""
    why: str = ""
    """Why there is none."""


@contextmanager
def probing(components: Sequence[tuple[Writer, Component]], clock: Clock) -> Iterator[Gap]:
    """Ask every running component all the time, each by a thread of its own, until the context ends.

    A client that cannot be had, or gets no answer any more, costs the number and nothing else.
    """
    found = Gap()
    clients: list[_Client] = []
    against: list[str] = []
    for writer, each in components:
        if not each.running:
            against.append(f"{each.ref} does not run")
            continue
        try:
            with ExitStack() as opened:
                probe = opened.enter_context(writer.probe(each))
                clients.append(_Client(str(each.ref), probe, opened.pop_all(), clock))
        except SlackwaterError as e:
            against.append(e.sentence.rstrip("."))
    for client in clients:
        client.start()
    try:
        yield found
    finally:
        ends_s = clock.boot_s() + _LAST_S
        for client in clients:
            client.ended.set()
        for client in clients:
            client.join(max(0.0, ends_s - clock.boot_s()))
    lost = [f"the client of {client.of} {why}" for client in clients if (why := client.why_lost())]
    if lost or not clients:
        found.why = "; ".join(lost or against)
    else:
        found.longest_ms = round(max(client.longest_s for client in clients) * 1000, 3)


class _Client(threading.Thread):
    """Asks, and closes what it asks by: nobody else could while it waits for an answer."""

    def __init__(self, of: str, probe: Probe, opened: ExitStack, clock: Clock) -> None:
        super().__init__(name="probe", daemon=True)
        self.of = of
        self._probe, self._opened, self._clock = probe, opened, clock
        self.ended = threading.Event()
        self.longest_s = 0.0
        self._lost = ""

    def why_lost(self) -> str:
        """Why it has measured nothing; empty when it asked to the end. Asked when it was waited for."""
        return "still waits for an answer" if self.is_alive() else self._lost

    def run(self) -> None:
        with suppress(Exception), self._opened:
            self._ask()

    def _ask(self) -> None:
        last_s = self._clock.boot_s()
        while not self.ended.is_set():
            try:
                self._probe()
            except Exception as e:  # noqa: BLE001  # a client that fails has measured nothing, and must fail no session
                self._lost = f"got no answer any more ({str(e).strip() or type(e).__name__})"
                return
            now_s = self._clock.boot_s()
            self.longest_s, last_s = max(self.longest_s, now_s - last_s), now_s
            self.ended.wait(_PAUSE_S)


def size_of(document: BackupComponents, hands: Hands) -> int:
    """What the files of a replica's components take on the disk, in bytes, counted in the copies."""
    components = [record.component for record in document.components]
    with ExitStack() as reached:
        trees = trees_of(components, ((copy.volume.path, copy) for copy in document.copies), hands, reached)
        roots = sorted({tree for each in trees.values() for tree in each.values()}, key=len)
        outermost = [root for n, root in enumerate(roots) if not any(root.startswith(f"{o}/") for o in roots[:n])]
        return sum(_bytes_below(root) for root in outermost)


def _bytes_below(root: str) -> int:
    total = 0
    for folder, _, names in os.walk(root):
        for name in names:
            try:
                total += os.lstat(os.path.join(folder, name)).st_blocks * 512
            except FileNotFoundError:
                continue
    return total
