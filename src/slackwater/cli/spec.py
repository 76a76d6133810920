# SPDX-License-Identifier: Apache-2.0
"""`slackwater spec`: create, list, show, check."""

from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from slackwater.cli import completion
from slackwater.cli.app import new_app, verb
from slackwater.cli.frame import do, open_cell
from slackwater.cli.options import Json, SpecName
from slackwater.cli.values import (
    SpecificationCheck,
    SpecificationChecks,
    SpecificationCreated,
    Specifications,
    SpecificationSummary,
)  # fmt: skip
from slackwater.cli.waiting import ASKING, waiting
from slackwater.errors import NotFoundError, RefusedError, RightsError, SlackwaterError, UsageError
from slackwater.model.component import ComponentRef
from slackwater.model.facts import Finding

if TYPE_CHECKING:
    from slackwater.config.specification import ComponentEntry, Specification
    from slackwater.model.service import Service
    from slackwater.sessions.cell import Cell

_Name = Annotated[str, typer.Argument(metavar="NAME", help="Its name, which is also its file's.")]
_Components = Annotated[
    list[str],
    typer.Argument(metavar="WRITER:COMPONENT...", help="What it backs up, as `slackwater discover` names it."),
]
_MaybeName = Annotated[
    str, typer.Argument(metavar="NAME", help="Only this one.", autocompletion=completion.specifications)
]

specs = new_app("Write, list, show and check specifications: what to back up.")


def join(app: typer.Typer) -> None:
    """Add the noun to the application."""
    app.add_typer(specs, name="spec")


@verb(
    specs,
    "create",
    "slackwater spec create orders postgresql:15/main",
    fails=(NotFoundError, RightsError),
)
def create(name: _Name, components: _Components, json: Json = False) -> SpecificationCreated:
    """Write a new, commented specification.

    Every option is in it, with its default.
    """
    refs = [_ref(text) for text in components]
    cell = open_cell()
    from slackwater.config.specification import check_name
    from slackwater.config.template import write_new

    check_name(name)
    with waiting(ASKING, unless=json):
        findings = do(partial(_look, cell, refs))
    path = write_new(cell.places.specs_dir, name, refs)
    return SpecificationCreated(_summary(cell, name, path), findings)


@verb(specs, "list", "slackwater spec list", fails=(RightsError,))
def list_specs(json: Json = False) -> Specifications:
    """List all specifications, also those that cannot be read."""
    cell = open_cell()
    good, broken = cell.specifications
    found = [_described(each, _path(cell, each.name)) for each in good]
    found += [SpecificationSummary(each.name, each.path, error=each.error) for each in broken]
    return Specifications(tuple(sorted(found, key=lambda each: each.name)))


@verb(specs, "show", "slackwater spec show orders", fails=(NotFoundError, RightsError))
def show(name: SpecName, json: Json = False) -> SpecificationSummary:
    """Show a specification."""
    cell = open_cell()
    return _summary(cell, name, _path(cell, name))


@verb(
    specs,
    "check",
    "slackwater spec check",
    "slackwater spec check orders",
    fails=(NotFoundError, RefusedError, RightsError),
)
def check(name: _MaybeName = "", json: Json = False) -> SpecificationChecks:
    """Check that backups and recoveries would start today.

    Reads each specification, and plans a backup and a recovery of what it names.
    """
    cell = open_cell()
    if name:
        names = [name]
    else:
        good, broken = cell.specifications
        names = sorted([*(each.name for each in good), *(each.name for each in broken)])
    with waiting(ASKING, unless=json):
        checks = tuple(do(partial(_checked, cell, each)) for each in names)
    if name and isinstance(checks[0].error, NotFoundError) and checks[0].error.reason == NotFoundError.code:
        raise checks[0].error
    return SpecificationChecks(checks)


async def _checked(cell: "Cell", name: str) -> SpecificationCheck:
    from slackwater.sessions import backup

    path = _path(cell, name)
    try:
        planned = await backup.preview(cell, name)
        against = await cell.host.recoverable(planned.plan) if planned.plan.volumes else ()
    except SlackwaterError as e:
        return SpecificationCheck(name, path, error=e)
    return SpecificationCheck(name, path, tuple(dict.fromkeys((*planned.findings, *against))))


async def _look(cell: "Cell", refs: list[ComponentRef]) -> tuple[Finding, ...]:
    """What stands against each component today.

    Raises:
        NotFoundError: one is not there.
    """
    from slackwater.sessions import discover
    from slackwater.sessions.target import select

    components = select(await cell.host.identify(refs), refs)
    looked = [await discover.look(cell, each) for each in components]
    return tuple(dict.fromkeys(finding for each in looked for finding in each.findings))


def _ref(text: str) -> ComponentRef:
    try:
        return ComponentRef.parse(text)
    except ValueError as e:
        raise UsageError(f"{e}.", data="Nothing was changed.", hint="`slackwater discover` shows the names.") from None


def _path(cell: "Cell", name: str) -> str:
    return f"{cell.places.specs_dir}/{name}.toml"


def _summary(cell: "Cell", name: str, path: str) -> SpecificationSummary:
    from slackwater.config import specification

    found = specification.find(cell.places.specs_dir, name)
    with open(path, encoding="utf-8") as f:
        return _described(found, path, f.read())


def _described(found: "Specification", path: str, text: str = "") -> SpecificationSummary:
    replica, options = found.replica, found.options
    return SpecificationSummary(
        name=found.name,
        path=path,
        components=found.components,
        options={
            "handling": [_said_of(each) for each in found.component],
            "replica": {
                "keep": replica.keep.last if set(replica.keep.rules) == {"last"} else replica.keep.rules,
                "min_redundancy": replica.min_redundancy,
                "type": replica.type,
                "verify": replica.verify,
                "min_free": str(replica.min_free),
            },
            "options": {
                "configuration_check": options.configuration_check,
                "freeze_timeout_ms": options.freeze_timeout * 1000,
                "hold_timeout_ms": options.hold_timeout * 1000,
                "hold": options.hold,
                "on_writer_failure": options.on_writer_failure,
                "retries": options.retries,
                "retry_after_ms": options.retry_after * 1000,
            },
            "recovery": {
                "logs": found.recovery.logs,
                "archive": found.recovery.archive,
                "logs_max_bytes": found.recovery.logs_max.of(0),
                "undo_keep_s": found.recovery.undo_keep,
                "services": [_service_said(each) for each in found.recovery.services],
            },
            "verify": found.verify.model_dump(),
            "hooks": [
                {"name": name, "command": list(hook.command), "timeout_ms": hook.timeout_s * 1000}
                for name, hook in found.hooks.around.given.items()
            ],
        },
        text=text,
    )


def _service_said(service: "Service") -> dict[str, object]:
    commands = {"stop": list(service.stop), "start": list(service.start)}
    return {"unit": service.unit, "container": service.container, **commands, "timeout_ms": service.timeout_s * 1000}


def _said_of(entry: "ComponentEntry") -> dict[str, str]:
    names = ("provider", "consistency", "unit", "cgroup", "pid_file", "stop", "start", "lock", "unlock")
    return {"component": str(entry.ref)} | {name: getattr(entry, name) for name in names}
