# SPDX-License-Identifier: Apache-2.0
"""Values built by hand, one of each kind that a command returns."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from slackwater.cli import values
from slackwater.errors import UsageError
from slackwater.hosts.contract import Reconciled
from slackwater.journal.journal import Decision, Mended
from slackwater.model.clone import Clone, CloneDocument, CloneKind
from slackwater.model.component import Component, ComponentRef, FileRole, FileSet
from slackwater.model.facts import Finding, Severity
from slackwater.model.hold import Consistency, Hold
from slackwater.model.plan import Holding, Limits, Placement, Plan, Window
from slackwater.model.replica import BackupComponents, ComponentRecord, Replica, ReplicaKind, ReplicaState, Verification
from slackwater.model.session import Message, Outcome, Phase, PhaseRecord, Session, SessionKind
from slackwater.model.storage import ShadowCopy, Take, Volume
from slackwater.model.target import Loss, RecoveryTarget
from slackwater.policy.retention import Decision as Rotated
from slackwater.policy.windows import Gap, RecoveryWindow
from slackwater.sessions.backup import BackupPreview, BackupResult
from slackwater.sessions.check import Difference, DifferenceKind
from slackwater.sessions.clone import CloneResult, CloneShown
from slackwater.sessions.cut_off import CutOff
from slackwater.sessions.discover import Discovered, Discovery
from slackwater.sessions.downtime import Downtime
from slackwater.sessions.mount import Mounted, Unmounted
from slackwater.sessions.rebuild import Rebuilt
from slackwater.sessions.reconcile import ReconcileResult
from slackwater.sessions.recover import RecoveryPreview, RecoveryResult
from slackwater.sessions.status import SpecificationStatus, Status, UndoKept
from slackwater.sessions.transfer import Exported, Imported
from slackwater.sessions.trial import TrialResult
from slackwater.sessions.verify import VerificationResult
from slackwater.sessions.windows import Windows
from slackwater.system.timers import Timer

NOW = datetime(2026, 11, 22, 19, 41, 7, 123456, tzinfo=UTC)
LONG = "/srv/a/rather/long/path/to/a/volume/that/does/not/fit/into/half/a/line/of/a/terminal/postgresql/15/main"
REF = ComponentRef("postgresql", "15/main")
NOTE = Finding("unlogged", Severity.WARNING, "The unlogged table [carts] will be empty after a recovery.", "")
REFUSAL = Finding("nested-subvolume", Severity.REFUSAL, f"{LONG}/nested is a subvolume of its own.", "Move it away.")
FILES = FileSet(FileRole.DATA, LONG)
COMPONENT = Component(REF, "PostgreSQL 15.10 on port 5432", True, (FILES,), True, findings=(NOTE,))
GONE = {"filesystem": "5e1f0000-0000-4000-8000-000000000000", "source": "/dev/sw-none", "subvolume": "pg"}
VOLUME = Volume("btrfs", "btrfs:5e1f:pg", "pg", LONG, "0:40", GONE)
REASON = "All files lie on one volume, which is snapshotted at one instant: nothing has to be held."


def plan(hold: Hold = Hold.ATOMIC, *findings: Finding) -> Plan:
    placement = Placement(REF, FILES, VOLUME, 1, "one instant for the whole volume")
    holding = Holding(REF, hold, Consistency.APPLICATION, REASON)
    stages = ((Take(VOLUME),),)
    return Plan(
        (COMPONENT,),
        (VOLUME,),
        (placement,),
        (holding,),
        stages,
        hold,
        REASON,
        Consistency.APPLICATION,
        Limits(),
        findings,
    )


def replica(name: str = "2026-11-22-1", **changes: Any) -> Replica:
    document = BackupComponents(
        schema_version=1,
        owner="7c6c1c3e-0000-0000-0000-000000000000",
        session=name,
        kind=changes.pop("kind", ReplicaKind.BACKUP),
        specification=changes.pop("specification", "orders"),
        created=changes.pop("created", NOW),
        hold=Hold.ATOMIC,
        reason=REASON,
        consistency=changes.pop("consistency", Consistency.APPLICATION),
        window=Window(12.5, 8.25),
        components=(ComponentRecord(COMPONENT, {"lsn": "0/3000000"}),),
        copies=(ShadowCopy(VOLUME, ".slackwater/2026-11-22-1/pg", {"generation": 7}, by=changes.pop("by", "")),),
    )
    return Replica(document, **changes)


PHASES = tuple(PhaseRecord(phase, NOW, 12.345) for phase in list(Phase)[:8])
MESSAGES = (Message(NOW, "warning", NOTE.sentence),)
SESSION = Session(
    id="2026-11-22-1",
    kind=SessionKind.BACKUP,
    specification="orders",
    outcome=Outcome.FAILED,
    started=NOW,
    ended=NOW + timedelta(seconds=3.5),
    phases=PHASES,
    messages=MESSAGES,
    document={"error": {"code": "deadline", "sentence": "Too late.", "data": "Nothing was kept.", "hint": "Again."}},
)
BACKUP = BackupResult(
    session="2026-11-22-1",
    specification="orders",
    outcome=Outcome.COMPLETED,
    consistency=Consistency.APPLICATION,
    replica="2026-11-22-1",
    plan=plan(),
    window=Window(),
    phases=PHASES,
    messages=MESSAGES,
    rotated=(Rotated("2026-11-15-1", False, "older than the newest 6"), Rotated("2026-11-21-1", True, "good")),
)
RECOVERY = RecoveryResult(
    session="2026-11-22-2",
    specification="orders",
    outcome=Outcome.COMPLETED,
    replica="2026-11-22-1",
    undo_replica="2026-11-22-2",
    downtime_ms=2345.678,
    phases=PHASES,
    messages=(),
    reached={str(REF): {"timeline": 2, "lsn": "0/3000148"}},
)
RECOVERY_PREVIEW = RecoveryPreview(
    specification="orders",
    replica="2026-11-22-1",
    created=NOW,
    back_s=3723.5,
    sets_aside=(LONG,),
    steps=("Clone the replica beside it.", f"Stop postgresql:15/main in {LONG}.", "Exchange."),
    findings=(NOTE,),
    components=(REF,),
    since={REF: {"bytes": 3 << 20, "transactions": 12}},
    down=Downtime(2345.678, True, "2026-11-21-3"),
)
STANDING = SpecificationStatus(
    specification="orders",
    last_good="2026-11-22-1",
    last_good_at=NOW,
    age_s=200.0,
    verified=None,
    recoverable_from=NOW,
    recoverable_to=NOW,
    replicas=6,
    undo_replicas=1,
    last_session=SESSION,
    free_bytes=12 << 30,
    total_bytes=100 << 30,
)
WINDOWS = (
    RecoveryWindow("2026-11-22-2", NOW + timedelta(hours=1), None, 5 << 30),
    RecoveryWindow("2026-11-22-1", NOW, NOW + timedelta(minutes=3), 1 << 20, "00000001000000000000001A is missing"),
    RecoveryWindow("2026-11-21-1", NOW - timedelta(days=1), NOW - timedelta(days=1), 0, "it cannot be looked at"),
)
PROVEN = replace(
    STANDING,
    specification="postgresql:15/main",
    verified=NOW,
    recoverable_from=NOW - timedelta(days=30),
    undo_replicas=13,
    failed=("2026-11-22-5", "2026-11-22-14"),
    windows=WINDOWS,
    undo=(UndoKept("2026-11-22-3", NOW, 200.0, NOW + timedelta(days=7)), UndoKept("2026-11-22-2", NOW, 300.0, None)),
)
NEVER = replace(
    STANDING, specification="new", last_good="", last_good_at=None, age_s=None, recoverable_from=None,
    recoverable_to=None, replicas=0, undo_replicas=0, free_bytes=None, total_bytes=None,
)  # fmt: skip
STATUS = Status((STANDING, PROVEN, NEVER), ("2026-11-22-9",), ("broken",))
SUMMARY = values.SpecificationSummary(
    "orders",
    "/etc/slackwater/specs.d/orders.toml",
    (REF,),
    {"replica": {"keep": 6, "min_free": "10%"}},
    'name = "orders"',
)
TIMER = Timer(
    "my-orders", r"slackwater-backup@my\x2dorders.timer", "*-*-* 02:00:00", True, True, NOW, NOW, "exit-code", 5
)
BROKEN = values.SpecificationSummary("broken", "/etc/x.toml", error=UsageError("x is wrong.", hint="Correct it."))

PASSED = Verification("2026-11-22-4", NOW, True, 710.5, 9000.0, {"postgresql:15/main": {"amcheck": "sound"}})
CLONES = (
    CloneShown(
        Clone(
            id="2026-11-22-4",
            name="upgrade-test",
            kind=CloneKind.ENGINE,
            replica="2026-11-22-1",
            specification="orders",
            created=NOW,
            expires=NOW + timedelta(hours=2),
            document=CloneDocument(
                "2026-11-22-4",
                "/run/x",
                "mark",
                (COMPONENT,),
                (),
                (),
                {str(REF): {"socket_directory": "/run/x", "port": 5432}},
            ),
        ),
        running=True,
    ),
)

#: One of each, by the command that returns it.
STUCK = Mended("2026-11-22-9", "put away", Decision.UNDO, "it is held", done=False, kind="btrfs.place")
MENDED = ReconcileResult(
    sessions=(
        CutOff(
            Reconciled(
                "2026-11-22-9",
                "backup",
                (Mended("2026-11-22-9", f"snapshot of {LONG}", Decision.UNDO, kind="btrfs.snapshot"),),
                process="4711:1:another-boot",
            ),
            "orders",
            NOW,
        ),
        CutOff(Reconciled("2026-11-22-8", "mount", (), found=Decision.FINISH)),
        CutOff(
            Reconciled("2026-11-22-5", "recovery", (), found=Decision.FINISH),
            compared=Message(NOW, "error", "It is not proven."),
        ),
    ),
    released=("A guard was killed.",),
    adopted=("2026-11-22-8",),
    pinned=("2026-11-22-8",),
    aborted=("2026-11-22-9",),
    missing={"2026-11-22-7": "it is gone"},
    deleted=("2026-11-22-6",),
    kept=("2026-11-22-2",),
    expired=("2026-11-15-1",),
    lost=("No moment between 2026-11-15 10:00:00 and 2026-11-15 11:00:00 UTC can be recovered to any more.",),
    logs=("The log of postgresql:15/main is not kept by slackwater_log_x any more: nobody asks for it.",),
    left=(f"2026-11-22-4 ({LONG}) has no whole document beside it.",),
)
EACH: dict[str, object] = {
    "backup": BACKUP,
    "backup --preview": BackupPreview("orders", plan(Hold.PROCESS_FREEZE), (NOTE,), BACKUP.rotated),
    "recover": RECOVERY,
    "recover --preview": RECOVERY_PREVIEW,
    "discover": Discovery(
        (
            Discovered(COMPONENT, (VOLUME,), Hold.ATOMIC, REASON, True, (NOTE,)),
            Discovered(COMPONENT, (), None, REFUSAL.sentence, False, (REFUSAL,)),
        ),
        (NOTE,),
    ),
    "recover --list": Windows("orders", WINDOWS),
    "recover --list of nothing": Windows("orders", ()),
    "recover --list of losses": Windows(
        "orders",
        WINDOWS,
        (Gap(NOW, NOW, "a segment is missing"), Gap(NOW, None, LONG)),
        tuple(
            Loss(
                NOW,
                RecoveryTarget.parse(f"before:{4711 + number}"),
                (f"dropped public.{LONG} in shop",) * (1 + number % 2),
            )
            for number in range(22)
        ),
        "Another session runs.",
    ),
    "replica list": values.Replicas(
        (
            replica(),
            replica("2026-11-22-12", specification="postgresql:15/main", pinned=True, consistency=Consistency.CRASH),
            replica(
                "2026-11-22-5", state=ReplicaState.FAILED, verification=replace(PASSED, passed=False, error="Short.")
            ),
            replica("2026-11-22-6", presented=True, used=NOW, verification=PASSED, verified=NOW),
            replica("2026-11-22-3", kind=ReplicaKind.UNDO, state=ReplicaState.MISSING, verified=NOW),
        )
    ),
    "replica list of full ones": values.Replicas(
        (replica("2026-11-22-12", by="full"), replica(state=ReplicaState.FAILED, verification=PASSED))
    ),
    "replica list of long names": values.Replicas(
        (
            replica("2026-11-22-12", specification="postgresql:15/main", by="full", pinned=True),
            replica(specification="sqlite:/srv/a/rather/long/path/to/app.db", state=ReplicaState.FAILED),
        )
    ),
    "replica list --retention": values.Replicas(
        (replica("2026-11-21-1"), replica("2026-11-15-1")), {each.replica: each for each in BACKUP.rotated}
    ),
    "replica show": values.ReplicaShown(replica(), "Rotation and deletion leave it alone."),
    "replica verify": VerificationResult("2026-11-22-4", "orders", "2026-11-22-1", PASSED, PHASES, MESSAGES),
    "replica mount": Mounted("2026-11-22-4", "2026-11-22-1", False, ((LONG, f"/mnt{LONG}"),)),
    "replica unmount": Unmounted("2026-11-22-4", (f"/mnt{LONG}",), ("mount-2026-11-22-3",)),
    "clone create": CloneResult("2026-11-22-4", CLONES[0], PHASES),
    "clone list": values.Clones(CLONES),
    "clone list of long names": values.Clones(
        (replace(CLONES[0], clone=replace(CLONES[0].clone, name="before-the-upgrade-of-2026")), *CLONES)
    ),
    "clone delete": values.CloneDeleted(CLONES[0].clone),
    "try": TrialResult(
        session="2026-11-22-4",
        specification="postgresql:15/main",
        plan=plan(Hold.PROCESS_FREEZE),
        consistency=Consistency.APPLICATION,
        size_bytes=5 << 30,
        window=Window(12.5, 8.25),
        gap_ms=15.5,
        why_no_gap="",
        verification=PASSED,
        phases=PHASES,
        messages=(),
    ),
    "replica delete": values.Deletion(replica(), "2026-11-22-4"),
    "session list": values.Sessions((values.SessionShown(SESSION, False), values.SessionShown(SESSION, True))),
    "session show": values.SessionShown(SESSION, False),
    "status": STATUS,
    "status --nagios": values.Nagios("SLACKWATER OK - orders: fine | 'orders age'=1s;;;0", 0),
    "reconcile": MENDED,
    "reconcile of nothing": ReconcileResult((), (), (), (), (), {}, ()),
    "reconcile that could not": replace(
        MENDED,
        sessions=(replace(MENDED.sessions[0], mended=replace(MENDED.sessions[0].mended, mended=(STUCK,))),),
        undeleted=("delete replica 2026-11-22-2: no disk",),
    ),
    "catalog check": values.CatalogCheck(
        (Difference("2026-11-22-7", DifferenceKind.MISSING, "2026-11-22-7: it is gone."),), ()
    ),
    "catalog rebuild": Rebuilt(
        ("2026-11-22-1", "2026-11-22-2"),
        ("2026-11-22-1",),
        ("2026-11-22-3",),
        (f"2026-11-22-4 ({LONG}) has no whole document beside it.",),
    ),
    "catalog export": Exported(LONG, 12, 3),
    "catalog import": Imported(LONG, ("2026-11-22-9",), ("2026-11-22-1",), ("2026-11-22-1",)),
    "spec show": SUMMARY,
    "spec list": values.Specifications((SUMMARY, BROKEN)),
    "spec create": values.SpecificationCreated(SUMMARY, (NOTE,)),
    "spec check": values.SpecificationChecks(
        (
            values.SpecificationCheck("orders", "/etc/x.toml", (NOTE, REFUSAL)),
            values.SpecificationCheck("broken", "/etc/y.toml", error=BROKEN.error),
        )
    ),
    "schedule enable": values.ScheduleChanged(TIMER, True),
    "schedule disable": values.ScheduleChanged(TIMER, False),
    "schedule list": values.Schedules((TIMER, replace(TIMER, active=False, next=None, last=None))),
    "schedule list of long names": values.Schedules((replace(TIMER, name="orders-of-the-whole-company"), TIMER)),
    "writer test": values.Examined(REF, (("Facts are flat.", ""), ("A start can be undone.", "it left [7]"))),
    "provider test": values.ExaminedProvider("reflink", (LONG,), (("It is so.", ""), ("So it is.", "it left [7]"))),
    "doctor": values.Diagnosis((values.Check("root", values.Health.FAILED, "We are user 1.", "Run it with sudo."),)),
    "doctor --bundle": values.Bundle(LONG, ("version.json", "catalog.json"), ("catalog.json",), 12345),
    "demo": values.DemoEnded(0),
}
