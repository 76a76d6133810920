# SPDX-License-Identifier: Apache-2.0
"""Values as exit statuses, by the same numbers as the errors."""

from functools import singledispatch

from slackwater.cli import values
from slackwater.errors import CrashOnlyError, PartialError, RefusedError, SlackwaterError, VerificationError
from slackwater.model.facts import Finding, Severity
from slackwater.model.hold import Consistency
from slackwater.model.session import Outcome
from slackwater.sessions.backup import BackupPreview, BackupResult
from slackwater.sessions.rebuild import Rebuilt
from slackwater.sessions.reconcile import ReconcileResult
from slackwater.sessions.recover import RecoveryPreview, RecoveryResult
from slackwater.sessions.transfer import Imported


@singledispatch
def status_of(value: object) -> int:
    """The exit status of a command that returned `value`: 0 unless the value itself says that something is wrong."""
    return 0


@status_of.register
def _backup(value: BackupResult) -> int:
    if value.consistency is Consistency.CRASH and value.plan.consistency is Consistency.APPLICATION:
        return CrashOnlyError.exit_status
    if value.verification is not None and not value.verification.passed:
        return VerificationError.exit_status
    return PartialError.exit_status if value.outcome is Outcome.COMPLETED_WITH_FAILURES else 0


@status_of.register
def _recovery(value: RecoveryResult) -> int:
    return PartialError.exit_status if value.outcome is Outcome.COMPLETED_WITH_FAILURES else 0


@status_of.register(BackupPreview)
@status_of.register(RecoveryPreview)
def _preview(value: BackupPreview | RecoveryPreview) -> int:
    return _refused(value.findings)


@status_of.register
def _reconciled(value: ReconcileResult) -> int:
    return PartialError.exit_status if value.unmended else 0


@status_of.register
def _checks(value: values.SpecificationChecks) -> int:
    broken = [each.error.exit_status for each in value.checks if each.error]
    return max(broken, default=0) or (RefusedError.exit_status if any(c.refused for c in value.checks) else 0)


@status_of.register
def _catalog(value: values.CatalogCheck) -> int:
    return SlackwaterError.exit_status if value.differences or value.damage else 0


@status_of.register
def _replica(value: values.ReplicaShown) -> int:
    return PartialError.exit_status if value.not_noted else 0


@status_of.register
def _rebuilt(value: Rebuilt) -> int:
    return PartialError.exit_status if value.left else 0


@status_of.register
def _imported(value: Imported) -> int:
    return PartialError.exit_status if value.missing else 0


@status_of.register
def _diagnosis(value: values.Diagnosis) -> int:
    return SlackwaterError.exit_status if any(each.health is values.Health.FAILED for each in value.checks) else 0


@status_of.register
def _examined_provider(value: values.ExaminedProvider) -> int:
    return SlackwaterError.exit_status if any(why for _, why in value.verdicts) else 0


@status_of.register
def _examined(value: values.Examined) -> int:
    return SlackwaterError.exit_status if any(why for _, why in value.verdicts) else 0


@status_of.register(values.Nagios)
@status_of.register(values.DemoEnded)
def _own(value: values.Nagios | values.DemoEnded) -> int:
    return value.status


def _refused(findings: tuple[Finding, ...]) -> int:
    return RefusedError.exit_status if any(each.severity is Severity.REFUSAL for each in findings) else 0
