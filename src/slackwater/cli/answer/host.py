# SPDX-License-Identifier: Apache-2.0
"""The state of a host as JSON: how everything stands, schedules, and what is wrong with the machine."""

from dataclasses import asdict

from slackwater.cli import values
from slackwater.cli.answer.kit import Document, answer, moment_as_json, session_as_json
from slackwater.policy.windows import Gap, RecoveryWindow
from slackwater.sessions.status import SpecificationStatus, Status
from slackwater.sessions.windows import Windows
from slackwater.system.timers import Timer


@answer.register
def _status(value: Status) -> Document:
    return {
        "specifications": [_standing(each) for each in value.specifications],
        "pending": list(value.pending),
        "broken": list(value.broken),
    }


@answer.register
def _windows(value: Windows) -> Document:
    return {
        "specification": value.specification,
        "windows": [window_as_json(each) for each in value.windows],
        "gaps": [_gap(each) for each in value.gaps],
        "losses": [
            {"at": moment_as_json(each.at), "target": str(each.target), "what": list(each.what)}
            for each in value.losses
        ],
        "unnamed": value.unnamed,
        "unread": list(value.unread),
    }


def _gap(gap: Gap) -> Document:
    return {"since": moment_as_json(gap.since), "until": moment_as_json(gap.until), "why": gap.why}


def window_as_json(each: RecoveryWindow) -> Document:
    """A recovery window."""
    return {
        "replica": each.replica,
        "since": moment_as_json(each.since),
        "until": moment_as_json(each.until),
        "bytes": each.bytes,
        "why": each.why,
    }


@answer.register
def _nagios(value: values.Nagios) -> Document:
    return {"line": value.line, "exit_status": value.status}


@answer.register
def _bundle(value: values.Bundle) -> Document:
    return {"path": value.path, "parts": list(value.parts), "failed": list(value.failed), "bytes": value.bytes}


@answer.register
def _schedule(value: values.ScheduleChanged) -> Document:
    return {"schedule": _timer(value.timer), "enabled": value.enabled}


@answer.register
def _schedules(value: values.Schedules) -> Document:
    return {"schedules": [_timer(each) for each in value.timers]}


@answer.register
def _diagnosis(value: values.Diagnosis) -> Document:
    return {"checks": [asdict(each) for each in value.checks]}


@answer.register
def _demo(value: values.DemoEnded) -> Document:
    return {"exit_status": value.status}


def _standing(each: SpecificationStatus) -> Document:
    last = each.last_session
    return {
        "specification": each.specification,
        "last_good": each.last_good,
        "last_good_at": moment_as_json(each.last_good_at),
        "age_s": each.age_s,
        "verified": moment_as_json(each.verified),
        "recoverable_from": moment_as_json(each.recoverable_from),
        "recoverable_to": moment_as_json(each.recoverable_to),
        "replicas": each.replicas,
        "undo_replicas": each.undo_replicas,
        "windows": [window_as_json(w) for w in each.windows],
        "gaps": [_gap(gap) for gap in each.gaps],
        "undo": [
            {"replica": u.replica, "created": moment_as_json(u.created), "expires": moment_as_json(u.expires)}
            for u in each.undo
        ],
        "failed": list(each.failed),
        "last_session": session_as_json(values.SessionShown(last, interrupted=False)) if last else None,
        "free_bytes": each.free_bytes,
        "low_room": each.low_room,
        "total_bytes": each.total_bytes,
    }


def _timer(timer: Timer) -> Document:
    return {
        "specification": timer.name,
        "unit": timer.unit,
        "calendar": timer.calendar,
        "active": timer.active,
        "enabled": timer.enabled,
        "next": moment_as_json(timer.next),
        "last": moment_as_json(timer.last),
        "result": timer.result,
        "exit_status": timer.status,
    }
