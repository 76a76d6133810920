# SPDX-License-Identifier: Apache-2.0
"""Full replicas of a backup: after the thaw each snapshot is copied to another filesystem, and then goes.

Nothing is held meanwhile: what is copied is read-only, and the application works on.
"""

from collections.abc import Collection, Mapping, Sequence
from functools import partial

from slackwater.journal.journal import EffectState, Journal
from slackwater.model.facts import Facts, Finding
from slackwater.model.quantities import format_bytes
from slackwater.model.storage import Room, ShadowCopy, Volume
from slackwater.providers import _copying
from slackwater.providers.contract import Provider
from slackwater.providers.full import FullProvider
from slackwater.system.crew import in_thread, stop_in_thread
from slackwater.system.story import Story


def check(owner: str, to: str, volumes: Sequence[Volume]) -> tuple[list[Finding], dict[str, Room]]:
    """What stands against full copies on `to`, if they are wanted, and its room afterwards. Reads only."""
    found, room = FullProvider(owner).check_target(to, volumes) if to else ([], None)
    return found, {f"full:{to}": room} if room else {}


async def keep(
    copies: Sequence[ShadowCopy],
    to: str,
    session: str,
    owner: str,
    providers: Mapping[str, Provider],
    journal: Journal,
    story: Story,
) -> tuple[ShadowCopy, ...]:
    """Copy every snapshot to `to`, then take the snapshots away; returns the full copies. Without `to` they stay.

    Raises:
        SlackwaterError: a copy could not be made, or does not hold what its snapshot holds; the caller undoes all.
    """
    if not to:
        return tuple(copies)
    full, made = FullProvider(owner), []
    volumes = [await in_thread(full.onto, copy.volume, to) for copy in copies]
    for place in dict.fromkeys(full.place_effect(volume, session) for volume in volumes):
        await in_thread(journal.run, session, place)
    for copy, volume in zip(copies, volumes, strict=True):
        story.say("note", f"Copying {volume.path} to {to}; nothing is held for that.")
        made_of = partial(_copy, copy, volume, session, full, providers[copy.provider], journal)
        facts = await stop_in_thread(made_of, stop=_copying.stop)
        story.say("note", f"{format_bytes(int(str(facts['bytes'])))} of {volume.path} are copied and compared.")
        made.append(full.copy(volume, session, facts))
    kinds = {kind.kind for name in {copy.provider for copy in copies} for kind in providers[name].effects}
    await in_thread(_revert, session, kinds, journal)
    return tuple(made)


def _copy(
    copy: ShadowCopy, volume: Volume, session: str, full: FullProvider, provider: Provider, journal: Journal
) -> Facts:
    with provider.reach(copy) as origin:
        return journal.run(session, full.copy_effect(volume, session, origin))


def _revert(session: str, kinds: Collection[str], journal: Journal) -> None:
    """Undo, last first, what the snapshots' providers made in a session."""
    for entry, effect in reversed(journal.effects(session)):
        if effect.kind in kinds and entry.state is not EffectState.UNDONE:
            journal.revert(session, effect)
