# SPDX-License-Identifier: Apache-2.0
"""Values built by hand, one of each kind that a command returns."""

from datetime import UTC, datetime, timedelta
from typing import Any

from slackwater.cli import values
from slackwater.errors import UsageError
from slackwater.hosts.contract import Reconciled
from slackwater.journal.journal import Decision, Mended
from slackwater.model.component import Component, ComponentRef, FileRole, FileSet
from slackwater.model.facts import Finding, Severity
from slackwater.model.plan import Consistency, Hold, Limits, Placement, Plan, Window
from slackwater.model.replica import BackupComponents, ComponentRecord, Replica, ReplicaKind, ReplicaState
from slackwater.model.session import Message, Outcome, Phase, PhaseRecord, Session, SessionKind
from slackwater.model.storage import ShadowCopy, Volume
from slackwater.policy.retention import Decision as Rotated
from slackwater.sessions.backup import BackupPreview, BackupResult
from slackwater.sessions.check import Difference, DifferenceKind
from slackwater.sessions.discover import Discovered, Discovery
from slackwater.sessions.reconcile import ReconcileResult
from slackwater.sessions.recover import RecoveryPreview, RecoveryResult
from slackwater.sessions.status import SpecificationStatus, Status

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
    return Plan((COMPONENT,), (VOLUME,), (placement,), hold, REASON, Consistency.APPLICATION, Limits(), findings)


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
        copies=(ShadowCopy(VOLUME, ".slackwater/2026-11-22-1/pg", {"generation": 7}),),
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
STATUS = Status((STANDING,), ("2026-11-22-9",), ("broken",))
SUMMARY = values.SpecificationSummary(
    "orders",
    "/etc/slackwater/specs.d/orders.toml",
    (REF,),
    {"replica": {"keep": 6, "min_free": "10%"}},
    'name = "orders"',
)
BROKEN = values.SpecificationSummary("broken", "/etc/x.toml", error=UsageError("x is wrong.", hint="Correct it."))

#: One of each, by the command that returns it.
EACH: dict[str, object] = {
    "backup": BACKUP,
    "backup --preview": BackupPreview("orders", plan(Hold.PROCESS_FREEZE), (NOTE,)),
    "recover": RECOVERY,
    "recover --preview": RECOVERY_PREVIEW,
    "discover": Discovery(
        (
            Discovered(COMPONENT, (VOLUME,), Hold.ATOMIC, REASON, True, (NOTE,)),
            Discovered(COMPONENT, (), None, REFUSAL.sentence, False, (REFUSAL,)),
        ),
        (NOTE,),
    ),
    "replica list": values.Replicas(
        (
            replica(),
            replica("2026-11-22-12", specification="postgresql:15/main", pinned=True, consistency=Consistency.CRASH),
            replica("2026-11-22-3", kind=ReplicaKind.UNDO, state=ReplicaState.MISSING, verified=NOW),
        )
    ),
    "replica show": values.ReplicaShown(replica(), "Rotation and deletion leave it alone."),
    "replica delete": values.Deletion(replica(), "2026-11-22-4"),
    "session list": values.Sessions((values.SessionShown(SESSION, False), values.SessionShown(SESSION, True))),
    "session show": values.SessionShown(SESSION, False),
    "status": STATUS,
    "status --nagios": values.Nagios("SLACKWATER OK - orders: fine | 'orders age'=1s;;;0", 0),
    "reconcile": ReconcileResult(
        sessions=(Reconciled("2026-11-22-9", "backup", (Mended("2026-11-22-9", "snapshot", Decision.UNDO, ""),)),),
        released=("A guard was killed.",),
        adopted=("2026-11-22-8",),
        aborted=("2026-11-22-9",),
        missing=("2026-11-22-7",),
        deleted=("2026-11-22-6",),
    ),
    "catalog check": values.CatalogCheck(
        (Difference("2026-11-22-7", DifferenceKind.MISSING, "2026-11-22-7: it is gone."),), ()
    ),
    "spec show": SUMMARY,
    "spec list": values.Specifications((SUMMARY, BROKEN)),
    "spec create": values.SpecificationCreated(SUMMARY, (NOTE,)),
    "spec check": values.SpecificationChecks(
        (
            values.SpecificationCheck("orders", "/etc/x.toml", (NOTE, REFUSAL)),
            values.SpecificationCheck("broken", "/etc/y.toml", error=BROKEN.error),
        )
    ),
    "doctor": values.Diagnosis((values.Check("root", values.Health.FAILED, "We are user 1.", "Run it with sudo."),)),
    "demo": values.DemoEnded(0),
}
