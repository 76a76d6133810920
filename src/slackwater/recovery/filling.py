# SPDX-License-Identifier: Apache-2.0
"""Bringing full copies back before a switch: each fills a copy of the live volume's provider, beside that volume.

What was brought back is cloned and exchanged like a snapshot, and goes as soon as its clone is there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from slackwater.errors import RefusedError
from slackwater.journal.effects import Effect
from slackwater.journal.journal import Journal
from slackwater.model.facts import Facts, Finding, Severity
from slackwater.model.quantities import format_bytes
from slackwater.model.storage import ShadowCopy, Volume
from slackwater.providers import _copying
from slackwater.providers.contract import Provider, Receiver
from slackwater.system.crew import in_thread, stop_in_thread
from slackwater.system.story import Story

#: What a snapshot's provider calls the copy it clones, before there is one.
_UNKNOWN: Facts = {"subvolume_uuid": "", "identity": ""}


@dataclass(frozen=True, slots=True)
class Filling:
    """One copy that is brought back."""

    place: Effect
    fill: Effect
    volume: Volume
    """The live one, under the name that the copy is to have."""


def plan(
    copies: Sequence[ShadowCopy], live: Sequence[Volume], session: str, providers: Mapping[str, Provider]
) -> list[Filling | None]:
    """For each copy how it is brought back; None for a snapshot, which lies beside its volume. Reads only.

    Raises:
        RefusedError: the live volume's provider cannot.
    """
    pairs = zip(copies, live, strict=True)
    return [_one(copy, volume, session, providers) if copy.by else None for copy, volume in pairs]


def _one(copy: ShadowCopy, live: Volume, session: str, providers: Mapping[str, Provider]) -> Filling:
    provider = providers[live.provider]
    if not isinstance(provider, Receiver):
        raise RefusedError(
            f"The provider {live.provider} of {live.path} cannot bring full copies back.",
            data="Nothing was changed.",
            hint="Recover by hand: RECOVER.txt beside the copy says how.",
            code="not-for-full",
        )
    named = replace(live, name=f"received-{live.name}")
    with providers[copy.provider].reach(copy) as origin:
        fill = provider.fill_effect(named, session, origin, str(copy.facts["contents"]))
    return Filling(provider.place_effect(live, session), fill, named)


def foreseen(
    fillings: Sequence[Filling | None],
    copies: Sequence[ShadowCopy],
    session: str,
    providers: Mapping[str, Provider],
    facts: Sequence[Facts] = (),
) -> list[ShadowCopy]:
    """The copies that the switch is made from, each beside its volume; `facts` are known when they are filled."""
    told = iter(facts)
    return [
        copy if each is None else providers[each.volume.provider].copy(each.volume, session, next(told, _UNKNOWN))
        for each, copy in zip(fillings, copies, strict=True)
    ]


async def fill(fillings: Sequence[Filling | None], session: str, journal: Journal, story: Story) -> list[Facts]:
    """Make the places and fill them; the application works on."""
    wanted = [each for each in fillings if each is not None]
    for place in dict.fromkeys(each.place for each in wanted):
        await in_thread(journal.run, session, place)
    facts = []
    for each in wanted:
        story.say("note", f"Bringing the full copy of {each.volume.path} back, beside it.")
        facts.append(await stop_in_thread(journal.run, session, each.fill, stop=_copying.stop))
    return facts


async def discard(fillings: Sequence[Filling | None], session: str, journal: Journal) -> None:
    """Take away what was brought back, now that there is a clone of it."""
    for each in fillings:
        if each is not None:
            await in_thread(journal.revert, session, each.fill)


def check(copies: Sequence[ShadowCopy], live: Sequence[Volume], providers: Mapping[str, Provider]) -> list[Finding]:
    """Whether there is room for what is copied whole, and whether it is another volume than it was. Reads only."""
    found = []
    wanted: dict[str, int] = {}
    for copy, volume in zip(copies, live, strict=True):
        provider = providers[volume.provider]
        # A full copy is brought back, and where files share nothing, what is put in the volume's place is a copy, too.
        times = bool(copy.by) + provider.capabilities.copies
        size = int(str(copy.facts.get("bytes", 0)))
        if not times:
            continue
        wanted[volume.superblock] = wanted.get(volume.superblock, 0) + times * size
        if provider.capabilities.copies:
            found.append(Finding(
                "copied-whole", Severity.NOTE,
                f"{format_bytes(size)} are copied beside {volume.path} first, which takes about"
                f" {max(provider.estimate_s(volume), 1):.0f} s; the application works on.",
            ))  # fmt: skip
        if copy.by and copy.volume.id != volume.id:
            found.append(Finding(
                "another-volume", Severity.NOTE,
                f"{volume.path} is another volume ({volume.id}) than the one that was backed up: the full copy is put "
                "there whole.",
            ))  # fmt: skip
        free = provider.room(volume).free_bytes
        if wanted[volume.superblock] > free:
            found.append(Finding(
                "no-room", Severity.REFUSAL,
                f"The copies take {wanted[volume.superblock] >> 20} MiB, and the filesystem of {volume.path} has "
                f"{free >> 20} MiB free.",
                "Make room there: `slackwater replica list` shows what else lies there.",
            ))  # fmt: skip
    return found
