# SPDX-License-Identifier: Apache-2.0
"""Every how-to, typed as it stands: from an empty disk, or after the page that makes a database to go on with."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from tests.e2e.pages import Page, Step, Typed, complaints, parse, read, type_in

pytestmark = [pytest.mark.root, pytest.mark.postgresql, pytest.mark.timeout(900)]

PAGES = {path.name: read(path) for path in sorted((Path(__file__).parents[2] / "docs" / "how-to").glob("*.md"))}
FIRST = "btrfs-layout.md"
"""The page on whose database and specification go on those that begin with no disk of their own."""
LAST = ("lost-catalog.md", "postgresql-role.md")
"""These change what the others would find."""
OWN = [name for name, page in PAGES.items() if page.of_its_own and name != FIRST]

LEFT_OUT = {
    "schedule.md": {"needs systemd; tests/platform/test_systemd.py does it"},
    "scripting.md": {"jq may be missing", "sends mail"},
    "sqlite.md": {"needs systemd and a service"},
    "xfs-layout.md": {"needs a user; tests/e2e/test_rootless.py does it"},
}
ONLY_SETTINGS = {"careful.md", "hooks.md", "schedule.md"}


@cache
def typed(page: Page) -> Typed:
    return type_in(page.steps)


@pytest.mark.parametrize("name", OWN)
def test_from_an_empty_disk(name: str) -> None:
    assert complaints(PAGES[name].steps, typed(PAGES[name])) == []


def test_the_others_go_on_with_a_database() -> None:
    others = [name for name in PAGES if name not in (*OWN, FIRST, *LAST)]
    steps = tuple(step for name in (FIRST, *others, *LAST) for step in PAGES[name].steps)
    assert len(steps) > 60
    assert complaints(steps, type_in(steps)) == []


def test_what_is_not_typed_is_known() -> None:
    assert {name: set(page.left_out) for name, page in PAGES.items() if page.left_out} == LEFT_OUT
    assert {name for name, page in PAGES.items() if not page.steps} == ONLY_SETTINGS


def test_a_layout_ends_with_what_was_recovered() -> None:
    for name in (FIRST, *OWN):
        said = "\n".join(step.typed for step in PAGES[name].steps)
        assert [line for line in said.splitlines() if line.startswith("slackwater recover") and "--yes" in line], name


# -- the twins that have to be caught ----------------------------------------------------------------------------------


def test_a_wrong_command_is_caught() -> None:
    page = PAGES["files.md"]
    steps = tuple(Step(step.typed.replace("subvol=@uploads", "subvol=@upload"), step.printed) for step in page.steps)
    assert steps != page.steps
    (found,) = complaints(steps, type_in(steps))
    assert "mount /srv/uploads\nfailed" in found


def test_a_line_that_is_not_printed_is_caught() -> None:
    page = PAGES["files.md"]
    done = typed(page)
    assert complaints(page.steps, done) == []
    for number, step in enumerate(page.steps):
        for place, line in enumerate(step.printed):
            wrong = (*step.printed[:place], f"{line} not", *step.printed[place + 1 :])
            steps = (*page.steps[:number], replace(step, printed=wrong), *page.steps[number + 1 :])
            assert len(complaints(steps, done)) == 1, line
        if len(set(step.printed)) > 2:
            steps = (*page.steps[:number], replace(step, printed=step.printed[::-1]), *page.steps[number + 1 :])
            assert len(complaints(steps, done)) == 1, "in another order"


def test_how_a_page_is_read() -> None:
    text = """
```sh
one
two
```
<!-- not typed: because -->
```sh
three
```
```console
# four <<END
> five
> END
six … 12 ms
```
```toml
# /etc/x/y.toml
seven = 8
```
```toml
nine = 10
```
"""
    page = parse("x.md", text)
    assert page.left_out == ("because",)
    assert [step.typed for step in page.steps] == [
        "one\ntwo\n",
        "four <<END\nfive\nEND",
        "mkdir -p /etc/x; cat > /etc/x/y.toml <<'WRITTEN'\n# /etc/x/y.toml\nseven = 8\nWRITTEN",
    ]
    assert page.steps[1].printed == ("six … 12 ms",)
    for output, wrong in (("six seven 3.4 ms", 0), ("six seven 3.4", 1), ("", 1)):
        assert len(complaints(page.steps[1:2], Typed(0, (output,)))) == wrong, output
