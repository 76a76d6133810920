# SPDX-License-Identifier: Apache-2.0
"""The application `slackwater`, and its only exit: every value is shown and every error said in one place."""

import json
import os
import sys
import threading
from typing import Annotated, Any

import typer

from slackwater import __version__
from slackwater.cli import (
    backup,
    catalog,
    clone,
    demo,
    discover,
    doctor,
    mount,
    provider,
    reconcile,
    recover,
    replica,
    schedule,
    session,
    spec,
    status,
    trial,
    words,
    writer,
)
from slackwater.cli.app import epilogue, new_app
from slackwater.cli.frame import undisturbed
from slackwater.errors import AbortedError, SlackwaterError, UsageError

SCHEMA_VERSION = 1
_INTERRUPTED = 130
_UNKNOWN = 3
#: How long threads may take to end after their work.
_LOST_S = 1.0


class DefectError(SlackwaterError):
    """A defect of ours."""

    code = "internal"


_SENTENCE = "Take consistent replicas of applications in one still moment; turn back to any of them in seconds."
_FIRST_STEPS = (
    "slackwater discover                                what is here?",
    "slackwater try postgresql:15/main                  would it work here? keeps nothing",
    "slackwater spec create orders postgresql:15/main   name what to back up",
    "slackwater backup orders                           take a replica",
    "slackwater recover orders --preview                what would turning back do?",
    "slackwater status                                  where do we stand?",
)

app = new_app(_SENTENCE, epilog=epilogue(_FIRST_STEPS), completion=True)
for _each in (
    trial,
    discover,
    spec,
    backup,
    replica,
    mount,
    recover,
    clone,
    schedule,
    session,
    status,
    catalog,
    reconcile,
    doctor,
    writer,
    provider,
    demo,
):
    _each.join(app)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"slackwater {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Nothing of its own: what it says stands above."""


def run() -> None:
    """Be the command `slackwater`."""
    status = main(sys.argv[1:])
    _leave_the_lost(status)
    sys.exit(status)


def _leave_the_lost(status: int) -> None:
    """End now if a thread waits for what never comes back (a disk that hangs): the interpreter would wait with it."""
    others = [each for each in threading.enumerate() if each is not threading.main_thread() and not each.daemon]
    for each in others:
        each.join(_LOST_S)
    if any(each.is_alive() for each in others):
        sys.stdout.flush()
        os._exit(status)


def main(arguments: list[str]) -> int:
    """Run a command line, show what it returns or why it failed, and return the exit status."""
    try:
        try:
            _tell_of_an_exercise()
            value = app(args=arguments, prog_name="slackwater", standalone_mode=False)
            if value == _INTERRUPTED:
                raise KeyboardInterrupt
            with undisturbed():
                return _done(value, as_json=_asked(arguments, "--json"))
        except Exception as e:  # noqa: BLE001  # here ends whatever was raised, and no traceback goes further
            return _failed(error_of(e), arguments)
        except KeyboardInterrupt:
            return _failed(AbortedError("Stopped on request (SIGINT).", data="Nothing had been begun."), arguments)
    except BrokenPipeError:
        return _reader_gone()


def _done(value: Any, *, as_json: bool) -> int:  # noqa: ANN401  # whatever a command returned
    if value is None or isinstance(value, int):
        return value or 0
    from slackwater.cli.statuses import status_of

    try:
        if as_json:
            from slackwater.cli.answer import answer

            _print({"schema_version": SCHEMA_VERSION, **_exercise(), **answer(value)})
        else:
            from slackwater.cli.render import show

            show(value)
        sys.stdout.flush()
    except BrokenPipeError:
        _reader_gone()
    return status_of(value)


def _failed(error: SlackwaterError, arguments: list[str]) -> int:
    if _asked(arguments, "--nagios"):
        sys.stdout.write(f"SLACKWATER UNKNOWN - {error.sentence}\n")
        return _UNKNOWN
    if _asked(arguments, "--json"):
        _print({"schema_version": SCHEMA_VERSION, **_exercise(), "error": describe(error)})
    else:
        tell_error(error)
    return error.exit_status


def _tell_of_an_exercise() -> None:
    """Say that failures are rehearsed here: nobody shall take one for real, nor a replica that was lied about.

    Raises:
        SlackwaterError: what the environment names is no exercise that we may trust.
    """
    if _exercise():
        from slackwater.hosts.exercise import announce

        words.tell(announce())


def _exercise() -> dict[str, str]:
    """What JSON says of an exercise; nothing without one."""
    path = os.environ.get("SLACKWATER_EXERCISE")
    return {"exercise": path} if path else {}


def describe(error: SlackwaterError) -> dict[str, Any]:
    """An error as JSON shows it."""
    return {
        "code": error.reason,
        "sentence": error.sentence,
        "data": error.data,
        "hint": error.hint,
        "exit_status": error.exit_status,
        "retryable": error.retryable,
    }


def tell_error(error: SlackwaterError) -> None:
    """Say an error on standard error: what happened, what it means for the data, what to do next."""
    red, plain = ("\x1b[1;31m", "\x1b[0m") if words.coloured() else ("", "")
    words.tell(f"{red}error:{plain} {error.sentence}")
    if error.data:
        words.tell(f" data: {error.data}")
    if error.hint:
        words.tell(f" next: {error.hint}")


def error_of(raised: Exception) -> SlackwaterError:
    """What was raised, as an error that a user can understand; a defect of ours is called one."""
    while isinstance(raised, ExceptionGroup):
        ours = raised.subgroup(SlackwaterError) or raised
        raised = ours.exceptions[0]
    if isinstance(raised, SlackwaterError):
        return raised
    if isinstance(raised, typer.TyperException):
        return _misused(raised)
    if isinstance(raised, typer.Abort):
        return AbortedError("Stopped on request.", data="Nothing was changed.")
    if os.environ.get("SLACKWATER_DEBUG") == "1":
        import traceback

        traceback.print_exception(raised)
    return DefectError(
        f"A defect of slackwater: {type(raised).__name__}: {raised}.",
        data="What a session had begun was undone, or is put right by the next `slackwater reconcile`.",
        hint="slackwater doctor; with SLACKWATER_DEBUG=1 the same command shows where it happened.",
    )


def _misused(raised: typer.TyperException) -> UsageError:
    context = getattr(raised, "ctx", None)
    command = context.command_path if context else "slackwater"
    sentence = " ".join(raised.format_message().split())
    hint = f"{command} --help"
    if "--json" in sentence:
        hint = "Write --json after the command, as in: slackwater status --json"
    return UsageError(sentence, data="Nothing was changed.", hint=hint)


def _asked(arguments: list[str], option: str) -> bool:
    """Whether an option was typed; also known when the rest of the line makes no sense."""
    return option in (arguments[: arguments.index("--")] if "--" in arguments else arguments)


def _print(document: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(document, ensure_ascii=False, indent=2) + "\n")


def _reader_gone() -> int:
    """Nobody reads any more (`slackwater session list | head -1`): be quiet, also when Python flushes at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0
