# SPDX-License-Identifier: Apache-2.0
"""A clock that stands until it is moved, and replicas to store."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from slackwater.model.component import Component, ComponentRef, FileRole, FileSet
from slackwater.model.hold import Consistency, Hold
from slackwater.model.plan import Window
from slackwater.model.replica import BackupComponents, ComponentRecord, Replica, ReplicaKind
from slackwater.model.storage import ShadowCopy, Volume

REF = ComponentRef("postgresql", "15/main")


@dataclass
class StandingClock:
    time: datetime = datetime(2026, 11, 22, 9, 30, tzinfo=UTC)

    def now(self) -> datetime:
        return self.time


def replica(
    session: str = "2026-11-22-1",
    *,
    specification: str = "orders",
    kind: ReplicaKind = ReplicaKind.BACKUP,
    age: timedelta = timedelta(0),
    reason: str = "one volume",
) -> Replica:
    volume = Volume("btrfs", "uuid:/pg", "pg", "/srv/pg", "0:45", {"subvolume": 257})
    component = Component(REF, "PostgreSQL 15", True, (FileSet(FileRole.DATA, "/srv/pg/data"),), True, main_pid=4711)
    document = BackupComponents(
        schema_version=1,
        owner="d9b9c1ba-8a0e-4d4b-b0a3-1f5b4ed2e0f5",
        session=session,
        kind=kind,
        specification=specification,
        created=StandingClock().time - age,
        hold=Hold.ATOMIC,
        reason=reason,
        consistency=Consistency.APPLICATION,
        window=Window(1.5, 0.5),
        components=(ComponentRecord(component, {"lsn": "0/16B3748"}, {"/etc/postgresql/x.conf": "port = 5432\n"}),),
        copies=(ShadowCopy(volume, ".slackwater/2026-11-22-1/pg", {"generation": 12}),),
    )
    return Replica(document)
