# SPDX-License-Identifier: Apache-2.0
"""The host we run on: its writers, providers, journal and guard, in this process."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

from slackwater.coordinator import events
from slackwater.coordinator.plan import make_plan
from slackwater.errors import NotFoundError, RightsError, SlackwaterError
from slackwater.guard.client import Guard, release_leftovers
from slackwater.hosts import survey
from slackwater.hosts.contract import Identified, Planned, Reconciled, RecoveryPlan
from slackwater.hosts.plugins import load_providers, load_writers
from slackwater.journal.effects import Effect, EffectKinds
from slackwater.journal.journal import Decision, EffectState, Journal, Mended, OpenSession
from slackwater.model.component import Component, ComponentRef, Credentials
from slackwater.model.facts import Facts, Finding
from slackwater.model.plan import Limits, Plan
from slackwater.model.replica import BackupComponents, ComponentRecord, FoundReplica, Replica, ReplicaKind
from slackwater.model.session import SessionKind
from slackwater.model.storage import Room, Volume
from slackwater.providers.contract import Exchange, Provider
from slackwater.recovery import checks
from slackwater.recovery.steps import (
    Hands,
    Learnt,
    Recovered,
    RecoveryOrder,
    complete,
    plan_steps,
    record_aside,
    recover,
)
from slackwater.system import cgroups, processes
from slackwater.system.clock import SYSTEM_CLOCK, Clock
from slackwater.system.crew import in_thread, side_by_side
from slackwater.system.story import Story


class LocalHost:
    """This machine. See `contract.Host` for what each method promises."""

    def __init__(
        self,
        *,
        owner: str,
        journal_file: str,
        guard_dir: str,
        credentials: Mapping[str, Mapping[str, Credentials]] | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.name = os.uname().nodename
        self.owner = owner
        self._guard_dir = guard_dir
        self._journal_file = journal_file
        self._clock = clock
        self._writers, broken_writers = load_writers(credentials or {})
        self._providers, broken_providers = load_providers(owner)
        self._broken = (*broken_writers, *broken_providers)
        self._opened: Journal | None = None

    @property
    def _journal(self) -> Journal:
        """Opened when it is first needed: previews and lists write nothing."""
        if self._opened is None:
            kinds: list[type[Effect]] = [cgroups.Gather, cgroups.Freeze]
            for writer in self._writers.values():
                kinds += writer.effects
            for provider in self._providers.values():
                kinds += provider.effects
            self._opened = Journal(self._journal_file, EffectKinds(kinds))
        return self._opened

    @property
    def _hands(self) -> Hands:
        return Hands(self._writers, self._providers, self._clock)

    # -- looking ---------------------------------------------------------------------------------------------------

    async def identify(self) -> Identified:
        """Ask the writers, side by side."""
        found = await side_by_side([writer.identify for writer in self._writers.values()])
        return Identified(tuple(sorted((c for each in found for c in each), key=lambda c: c.ref)), self._broken)

    async def plan(self, components: Sequence[Component], *, configuration_check: str, limits: Limits) -> Planned:
        """Survey the storage and argue for a hold."""
        grounds = await in_thread(survey.grounds, components, self._writers, self._providers)
        plan = make_plan(grounds, configuration_check=configuration_check, limits=limits)
        rooms = {v.id: await in_thread(self._providers[v.provider].room, v) for v in plan.volumes}
        return Planned(plan, rooms)

    async def recoverable(self, planned: Plan) -> Sequence[Finding]:
        """Ask the providers whether clones could take the volumes' places."""
        return await in_thread(survey.recoverable, planned, self._writers, self._providers)

    async def missing(self, replica: Replica) -> str:
        """Look at every copy."""
        for copy in replica.document.copies:
            provider = self._providers.get(copy.volume.provider)
            if provider is None:
                return f"the provider {copy.volume.provider} is not installed here"
            try:
                why = await in_thread(provider.altered, copy)
            except RightsError:
                raise
            except SlackwaterError as e:  # its filesystem is not there: one lost disk must not hide the other replicas
                why = f"it cannot be looked at ({e.sentence.rstrip('.')})"
            if why:
                return why
        return ""

    async def room(self, volumes: Sequence[Volume]) -> Room | None:
        """Ask the providers about the volumes that can be reached."""
        rooms = []
        for recorded in volumes:
            provider = self._provider(recorded.provider)
            live = await in_thread(_volume_at, provider, recorded.path)
            if live is not None:
                rooms.append(await in_thread(provider.room, live))
        return min(rooms, key=lambda room: room.free_ratio) if rooms else None

    async def found(self) -> Sequence[FoundReplica]:
        """Ask every provider."""
        found = await side_by_side([provider.find for provider in self._providers.values()])
        return [each for some in found for each in some]

    # -- backup ----------------------------------------------------------------------------------------------------

    async def take(
        self, session: str, specification: str, plan: Plan, story: Story, *, accept_crash: bool
    ) -> BackupComponents:
        """Take the set; its document lies beside it, and the session has decided to finish, when this returns."""
        parts = events.Parts(self._writers, self._providers, self._journal, self._clock, cgroups.plan_gather, self._arm)
        taken = await events.take(plan, session, parts, story, accept_crash=accept_crash)
        document = BackupComponents(
            schema_version=1,
            owner=self.owner,
            session=session,
            kind=ReplicaKind.BACKUP,
            specification=specification,
            created=taken.created,
            hold=plan.hold,
            reason=plan.reason,
            consistency=taken.consistency,
            window=taken.window,
            components=tuple(
                ComponentRecord(each, taken.expected[each.ref], survey.configuration(each)) for each in plan.components
            ),
            copies=taken.copies,
        )
        for provider in self._providers_of(document):
            await in_thread(provider.write_document, document)
        self._journal.decide(session, Decision.FINISH)
        return document

    def _arm(self, session: str, cgroup_paths: Sequence[str], limits: Limits) -> Guard:
        return Guard.arm(session, cgroup_paths, freeze_s=limits.freeze_s, hold_s=limits.hold_s, run_dir=self._guard_dir)

    # -- recovery --------------------------------------------------------------------------------------------------

    async def plan_recovery(
        self, source: BackupComponents, known: Mapping[ComponentRef, Sequence[Facts]], *, configuration_check: str
    ) -> RecoveryPlan:
        """Find the components and volumes as they are now; check; list the steps."""
        identified = {each.ref: each for each in (await self.identify()).components}
        now = tuple(_as_now(record.component, identified.get(record.component.ref)) for record in source.components)
        live = []
        for copy in source.copies:
            volume = await in_thread(_volume_at, self._provider(copy.volume.provider), copy.volume.path)
            if volume is None:
                raise NotFoundError(
                    f"The volume that was at {copy.volume.path} is gone, so nothing can be switched there.",
                    data="The replica is untouched.",
                    hint=f"Mount or create a volume at {copy.volume.path}, then recover again.",
                    code="volume-gone",
                )
            live.append(replace(volume, name=copy.volume.name))
        order = RecoveryOrder(source, now, tuple(live), known)
        hands = Hands(self._writers, self._providers, self._clock)
        found = await in_thread(checks.check, order, hands)
        found += await in_thread(survey.foreign, now, live, self._providers, configuration_check)
        steps = await in_thread(plan_steps, order, "SESSION", hands)
        return RecoveryPlan(order, steps.describe(), tuple(found))

    async def recover(self, session: str, order: RecoveryOrder, story: Story, *, learnt: Learnt) -> Recovered:
        """Switch."""
        return await recover(order, session, self.owner, self._hands, self._journal, story, learnt)

    async def complete(self, recovered: Recovered) -> BackupComponents:
        """Settle and seal."""
        return await in_thread(complete, recovered, self._hands, self._journal)

    async def delete(self, document: BackupComponents) -> None:
        """Delete copies, each by the provider that made it."""
        for provider in self._providers_of(document):
            await in_thread(provider.delete_effect(document.copies, document.session).make)

    # -- journal ---------------------------------------------------------------------------------------------------

    def begin(self, session: str, kind: str, process: str) -> None:
        """Write it down."""
        self._journal.begin(session, kind, process)

    async def undo(self, session: str) -> Sequence[Mended]:
        """Undo, and settle when nothing is left."""
        (opened,) = [each for each in self._journal.open_sessions() if each.id == session]
        try:
            self._journal.decide(session, Decision.UNDO)
        except SlackwaterError:
            # With a full disk nothing can be decided any more; what has not decided is undone anyway, now and later.
            if opened.decision is not Decision.OPEN:
                raise
        mended = await in_thread(partial(self._journal.undo, session, strictly=_stands_on_itself(opened)))
        if not any(each.error for each in mended):
            self._journal.settle(session)
        return mended

    def settle(self, session: str) -> None:
        """Close the session."""
        self._journal.settle(session)

    def release_leftovers(self) -> Sequence[str]:
        """Read the records on tmpfs."""
        return release_leftovers(self._guard_dir)

    def pending(self) -> Sequence[str]:
        """Ids of dead sessions."""
        if self._opened is None and not os.path.exists(self._journal_file):
            return []
        return [each.id for each in self._journal.open_sessions() if not processes.alive(each.process)]

    async def reconcile(self) -> Sequence[Reconciled]:
        """Mend one dead session after the other, oldest first."""
        return [
            await in_thread(self._mend_or_say, each)
            for each in self._journal.open_sessions()
            if not processes.alive(each.process)
        ]

    def _mend_or_say(self, cut_off: OpenSession) -> Reconciled:
        """Mend one; what cannot even be looked at (a filesystem that is gone) keeps nobody else from being mended."""
        try:
            return self._mend(cut_off)
        except (SlackwaterError, OSError) as e:
            mended = Mended(cut_off.id, "look at what it had made", cut_off.decision, str(e), done=False)
            return Reconciled(cut_off.id, cut_off.kind, (mended,))

    def _mend(self, cut_off: OpenSession) -> Reconciled:
        if cut_off.decision is Decision.OPEN:
            decision = Decision.FINISH if self._switched(cut_off.id) else Decision.UNDO
            self._journal.decide(cut_off.id, decision)
            cut_off = replace(cut_off, decision=decision)
        mended, document = [], None
        if cut_off.decision is Decision.FINISH:
            mended = self._journal.finish(cut_off.id)
            document = self._document(cut_off.id)
            if self._did_not_start(cut_off.id, mended):
                self._journal.decide(cut_off.id, Decision.UNDO)
                cut_off, document = replace(cut_off, decision=Decision.UNDO), None
        if cut_off.decision is Decision.UNDO:
            mended = self._journal.undo(cut_off.id, strictly=_stands_on_itself(cut_off))
        whole = Reconciled(cut_off.id, cut_off.kind, tuple(mended), document)
        if whole.whole and document is not None and document.kind is ReplicaKind.UNDO:
            whole = replace(whole, document=record_aside(document, self._hands, self._journal))
        if whole.whole:
            self._journal.settle(cut_off.id)
        return whole

    def _did_not_start(self, session: str, mended: Sequence[Mended]) -> bool:
        """Whether a recovery cannot be finished because its application does not start: then it is taken back."""
        if not any(each.error and not each.done for each in mended):
            return False
        pending = [entry.kind for entry in self._journal.entries(session) if entry.state is EffectState.INTENT]
        return bool(pending) and pending[0].endswith(".start")

    def _document(self, session: str) -> BackupComponents | None:
        """The document that lies beside a session's copies."""
        found = [each for provider in self._providers.values() for each in provider.find()]
        return next((each.document for each in found if each.session == session), None)

    def _switched(self, session: str) -> bool:
        """Whether every exchange of a recovery has been made, although it was cut off before it could say so.

        The application may have been started on the new volumes since, by the init or by hand; what it has acknowledged
        there must not be lost, so such a recovery is finished and not undone.
        """
        exchanges = [each for each in self._journal.effects(session) if isinstance(each, Exchange)]
        return bool(exchanges) and all(each.made() for each in exchanges)

    # -- small things ----------------------------------------------------------------------------------------------

    def _provider(self, name: str) -> Provider:
        try:
            return self._providers[name]
        except KeyError:
            raise NotFoundError(f"The provider {name} is not installed here.", data="Nothing was changed.") from None

    def _providers_of(self, document: BackupComponents) -> list[Provider]:
        return [self._provider(name) for name in sorted({copy.volume.provider for copy in document.copies})]


def _stands_on_itself(session: OpenSession) -> bool:
    """Whether the effects of a session stand on each other, so that an undo must not go on past a failure."""
    return session.kind == SessionKind.RECOVERY


def _volume_at(provider: Provider, path: str) -> Volume | None:
    """The volume at a path that was recorded; None when there is no such volume, or no such path, any more."""
    try:
        return provider.volume_of(path)
    except NotFoundError:
        return None


def _as_now(recorded: Component, present: Component | None) -> Component:
    """The component as it is today; as recorded, and stopped, where nobody can be asked any more."""
    return present if present is not None else replace(recorded, running=False, main_pid=None)


def require_root() -> None:
    """Raise when we are not root: volumes, other users' processes and the journal are root's.

    Raises:
        RightsError: we are not.
    """
    if os.geteuid() != 0:
        raise RightsError(
            "This needs root: it works on volumes, mounts and other users' processes.",
            data="Nothing was changed.",
            hint="Run it with sudo.",
        )
