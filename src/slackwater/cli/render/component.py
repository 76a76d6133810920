# SPDX-License-Identifier: Apache-2.0
"""Components, specifications, and the writers and providers of both, for people."""

from rich.table import Table
from rich.text import Text

from slackwater.cli import values, words
from slackwater.cli.listing import Listing, receipt_grid
from slackwater.cli.render.kit import Shown, add_finding, findings_of, render, word_of
from slackwater.sessions.discover import Discovered, Discovery


@render.register
def _discovery(value: Discovery) -> Shown:
    if value.components:
        table = Listing("COMPONENT", "RUNS", "PROVIDER", "HOLD", "RECOVERABLE")
        for each in value.components:
            _add_discovered(table, each)
        yield table
        for each in value.components:
            yield ""
            yield Text(str(each.component.ref), "bold")
            yield _details(each)
    else:
        yield "No application was found here that a writer of this installation knows."
    yield from findings_of(value.failures)


def _add_discovered(table: Listing, each: Discovered) -> None:
    providers = ", ".join(sorted({volume.provider for volume in each.volumes})) or "-"
    hold = words.HOLDS[each.hold] if each.hold else "-"
    runs, recoverable = ("yes" if said else "no" for said in (each.component.running, each.recoverable))
    table.add_row(str(each.component.ref), runs, providers, hold, word_of(recoverable))


def _details(each: Discovered) -> Table:
    receipt = receipt_grid()
    receipt.add_row("what", each.component.caption)
    for volume in each.volumes:
        roles = dict.fromkeys(str(placed.files.role) for placed in each.placements if placed.volume.id == volume.id)
        receipt.add_row("volume", f"{volume.path} ({volume.provider})" + (f": {', '.join(roles)}" if roles else ""))
    if each.hold:
        receipt.add_row("hold", f"{words.HOLDS[each.hold]}. {each.reason}")
    for finding in each.findings:
        add_finding(receipt, finding)
    return receipt


@render.register
def _specifications(value: values.Specifications) -> Shown:
    if not value.specifications:
        yield "There is no specification yet. Make one: slackwater spec create NAME WRITER:COMPONENT"
        return
    table = Listing("NAME", "COMPONENTS", "KEEP", "MIN FREE", "STATE")
    for each in value.specifications:
        replica = (each.options or {}).get("replica", {})
        state = word_of("broken" if each.error else "good")
        components = "\n".join(map(str, each.components))
        table.add_row(each.name, components, _kept(replica.get("keep", "-")), replica.get("min_free", "-"), state)
    yield table
    for each in value.specifications:
        if each.error:
            yield f"{each.name}: {each.error.sentence} {each.error.hint}"


def _kept(keep: object) -> str:
    """Rules of rotation in a cell of a table."""
    return "\n".join(f"{count} {name}" for name, count in keep.items()) if isinstance(keep, dict) else str(keep)


@render.register
def _specification(value: values.SpecificationSummary) -> Shown:
    yield Text(f"# {value.path}", "dim")
    yield value.text.rstrip("\n")


@render.register
def _created(value: values.SpecificationCreated) -> Shown:
    name = value.specification.name
    yield f"{value.specification.path} is written."
    yield from findings_of(value.findings)
    yield f"Next: slackwater backup {name} --preview"


@render.register
def _checks(value: values.SpecificationChecks) -> Shown:
    if not value.checks:
        yield "There is no specification yet. Make one: slackwater spec create NAME WRITER:COMPONENT"
    for each in value.checks:
        verdict = "broken" if each.error else "refused" if each.refused else "good"
        yield Text.assemble(f"{each.name}: ", word_of(verdict))
        if each.error:
            yield f"  {each.error.sentence}" + (f" -> {each.error.hint}" if each.error.hint else "")
        yield from findings_of(each.findings)


@render.register
def _examined(value: values.Examined) -> Shown:
    yield from _verdicts(f"The writer of {value.component}", value.verdicts)


@render.register
def _examined_provider(value: values.ExaminedProvider) -> Shown:
    yield from _verdicts(f"The provider {value.provider}", value.verdicts)


def _verdicts(who: str, verdicts: tuple[tuple[str, str], ...]) -> Shown:
    table = Listing("CHECK", "KEPT", "WHY")
    for demand, why in verdicts:
        table.add_row(demand, word_of("no" if why else "yes"), why)
    yield table
    short = sum(1 for _, why in verdicts if why)
    yield f"{who} " + (f"falls short of {short}." if short else "keeps its contract.")
