# SPDX-License-Identifier: Apache-2.0
"""Lists for people: a table where every value stays whole, and a receipt for each row where that does not fit."""

from collections.abc import Sequence

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

#: Headings of words that may go on in the next line; all others are names, times and figures, which stay in one.
_FLOWING = (
    "COMPONENT", "COMPONENTS", "PATH", "VOLUME", "FOUND", "DONE", "STATE", "CHECK", "WHY", "CALENDAR", "ENDED", "HOLD",
    "OUTCOME", "WHAT WAS LOST",
)  # fmt: skip
#: A longer word of those, such as a path, is broken.
_LONGEST = 20
_BETWEEN = 2


class Listing:
    """Rows below headings.

    Args:
        headings: one for each column.
        spare: the heading of what other columns say too; it goes first when the room is short.
    """

    def __init__(self, *headings: str, spare: str = "") -> None:
        self.headings = headings
        self.rows: list[tuple[Text, ...]] = []
        self._spare = spare

    def add_row(self, *cells: str | Text) -> None:
        """Add a row: a cell for each heading."""
        self.rows.append(tuple(each if isinstance(each, Text) else Text(each) for each in cells))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Show as much as there is room for, as a table if that can be (rich calls this)."""
        everything = range(len(self.headings))
        for shown in (everything, [each for each in everything if self.headings[each] != self._spare]):
            widths = self._widths(shown, options.max_width)
            if widths:
                yield self._table(shown, widths)
                return
        yield from self._receipts()

    def _widths(self, shown: Sequence[int], room: int) -> list[int]:
        """How wide each column is; nothing if they do not fit."""
        needs, wants = [], []
        for column in shown:
            texts = [self.headings[column], *(row[column].plain for row in self.rows)]
            lines = [cell_len(line) for text in texts for line in text.split("\n")]
            words = [min(cell_len(word), _LONGEST) for text in texts for word in text.split()]
            wants.append(max(lines))
            needs.append(max(words, default=0) if self.headings[column] in _FLOWING else wants[-1])
        left = room - sum(needs) - _BETWEEN * (len(needs) - 1)
        if left < 0:
            return []
        more = sorted(range(len(needs)), key=lambda each: wants[each] - needs[each])
        for place, column in enumerate(more):  # the modest first, so that nothing is left over while somebody wants it
            given = min(wants[column] - needs[column], left // (len(more) - place))
            needs[column] += given
            left -= given
        return needs

    def _table(self, shown: Sequence[int], widths: list[int]) -> Table:
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
        for column, width in zip(shown, widths, strict=True):
            table.add_column(self.headings[column], overflow="fold", width=width)
        for row in self.rows:
            table.add_row(*(row[column] for column in shown))
        return table

    def _receipts(self) -> RenderResult:
        for place, row in enumerate(self.rows):
            if place:
                yield ""
            receipt = receipt_grid()
            for heading, cell in zip(self.headings, row, strict=True):
                receipt.add_row(heading.lower(), cell)
            yield receipt


def receipt_grid() -> Table:
    """A receipt: labels and what they say."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    return grid
