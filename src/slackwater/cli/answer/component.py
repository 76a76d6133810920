# SPDX-License-Identifier: Apache-2.0
"""Components, specifications, and the writers and providers of both, as JSON."""

from collections.abc import Mapping
from typing import Any

from slackwater.cli import values
from slackwater.cli.answer.kit import Document, answer, error_as_json, findings_as_json, volumes_as_json
from slackwater.sessions.discover import Discovered, Discovery


@answer.register
def _discovery(value: Discovery) -> Document:
    return {
        "components": [_discovered(each) for each in value.components],
        "failures": findings_as_json(value.failures),
    }


def _discovered(each: Discovered) -> Document:
    return {
        "component": str(each.component.ref),
        "caption": each.component.caption,
        "running": each.component.running,
        "volumes": volumes_as_json(each.volumes),
        "provider": ", ".join(sorted({volume.provider for volume in each.volumes})),
        "hold": each.hold,
        "recoverable": each.recoverable,
        "reason": each.reason,
        "findings": findings_as_json(each.findings),
    }


@answer.register
def _specification(value: values.SpecificationSummary) -> Document:
    return {"specification": {**_summary(value), "text": value.text}}


@answer.register
def _specifications(value: values.Specifications) -> Document:
    return {"specifications": [_summary(each) for each in value.specifications]}


@answer.register
def _created(value: values.SpecificationCreated) -> Document:
    return {"specification": _summary(value.specification), "findings": findings_as_json(value.findings)}


@answer.register
def _checks(value: values.SpecificationChecks) -> Document:
    return {
        "specifications": [
            {
                "name": each.name,
                "path": each.path,
                "good": each.error is None and not each.refused,
                "error": error_as_json(each.error),
                "findings": findings_as_json(each.findings),
            }
            for each in value.checks
        ]
    }


def _summary(each: values.SpecificationSummary) -> Document:
    tables: Mapping[str, Any] = each.options or {}
    components = [str(ref) for ref in each.components]
    return {
        "name": each.name, "path": each.path, "components": components, **tables, "error": error_as_json(each.error),
    }  # fmt: skip


@answer.register
def _examined(value: values.Examined) -> Document:
    return {"component": str(value.component), "checks": _verdicts(value.verdicts)}


@answer.register
def _examined_provider(value: values.ExaminedProvider) -> Document:
    return {"provider": value.provider, "on": list(value.on), "checks": _verdicts(value.verdicts)}


def _verdicts(verdicts: tuple[tuple[str, str], ...]) -> list[Document]:
    return [{"demand": demand, "kept": not why, "why_not": why} for demand, why in verdicts]
