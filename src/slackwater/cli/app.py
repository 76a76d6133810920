# SPDX-License-Identifier: Apache-2.0
"""How every command teaches: one sentence, examples, and its exit statuses, taken from the tree of errors."""

import textwrap
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TypeVar

import typer
from typer.core import TyperCommand, TyperGroup

from slackwater import errors
from slackwater.cli.hints import hint_for
from slackwater.errors import SlackwaterError, UsageError

_Function = TypeVar("_Function", bound=Callable[..., object])
_WIDTH = 78
_ORDER = (
    "try",
    "discover",
    "spec",
    "backup",
    "replica",
    "recover",
    "clone",
    "schedule",
    "status",
    "session",
    "reconcile",
    "catalog",
    "doctor",
    "writer",
    "provider",
    "demo",
)
_SETTINGS = {"help_option_names": ["-h", "--help"]}


class _AsTyped:
    """Takes what was typed as it is: text and flags need no coercion.

    Typer's own asks pydantic, whose import costs more than most of our commands.
    """

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:  # noqa: ANN401  # Typer's signature
        """Give the value, and an empty tuple for no values at all."""
        return () if value is None and param.nargs == -1 else value


_AS_TYPED = _AsTyped()


class _Plain:
    """What commands and nouns have in common."""

    epilog: str | None

    def get_params(self, ctx: Any) -> list[Any]:  # noqa: ANN401  # Typer's types are private
        """The parameters, which take what was typed as it is."""
        params: list[Any] = super().get_params(ctx)  # type: ignore[misc]  # Typer's, beside which this stands
        for param in params:
            param.get_runtime_param = lambda: _AS_TYPED
            if param.param_type_name == "argument":
                param.display_type_rich = lambda ctx: ""  # the placeholder says it; `<str>` would add nothing
                param.get_usage_pieces = lambda ctx, it=param: [it.metavar if it.required else f"[{it.metavar}]"]
        return params

    def format_epilog(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401  # Typer's types are private
        """Write the epilogue as it is, unwrapped."""
        formatter.write(f"\n{self.epilog}\n" if self.epilog else "")


class Command(_Plain, TyperCommand):
    """A verb."""


class Group(_Plain, TyperGroup):
    """A noun with its verbs; knows what a foreign word means here."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401  # Typer's types are private
        """Show the help where no verb is given."""
        if not args and not ctx.resilient_parsing:
            typer.echo(ctx.get_help(), err=True)
            raise typer.Exit(UsageError.exit_status)
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ANN401  # Typer's types are private
        """The commands in the order in which a newcomer needs them."""
        return sorted(self.commands, key=lambda name: _ORDER.index(name) if name in _ORDER else len(_ORDER))

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:  # noqa: ANN401
        """Find the command, or say what was probably meant."""
        if not ctx.resilient_parsing and args[0] not in self.commands and not args[0].startswith("-"):
            _unknown(args[0], "" if ctx.parent is None else self.name or "", list(self.commands))
        return super().resolve_command(ctx, args)


def new_app(sentence: str, *, epilog: str = "", completion: bool = False) -> typer.Typer:
    """Make the application of a noun."""
    return typer.Typer(
        cls=Group,
        help=sentence,
        epilog=epilog,
        rich_markup_mode=None,
        add_completion=completion,
        pretty_exceptions_enable=False,
        context_settings=_SETTINGS,
    )


def verb(
    app: typer.Typer, name: str, *examples: str, fails: Sequence[type[SlackwaterError]] = ()
) -> Callable[[_Function], _Function]:
    """Register a command of `app` whose help ends with examples and exit statuses."""
    return app.command(name, cls=Command, epilog=epilogue(examples, fails), context_settings=_SETTINGS)


def epilogue(examples: Sequence[str], fails: Sequence[type[SlackwaterError]] = ()) -> str:
    """The end of a command's help. Every command can fail (1) and be misused (2)."""
    lines = ["Examples:", *(f"  {example}" for example in examples), "", "Exit status:", "   0  Done."]
    for status in sorted({1, 2, *(each.exit_status for each in fails)}):
        lines += textwrap.wrap(
            meaning(status),
            _WIDTH,
            initial_indent=f"  {status:>2}  ",
            subsequent_indent=" " * 6,
            break_on_hyphens=False,
        )
    return "\n".join(lines)


def meaning(status: int) -> str:
    """What an exit status means, in the words of the errors that have it."""
    return " ".join(_first_line(each) for each in error_classes() if each.exit_status == status)


def error_classes() -> list[type[SlackwaterError]]:
    """All errors of the tree, by exit status."""
    found = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, SlackwaterError)]
    return sorted(found, key=lambda each: each.exit_status)


def _first_line(error: type[SlackwaterError]) -> str:
    return (error.__doc__ or "").partition("\n")[0]


def _unknown(word: str, noun: str, known: Sequence[str]) -> NoReturn:
    raise UsageError(
        f"There is no command `slackwater {f'{noun} ' if noun else ''}{word}`.",
        data="Nothing was changed.",
        hint=hint_for(word, noun, known),
        code="unknown-command",
    )
