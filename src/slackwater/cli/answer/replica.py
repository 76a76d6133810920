# SPDX-License-Identifier: Apache-2.0
"""Replicas and the catalog that lists them, as JSON."""

from dataclasses import asdict

from slackwater.cli import values
from slackwater.cli.answer.kit import (
    Document,
    answer,
    decision_as_json,
    findings_as_json,
    moment_as_json,
    verification_as_json,
    volumes_as_json,
    window_as_json,
)
from slackwater.cli.words import rfc3339
from slackwater.model.replica import ComponentRecord, Replica
from slackwater.sessions.rebuild import Rebuilt
from slackwater.sessions.transfer import Exported, Imported


@answer.register
def _replicas(value: values.Replicas) -> Document:
    decided = value.retention
    if decided is None:
        return {"replicas": [_replica(each) for each in value.replicas]}
    return {
        "replicas": [{**_replica(each), "retention": decision_as_json(decided[each.id])} for each in value.replicas]
    }


@answer.register
def _replica_shown(value: values.ReplicaShown) -> Document:
    return {"replica": _whole_replica(value.replica), "not_noted": value.not_noted}


@answer.register
def _deletion(value: values.Deletion) -> Document:
    preview = {} if value.session else {"preview": True}
    return {**preview, "session": value.session, "replica": _replica(value.replica)}


def _replica(replica: Replica) -> Document:
    document = replica.document
    return {
        "id": replica.id,
        "kind": document.kind,
        "type": document.type,
        "specification": document.specification,
        "components": [str(each) for each in replica.components],
        "created": rfc3339(document.created),
        "consistency": document.consistency,
        "state": replica.state,
        "read_only": replica.read_only,
        "presented": replica.presented,
        "verified": moment_as_json(replica.verified),
        "verification": verification_as_json(replica.verification),
        "used": moment_as_json(replica.used),
        "pinned": replica.pinned,
        "volumes": volumes_as_json(replica.volumes),
    }


def _whole_replica(replica: Replica) -> Document:
    document = replica.document
    return {
        **_replica(replica),
        "hold": document.hold,
        "reason": document.reason,
        "window": window_as_json(document.window),
        "replaced_by": document.replica,
        "records": [_record(each) for each in document.components],
        "copies": [
            {
                "volume": copy.volume.path,
                "provider": copy.provider,
                "place": copy.place,
                "facts": dict(copy.facts),
            }
            for copy in document.copies
        ],
    }


def _record(record: ComponentRecord) -> Document:
    component = record.component
    return {
        "component": str(component.ref),
        "caption": component.caption,
        "running": component.running,
        "files": [{"role": each.role, "path": each.path, "via": each.via} for each in component.files],
        "expected": dict(record.expected),
        "configuration": sorted(record.configuration),
        "findings": findings_as_json(component.findings),
    }


@answer.register
def _catalog(value: values.CatalogCheck) -> Document:
    differences = [{"replica": d.replica, "kind": d.kind, "sentence": d.sentence} for d in value.differences]
    return {"differences": differences, "damage": list(value.damage)}


@answer.register
def _rebuilt(value: Rebuilt) -> Document:
    return {
        "restored": list(value.restored),
        "pinned": list(value.pinned),
        "known": list(value.known),
        "left": list(value.left),
    }


@answer.register
def _exported(value: Exported) -> Document:
    return asdict(value)


@answer.register
def _imported(value: Imported) -> Document:
    return {
        "path": value.path,
        "sessions": list(value.sessions),
        "replicas": list(value.replicas),
        "missing": list(value.missing),
    }
