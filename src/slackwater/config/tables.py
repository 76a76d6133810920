# SPDX-License-Identifier: Apache-2.0
"""Checking what was read from TOML against pydantic tables, with errors that say file, place and what is accepted."""

import difflib
import re
from collections.abc import Iterator
from typing import Annotated, Any, TypeVar, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from slackwater.config.quantities import parse_amount, parse_duration
from slackwater.errors import UsageError
from slackwater.model.quantities import Amount


class Table(BaseModel):
    """A table of a TOML file: unknown keys are errors, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _duration(value: object) -> float:
    return parse_duration(value if isinstance(value, str) else str(value))


def _amount(value: object) -> Amount:
    return parse_amount(value if isinstance(value, str) else str(value))


Duration = Annotated[float, BeforeValidator(_duration)]
"""Seconds, written with a unit."""
AmountOfRoom = Annotated[Amount, BeforeValidator(_amount)]
"""A share or a number of bytes, written with a unit."""

_Checked = TypeVar("_Checked", bound=Table)
_Place = tuple[str | int, ...]

_SECRET = re.compile(r"^pass$|passw|passphrase|pwd|secret|token|credential|(api|private|access).?key", re.IGNORECASE)
_NOT_SECRET = frozenset({"password_file"})
_WHERE_SECRETS_BELONG = (
    "Put the password into a password file (mode 0600) and name it with password_file, or into a service file and name "
    "its section with service, or hand it to the unit as a systemd credential; then change it, since it lay open here."
)

#: Pydantic's words for these are about Python.
_PLAIN = {
    "string_type": "must be a text in quotes",
    "int_type": "must be a whole number, without quotes",
    "tuple_type": "must be a list",
    "model_type": "must be a table",
    "too_short": "must have at least one",
    "string_too_short": "must not be empty",
}


def check(table: type[_Checked], data: dict[str, Any], path: str) -> _Checked:
    """Make a table of what was read from the file `path`.

    Raises:
        UsageError: a key that holds a secret, an unknown key, or a value that is not accepted; all of the file at once.
    """
    if secret := next(_secrets(data, ()), None):
        raise UsageError(
            f"{path}: {_say(secret)}: a secret does not belong in this file.",
            data="Nothing was changed.",
            hint=_WHERE_SECRETS_BELONG,
            code="secret-in-file",
        )
    try:
        return table.model_validate(data)
    except ValidationError as e:
        problems = [_problem(table, each) for each in e.errors(include_url=False, include_input=False)]
        raise UsageError(
            f"{path}: " + "; ".join(problems) + ".", data="Nothing was changed.", hint=f"Correct {path}."
        ) from e


def _secrets(value: object, place: _Place) -> Iterator[_Place]:
    if isinstance(value, dict):
        for key, inner in value.items():
            if _SECRET.search(key) and key not in _NOT_SECRET:
                yield (*place, key)
            yield from _secrets(inner, (*place, key))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _secrets(inner, (*place, number))


def _problem(table: type[Table], error: ErrorDetails) -> str:
    place = error["loc"]
    if error["type"] == "extra_forbidden":
        return _unknown(table, place)
    if error["type"] == "missing":
        return f"{_say(place)} is missing"
    message = _PLAIN.get(error["type"]) or error["msg"].removeprefix("Value error, ")
    return f"{_say(place)}: {message[0].lower()}{message[1:]}" if place else message


def _unknown(root: type[Table], place: _Place) -> str:
    table, key = _table_at(root, place[:-1]), str(place[-1])
    valid = list(table.model_fields)
    text = f"unknown key {_say(place)}"
    if close := difflib.get_close_matches(key, valid, n=1):
        text += f"; did you mean {close[0]}?"
    else:
        homes = {k: name for name, inner in _tables_in(root) for k in inner.model_fields}
        if elsewhere := difflib.get_close_matches(key, homes, n=1, cutoff=0.7):
            text += f"; did you mean {_say((homes[elsewhere[0]], elsewhere[0]))}?"
    return f"{text} (valid here: {', '.join(valid)})"


def _table_at(table: type[Table], place: _Place) -> type[Table]:
    for part in place:
        if isinstance(part, str):
            table = dict(_tables_in(table)).get(part, table)
    return table


def _tables_in(table: type[Table]) -> Iterator[tuple[str, type[Table]]]:
    for name, field in table.model_fields.items():
        for each in (field.annotation, *get_args(field.annotation)):
            if isinstance(each, type) and issubclass(each, Table):
                yield name, each


def _say(place: _Place) -> str:
    """Write a place as it stands in the file: `[replica] keep`, `[[component]] 2 writer`."""
    match place:
        case (str(name),):
            return name
        case (str(name), int(number), *rest):
            return " ".join([f"[[{name}]] {number + 1}", *map(str, rest)])
        case (str(name), *rest):
            return " ".join([f"[{name}]", *map(str, rest)])
    return ""
