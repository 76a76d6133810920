# SPDX-License-Identifier: Apache-2.0
"""The logs that specifications keep, where the specifications are not to be had."""

from collections.abc import Collection, Sequence
from pathlib import Path

import anyio

from slackwater.config.places import Places
from slackwater.sessions.cell import Cell
from slackwater.sessions.logs import drop_unwanted


class Told:
    """A host that would drop every log."""

    async def drop_logs(self, wanted: Collection[str], components: Sequence[object] | None) -> Sequence[str]:
        del components
        return [f"dropped all but {sorted(wanted)}"]


def test_nothing_is_dropped_without_the_folder_of_specifications(tmp_path: Path) -> None:
    places = Places(str(tmp_path / "etc"), str(tmp_path / "state"), str(tmp_path / "run"))
    cell = Cell(places)
    cell.__dict__["host"] = Told()
    assert not anyio.run(drop_unwanted, cell)
    Path(places.specs_dir).mkdir(parents=True)
    assert anyio.run(drop_unwanted, cell) == ["dropped all but []"]
