# SPDX-License-Identifier: Apache-2.0
"""The host we run on: its writers, providers, journal and guard, in this process."""

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import TypeVar

from slackwater.coordinator import events
from slackwater.coordinator.calls import hangs
from slackwater.coordinator.parts import Parts
from slackwater.coordinator.plan import make_plan
from slackwater.errors import NotFoundError, RightsError, SlackwaterError
from slackwater.guard.client import Guard
from slackwater.guard.leftovers import release_leftovers
from slackwater.hosts import full, logs, survey
from slackwater.hosts.contract import Identified, Planned, Reconciled, RecoveryPlan, Rehearsed
from slackwater.hosts.hooks import hooked
from slackwater.hosts.mending import Mender
from slackwater.hosts.plugins import Plugins, load
from slackwater.hosts.probe import probing, size_of
from slackwater.hosts.seeing import must_be_there
from slackwater.hosts.telling import tell
from slackwater.journal.effects import Effect, EffectKinds
from slackwater.journal.journal import Decision, Journal
from slackwater.model.clone import CloneDocument
from slackwater.model.component import Component, ComponentRef, Handling
from slackwater.model.facts import Facts, Finding, Severity
from slackwater.model.hold import Keeper
from slackwater.model.hooks import NO_HOOKS, Hooks
from slackwater.model.plan import Limits, LogKeeping, Plan, PlanOptions
from slackwater.model.replica import BackupComponents, ComponentRecord, FoundReplica, Replica, ReplicaKind
from slackwater.model.service import Service
from slackwater.model.storage import Filesystem, Room, ShadowCopy, Volume
from slackwater.model.target import TO_REPLICA, Loss, Losses, Reach, RecoveryTarget
from slackwater.providers import conformance as providers
from slackwater.providers.contract import Provider
from slackwater.recovery import checks, clones, naming, since
from slackwater.recovery import logs as rolling
from slackwater.recovery.clones import CloneOrder, Questions, Started
from slackwater.recovery.order import Hands, RecoveryOrder
from slackwater.recovery.steps import Learnt, Proven, Recovered, complete, plan_steps, recover
from slackwater.system import cgroups, companions, configuration, hooks, namespaces, present, processes
from slackwater.system.clock import SYSTEM_CLOCK, Clock
from slackwater.system.crew import in_thread, side_by_side, wait_in_thread
from slackwater.system.story import Story
from slackwater.system.vacate import Vacate
from slackwater.writers.conformance import Verdict, examine
from slackwater.writers.contract import KeepsLog, Writer

T = TypeVar("T")
#: How long the engine of a recovery that was finished may still take.
_FINISHED_S = 60.0


class LocalHost:
    """This machine. See `contract.Host` for what each method promises."""

    def __init__(
        self,
        *,
        owner: str,
        journal_file: str,
        guard_dir: str,
        handling: Mapping[str, Mapping[str, Handling]] | None = None,
        disabled_writers: Sequence[str] = (),
        denied_paths: Sequence[str] = (),
        clock: Clock = SYSTEM_CLOCK,
        plugins: Plugins | None = None,
        arm: Callable[..., Guard] = Guard.arm,
    ) -> None:
        """Know where our state lies, and who speaks for what.

        Args:
            owner: the installation's id.
            journal_file: opened when it is first needed.
            guard_dir: on tmpfs, for what is frozen.
            handling: what specifications say, by writer and component name.
            disabled_writers: are not asked.
            denied_paths: are neither snapshotted nor switched.
            clock: tells the time.
            plugins: who speaks for applications and storage; None for all that are installed.
            arm: what starts a guard, as `Guard.arm` does.
        """
        self.name = os.uname().nodename
        self.owner = owner
        self._guard_dir = guard_dir
        self._journal_file = journal_file
        self._state_dir = os.path.dirname(journal_file)
        self._clock = clock
        self._denied = denied_paths
        # All are loaded: what a disabled one has made before can still be put right.
        found = plugins or load(owner, handling or {})
        self._writers, self._providers, self._broken = found.writers, found.providers, found.broken
        self._asked = {name: writer for name, writer in self._writers.items() if name not in disabled_writers}
        self._start_guard = arm
        self._opened: Journal | None = None
        self._hung: set[str] = set()
        """Sessions of which a call has not come back: it may still make something."""

    @property
    def _journal(self) -> Journal:
        """Opened when it is first needed: previews and lists write nothing."""
        if self._opened is None:
            kinds: list[type[Effect]] = [
                cgroups.Gather,
                cgroups.Freeze,
                hooks.Pair,
                namespaces.Enclose,
                present.Present,
                companions.StopService,
                configuration.PutConfiguration,
                configuration.RemoveConfiguration,
                configuration.ForgetConfiguration,
                Vacate,
            ]
            for writer in self._writers.values():
                kinds += writer.effects
            for provider in self._providers.values():
                kinds += provider.effects
            self._opened = Journal(self._journal_file, EffectKinds(kinds))
        return self._opened

    @property
    def _hands(self) -> Hands:
        return Hands(self._writers, self._providers, self._clock)

    @property
    def _mender(self) -> Mender:
        return Mender(self._journal, self._hands, self._hung)

    # -- looking ---------------------------------------------------------------------------------------------------

    async def identify(self, named: Sequence[ComponentRef] = ()) -> Identified:
        """Ask the writers, side by side; one that fails is named, and hides nobody else's components."""
        answers = await side_by_side([partial(_answer, name, each.identify) for name, each in self._asked.items()])
        components = {each.ref: each for answer in answers if not isinstance(answer, Finding) for each in answer}
        failures = [each for each in answers if isinstance(each, Finding)]
        for ref in named:
            if ref not in components and ref.writer in self._asked:
                find = partial(self._asked[ref.writer].find, ref.name)
                component = await in_thread(_answer, ref.writer, find)
                if isinstance(component, Finding):
                    failures.append(component)
                elif component:
                    components[ref] = component
        return Identified(tuple(components[ref] for ref in sorted(components)), (*self._broken, *failures))

    async def plan(self, components: Sequence[Component], options: PlanOptions) -> Planned:
        """Survey the storage and argue for a hold."""
        grounds = await in_thread(
            survey.grounds, components, self._writers, self._providers, self._state_dir, options.providers
        )
        plan = make_plan(grounds, options)
        found = await in_thread(survey.denied, plan.volumes, self._denied, self._providers)
        found += hooks.findings(options.hooks)
        refused, target = await in_thread(full.check, self.owner, options.to, plan.volumes)
        keeping = replace(options.log, owner=self.owner) if options.log else None
        found += await in_thread(logs.check, components, keeping, self._writers) if keeping else []
        plan = replace(
            plan, hooks=options.hooks, to=options.to, log=keeping, findings=(*plan.findings, *found, *refused)
        )
        rooms = {v.id: await in_thread(self._providers[v.provider].room, v) for v in plan.volumes}
        return Planned(plan, rooms | target)

    async def recoverable(self, planned: Plan) -> Sequence[Finding]:
        """Ask the providers whether clones could take the volumes' places."""
        return await in_thread(survey.recoverable, planned, self._writers, self._providers)

    async def missing(self, replica: Replica) -> str:
        """Look at every copy."""
        for copy in replica.document.copies:
            provider = self._providers.get(copy.provider)
            if provider is None:
                return f"the provider {copy.provider} is not installed here"
            try:
                why = await in_thread(provider.altered, copy)
            except RightsError:
                raise
            except SlackwaterError as e:  # its filesystem is not there: one lost disk must not hide the other replicas
                why = f"it cannot be looked at ({e.sentence.rstrip('.')})"
            if why:
                return why
        return ""

    async def examine(self, ref: ComponentRef) -> Sequence[Verdict]:
        """Run the checks of `writers.conformance`."""
        if ref.writer not in self._asked:
            raise NotFoundError(
                f"There is no writer {ref.writer} here.",
                data="Nothing was changed.",
                hint=f"Those there are: {', '.join(sorted(self._asked))}.",
                code="no-writer",
            )
        return await in_thread(examine, self._asked[ref.writer], ref.name)

    async def examine_provider(self, name: str, paths: Sequence[str]) -> Sequence[providers.Verdict]:
        """Run the checks of `providers.conformance`, with an owner of their own."""
        factory = type(self._provider(name))
        return await in_thread(lambda: list(providers.examine(factory, paths)))

    async def room(self, volumes: Sequence[Volume]) -> Room | None:
        """Ask the providers about the volumes that can be reached."""
        rooms = []
        for recorded in volumes:
            provider = self._provider(recorded.provider)
            live = await in_thread(survey.volume_at, provider, recorded.path)
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
        document = await self._take(session, specification, plan, story, accept_crash=accept_crash)
        self._journal.decide(session, Decision.FINISH)
        return document

    async def tell(self, components: Sequence[Component], story: Story, *, good: bool) -> None:
        """Tell the writers."""
        await tell(components, self._writers, story, good=good)

    async def horizons(self, documents: Sequence[BackupComponents], archive: str | None = None) -> Mapping[str, Reach]:
        """Ask the writers."""
        return await in_thread(rolling.horizons, documents, archive, self._hands)

    async def losses(
        self,
        documents: Sequence[BackupComponents],
        behind: Collection[str],
        most: int | None,
        archive: str | None = None,
        asking: str = "",
    ) -> Mapping[str, Losses]:
        """Ask the writers; reading ends with whoever stops it."""
        return await wait_in_thread(naming.losses, documents, behind, most, archive, asking, self._hands)

    async def name_losses(self, started: Started, losses: Losses) -> Sequence[Loss]:
        """Ask the engine on the clone; whoever stops the session ends it."""
        return await wait_in_thread(naming.named, started, losses, self._hands)

    def slow_to_clone(self, document: BackupComponents) -> bool:
        """Ask the providers."""
        return naming.slow_to_clone(document, self._hands)

    async def advance_logs(self, document: BackupComponents, keeping: LogKeeping) -> Sequence[str]:
        """Ask the writers, one after the other."""
        return await in_thread(logs.advance, document, keeping, self._writers)

    async def drop_logs(self, wanted: Collection[str], components: Sequence[Component] | None = None) -> Sequence[str]:
        """Ask the writers that can keep any."""
        able = {name for name, writer in self._writers.items() if isinstance(writer, KeepsLog)}
        if components is None:
            components = (await self.identify()).components if able else ()
        theirs = [each for each in components if each.ref.writer in able]
        return await in_thread(logs.drop, theirs, self.owner, wanted, self._writers) if theirs else ()

    async def rehearse(self, session: str, specification: str, plan: Plan, story: Story) -> Rehearsed:
        """Take the set with a client asking, and decide nothing: whatever happens, it is undone."""
        with probing([(self._writers[each.ref.writer], each) for each in plan.components], self._clock) as gap:
            # What is proven is the moment; a copy of it elsewhere would only take time, and its log is not kept.
            alone = replace(plan, to="", log=None)
            document = await self._take(session, specification, alone, story, accept_crash=False)
        return Rehearsed(document, gap.longest_ms, gap.why, await in_thread(size_of, document, self._hands))

    async def _take(
        self, session: str, specification: str, plan: Plan, story: Story, *, accept_crash: bool
    ) -> BackupComponents:
        around = hooks.pair(session, specification, plan.hooks, "pre_freeze", "post_thaw")
        parts = Parts(
            self._writers, self._providers, self._journal, self._clock, cgroups.plan_gather, self._arm,
            partial(hooked, around, self._journal, story),
        )  # fmt: skip
        try:
            taken = await events.take(plan, session, parts, story, accept_crash=accept_crash)
        except BaseException as e:
            if hangs(e):
                self._hung.add(session)
            raise
        copies = await full.keep(
            taken.copies, plan.to, session, self.owner, self._providers, self._journal, story
        )  # fmt: skip
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
                ComponentRecord(each, taken.expected[each.ref], survey.configuration(each), holding=holding)
                for each, holding in zip(plan.components, taken.holdings, strict=True)
            ),
            copies=copies,
        )
        for provider in self._providers_of(document):
            await in_thread(provider.write_document, document)
        await in_thread(must_be_there, document, self._hands)
        return document

    def _arm(
        self, session: str, cgroup_paths: Sequence[str], keepers: Sequence[Keeper],
        filesystems: Sequence[Filesystem], limits: Limits,
    ) -> Guard:  # fmt: skip
        return self._start_guard(
            session, cgroup_paths, freeze_s=limits.freeze_s, hold_s=limits.hold_s, run_dir=self._guard_dir,
            keepers=keepers, filesystems=filesystems,
        )  # fmt: skip

    # -- recovery --------------------------------------------------------------------------------------------------

    async def plan_recovery(
        self,
        source: BackupComponents,
        known: Mapping[ComponentRef, Sequence[Facts]],
        *,
        configuration_check: str,
        around: Hooks = NO_HOOKS,
        target: RecoveryTarget = TO_REPLICA,
        logs: Sequence[BackupComponents] = (),
        services: Sequence[Service] = (),
        with_config: bool = False,
        archive: str | None = None,
    ) -> RecoveryPlan:
        """Find the components and volumes as they are now; check; list the steps."""
        recorded = [record.component for record in source.components]
        identified = {each.ref: each for each in (await self.identify([each.ref for each in recorded])).components}
        now = tuple(_as_now(each, identified.get(each.ref), self._writer(each.ref.writer)) for each in recorded)
        live = []
        for copy in source.copies:
            first = self._provider(copy.volume.provider)
            volume = await in_thread(survey.live, copy, first, self._providers)
            if volume is None:
                raise NotFoundError(
                    f"The volume that was at {copy.volume.path} is gone, so nothing can be switched there.",
                    data="The replica is untouched.",
                    hint=f"Mount or create a volume at {copy.volume.path}, then recover again.",
                    code="volume-gone",
                )
            live.append(replace(volume, name=copy.volume.name))
        texts = await in_thread(survey.present_texts, source) if with_config or _replaced(source) else None
        hands = Hands(self._writers, self._providers, self._clock)
        order, found = await in_thread(
            rolling.numbered,
            RecoveryOrder(
                source, now, tuple(live), known, target, tuple(logs), archive, around, tuple(services), texts
            ),
            hands,
        )
        found += await in_thread(checks.check, order, hands)
        found += await in_thread(survey.foreign, now, live, self._providers, configuration_check)
        found += await in_thread(survey.denied, live, self._denied, self._providers)
        found += await in_thread(survey.own_state, live, self._state_dir, self._providers)
        found += survey.needs_root(live, self._providers)
        found += hooks.findings(around)
        found += await in_thread(companions.findings, services)
        reached, against = await in_thread(rolling.reach, order, hands)
        steps = await in_thread(plan_steps, order, "SESSION", hands)
        pair = hooks.pair("SESSION", source.specification, around, "pre_stop", "post_start")
        told = await in_thread(since.since, order, hands)
        return RecoveryPlan(
            order,
            (*((pair.describe(),) if pair else ()), *steps.describe()),
            (*found, *against),
            reached,
            told,
            tuple(each.caption for each in steps.services if each.running),
            tuple(each.path for each in steps.configuration),
        )

    async def recover(
        self, session: str, order: RecoveryOrder, story: Story, *, learnt: Learnt, proven: Proven
    ) -> Recovered:
        """Switch."""
        around = hooks.pair(session, order.source.specification, order.hooks, "pre_stop", "post_start")
        async with hooked(around, self._journal, story, undone=True):
            return await recover(order, session, self.owner, self._hands, self._journal, story, learnt, proven)

    async def confirm(
        self, undo: BackupComponents, expected: Mapping[ComponentRef, Facts]
    ) -> Mapping[ComponentRef, Facts]:
        """Ask the writers."""
        found = {}
        for record in undo.components:
            ref = record.component.ref
            ask = partial(self._writer(ref.writer).confirm, timeout_s=_FINISHED_S)
            found[ref] = await wait_in_thread(ask, record.component, expected[ref])
        return found

    async def complete(self, recovered: Recovered) -> BackupComponents:
        """Settle and seal."""
        return await in_thread(complete, recovered, self._hands, self._journal)

    async def delete(self, document: BackupComponents) -> None:
        """Delete copies, each by the provider that made it."""
        for provider in self._providers_of(document):
            await in_thread(provider.delete_effect(document.copies, document.session).make)

    async def pin(self, document: BackupComponents, *, pinned: bool) -> None:
        """Ask every provider that holds a part of it."""
        for provider in self._providers_of(document):
            copies = [copy for copy in document.copies if copy.provider == provider.name]
            await in_thread(partial(provider.pin, copies, document.session, pinned=pinned))

    # -- clones and mounts -----------------------------------------------------------------------------------------

    async def clone(self, session: str, order: CloneOrder, story: Story) -> Started:
        """Clone, enclose, start."""
        return await clones.start(order, session, self.owner, self._hands, self._journal, story)

    def answers(self, ref: ComponentRef) -> bool:
        """Ask the writer's class."""
        writer = self._writers.get(ref.writer)
        return writer is not None and writer.answers

    async def check_clone(self, started: Started, questions: Questions) -> Mapping[ComponentRef, Facts]:
        """Ask the writers; whoever stops the session ends the engines, and with them the checks."""
        return await wait_in_thread(clones.check, started.document, questions, self._hands)

    async def end_clone(self, document: CloneDocument) -> None:
        """End and delete."""
        await in_thread(clones.end, document, self.owner, self._hands)

    async def clone_missing(self, document: CloneDocument) -> bool:
        """Look for each copy's place."""
        return await in_thread(clones.gone, document, self._hands)

    def clone_runs(self, document: CloneDocument) -> bool:
        """Look for the enclosure."""
        return clones.runs(document)

    async def clone_plainly(self, session: str, source: BackupComponents) -> Sequence[ShadowCopy]:
        """Clone, and no more."""
        return await clones.make(source, session, self._hands, self._journal)

    async def present(self, session: str, copies: Sequence[tuple[ShadowCopy, str]], *, writable: bool) -> Sequence[str]:
        """Mount each."""
        made: list[str] = []
        options = present.CAREFUL if writable else (*present.CAREFUL, "ro")
        for copy, target in copies:
            present.refuse_occupied(target)
            order = await in_thread(self._provider(copy.provider).mount_order, copy)
            effect = present.present(order, target, options)
            await in_thread(self._journal.run, session, effect)
            made += effect.folders
        return sorted(made, key=len, reverse=True)

    def presented(self, copies: Sequence[ShadowCopy]) -> Sequence[str]:
        """Ask the providers; one that is not installed any more has nothing mounted."""
        asked = [(self._providers.get(copy.provider), copy) for copy in copies]
        return tuple(target for provider, copy in asked if provider for target in provider.mounted_at(copy))

    async def unpresent(self, targets: Sequence[str], folders: Sequence[str]) -> None:
        """Unmount each, the innermost first."""
        for target in sorted(targets, key=len, reverse=True):
            await in_thread(present.unmount, target)
        present.remove_folders(folders)

    # -- journal ---------------------------------------------------------------------------------------------------

    def begin(self, session: str, kind: str, process: str) -> None:
        """Write it down."""
        self._journal.begin(session, kind, process)

    async def undo(self, session: str) -> Reconciled:
        """Undo, and settle when nothing is left."""
        return await in_thread(self._mender.undo, session)

    def go_back(self, session: str) -> bool:
        """Decide so in the journal."""
        return self._mender.go_back(session)

    def take_over(self, session: str) -> None:
        """Raise the number in its row."""
        self._journal.take(session)

    def check(self, session: str) -> None:
        """Ask the journal."""
        self._journal.check(session)

    def settle(self, session: str) -> None:
        """Close the session."""
        self._journal.settle(session)

    def release_leftovers(self) -> Sequence[str]:
        """Read the records on tmpfs."""
        return release_leftovers(self._guard_dir)

    def dump(self) -> Sequence[Mapping[str, object]]:
        """Sessions with their effects."""
        if self._opened is None and not os.path.exists(self._journal_file):
            return []
        return [
            {**asdict(each), "effects": [asdict(entry) for entry in self._journal.entries(each.id)]}
            for each in self._journal.open_sessions()
        ]

    def pending(self) -> Sequence[str]:
        """Ids of dead sessions."""
        if self._opened is None and not os.path.exists(self._journal_file):
            return []
        return [each.id for each in self._journal.open_sessions() if not processes.alive(each.process)]

    async def reconcile(self) -> Sequence[Reconciled]:
        """Mend one dead session after the other, oldest first."""
        return [
            await in_thread(self._mender.mend, each)
            for each in self._journal.open_sessions()
            if not processes.alive(each.process)
        ]

    # -- small things ----------------------------------------------------------------------------------------------

    def _provider(self, name: str) -> Provider:
        try:
            return self._providers[name]
        except KeyError:
            raise NotFoundError(f"The provider {name} is not installed here.", data="Nothing was changed.") from None

    def _writer(self, name: str) -> Writer:
        try:
            return self._writers[name]
        except KeyError:
            raise NotFoundError(f"The writer {name} is not installed here.", data="Nothing was changed.") from None

    def _providers_of(self, document: BackupComponents) -> list[Provider]:
        return [self._provider(name) for name in sorted({copy.provider for copy in document.copies})]


def _answer(name: str, question: Callable[[], T]) -> T | Finding:
    """What a writer answers; a finding where it fails."""
    try:
        return question()
    except Exception as e:  # noqa: BLE001  # a stranger's code may raise anything
        return Finding(
            "writer-failed", Severity.WARNING, f"The writer {name} failed: {e}.", "Its components are hidden."
        )


def _replaced(source: BackupComponents) -> bool:
    """Whether a recovery had put configuration files back, so that undoing it does so, too."""
    return source.kind is ReplicaKind.UNDO and any(
        record.configuration or record.absent for record in source.components
    )


#: Facts that say nothing any more once the backup is over.
_OF_THE_MOMENT = frozenset({"held_by", "standbys", "slots", "synchronous"})


def _as_now(recorded: Component, present: Component | None, writer: Writer) -> Component:
    """The component as it is today; completed from what was recorded where it cannot be asked any more."""
    if present is None:
        unseen = Finding(
            "not-found", Severity.WARNING,
            f"{recorded.ref} is not found on this host now: it is recovered by what the replica's document says of it.",
        )  # fmt: skip
        running = bool(writer.processes(recorded))
        facts = {name: fact for name, fact in recorded.facts.items() if name not in _OF_THE_MOMENT}
        return replace(recorded, running=running, main_pid=None, facts=facts, findings=(unseen,))
    if not present.refusals:
        return present
    files = {each.path: each for each in (*recorded.files, *present.files)}
    was = {name: fact for name, fact in recorded.facts.items() if name not in _OF_THE_MOMENT - {"held_by"}}
    return replace(present, files=tuple(files.values()), facts={**was, **present.facts})
