# SPDX-License-Identifier: Apache-2.0
"""What a demonstration shows: lines from top to bottom, and below them a counter that is always there.

On a terminal the counter stays on the last line; elsewhere (a pipe, a log of a build) it is a line of its own every few
seconds. Whoever counts must be able to answer at any moment: the counter is what shows whether an application stands
still.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

from rich.console import Console
from rich.live import Live
from rich.text import Text

from slackwater.system.clock import SYSTEM_CLOCK

_EVERY_S = 2.0
_RATE_S = 1.0


class Screen:
    """Lines and a counter. May be written to by one thread while another counts."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False, soft_wrap=True)

    @property
    def width(self) -> int:
        """Columns that a command's tables may take."""
        return self.console.width if self.console.is_terminal else 110

    def title(self, text: str) -> None:
        """Begin a scene."""
        self.console.print()
        self.console.print(Text(text, style="bold cyan"))

    def say(self, text: str) -> None:
        """Tell what is going on."""
        self.console.print(Text(text))

    def command(self, *words: str) -> None:
        """Show what a user would type."""
        self.console.print()
        self.console.print(Text("$ " + " ".join(words), style="bold"))

    def output(self, line: str) -> None:
        """Show one line that a command wrote."""
        self.console.print(Text("  " + line.rstrip()))

    def good(self, text: str) -> None:
        """Show something that was checked, and is as it has to be."""
        self.console.print(Text("✓ " + text, style="green"))

    def bad(self, text: str) -> None:
        """Show something that must not be."""
        self.console.print(Text("✗ " + text, style="bold red"))

    def receipt(self, title: str, lines: Sequence[tuple[str, str]]) -> None:
        """Show what was measured, name and value."""
        wide = max(len(name) for name, _ in lines)
        self.console.print()
        self.console.print(Text(title, style="bold green"))
        for name, value in lines:
            self.console.print(Text.assemble("  ", f"{name:<{wide}}", "  ", (value, "bold")))

    @contextmanager
    def counting(self, count: Callable[[], int]) -> Iterator[None]:
        """Show a count all the time while the context lasts."""
        counter = Counter(count)
        if self.console.is_terminal:
            with Live(get_renderable=counter.line, console=self.console, refresh_per_second=10):
                yield
        else:
            with _ticking(lambda: self.console.print(counter.line())):
                yield


class Counter:
    """A number that should grow, how fast it does, and for how long it has not."""

    def __init__(self, count: Callable[[], int]) -> None:
        self._count = count
        self._seen: deque[tuple[float, int]] = deque()
        self._grew_s = SYSTEM_CLOCK.boot_s()

    def line(self) -> Text:
        """Look, and say how it stands."""
        now_s, total = SYSTEM_CLOCK.boot_s(), self._count()
        if not self._seen or total > self._seen[-1][1]:
            self._grew_s = now_s
        self._seen.append((now_s, total))
        while len(self._seen) > 2 and self._seen[1][0] <= now_s - _RATE_S:
            self._seen.popleft()
        since_s, before = self._seen[0]
        rate = (total - before) / (now_s - since_s) if now_s > since_s else 0.0
        still_s = now_s - self._grew_s
        how = f"standing still for {still_s:.1f} s" if still_s > _RATE_S / 2 else f"{rate:,.0f} a second"
        return Text(f"  ● {total:,} commits acknowledged, {how}", style="yellow" if still_s > _RATE_S / 2 else "green")


@contextmanager
def _ticking(tick: Callable[[], None]) -> Iterator[None]:
    """Call `tick` every few seconds in a thread of its own."""
    over = threading.Event()

    def tell() -> None:
        while not over.wait(_EVERY_S):
            with suppress(OSError):
                tick()

    thread = threading.Thread(target=tell, name="slackwater-counter", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
