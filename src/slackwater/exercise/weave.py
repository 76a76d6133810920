# SPDX-License-Identifier: Apache-2.0
"""Faults woven into a plug-in: before every call of a contract's method or effect, the exercise is asked.

Events are made of the contract, so a new method or a new kind of effect is one by itself: `writer.freeze`; the make of
the effect `test.stop` is `writer.stop`, and its undo `writer.stop.undo`; what lies inside of a context that a method
opens has the names of `within` (the call of what `provider.open` gives is `provider.commit`).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, fields, is_dataclass, replace
from functools import partial
from typing import Any, TypeVar

from slackwater.errors import SlackwaterError
from slackwater.exercise import lies
from slackwater.exercise.faults import names_in, strike
from slackwater.exercise.file import VARIABLE, Exercise, current
from slackwater.journal.effects import Effect

T = TypeVar("T")
_EFFECT_METHODS = ("make", "undo", "exchanged", "keep")


@dataclass
class Room:
    """The events of one kind of plug-in, and what each answers when it lies or when no exercise is on."""

    name: str
    """`writer` or `provider`."""
    contracts: Sequence[type]
    within: Mapping[str, tuple[str, type]]
    """By method: the prefix of the events of what its context gives, and the contract of that."""
    silent: Mapping[str, Any]
    """By method: its answer where no exercise is on; all others refuse."""
    own_lies: Mapping[str, Callable[[str], Any]] = field(default_factory=dict)
    """By event: what a lie of some kind says, where the form of the answer is not enough."""
    aliases: Callable[[frozenset[str]], frozenset[str]] = lambda names: names
    """Adds the names in an exercise's file to those in a call."""
    events: dict[str, Callable[..., Any]] = field(default_factory=dict)
    """Each with the method of the contract."""
    _kinds: dict[type[Effect], type[Effect]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for contract in self.contracts:
            self._add(self.name, contract)
        for prefix, contract in self.within.values():
            self._add(prefix, contract)

    def _add(self, prefix: str, contract: type) -> None:
        for name, method in methods(contract).items():
            self.events[prefix if name == "__call__" else f"{prefix}.{name}"] = method

    # -- weaving ---------------------------------------------------------------------------------------------------

    def plug_in(self, kind: type[T]) -> type[T]:
        """Give a class every method of the contract that it has not; each asks the exercise, then its `_inner`."""
        for contract in self.contracts:
            for name in methods(contract):
                if name not in vars(kind):
                    setattr(kind, name, self._method(name))
        return kind

    def effects(self, kinds: Sequence[type[Effect]]) -> tuple[type[Effect], ...]:
        """Kinds of effect `test.…` that are like these, with faults."""
        for kind in kinds:
            self._kinds[kind] = self._effect(kind)
        return tuple(self._kinds[kind] for kind in kinds)

    def _method(self, name: str) -> Callable[..., Any]:
        def asked(plug_in: Any, *args: Any, **more: Any) -> Any:  # noqa: ANN401
            work = partial(getattr(plug_in._inner, name), *args, **more)  # noqa: SLF001
            if current() is None and name in self.silent:
                return self.silent[name]
            return self._entered(name, self.call(f"{self.name}.{name}", work, args), args)

        return asked

    def _effect(self, kind: type[Effect]) -> type[Effect]:
        verb = kind.kind.partition(".")[2]

        def woven(member: str) -> Callable[..., Any]:
            event = f"{self.name}.{verb}" + ("" if member == "make" else f".{member}")
            method = getattr(kind, member)
            self.events[event] = method
            return lambda effect, *args: self.call(event, partial(method, effect, *args), (effect,))

        members = {name: woven(name) for name in _EFFECT_METHODS if hasattr(kind, name)}
        bases = {"kind": f"test.{verb}", "__slots__": (), "__module__": kind.__module__, "__doc__": kind.__doc__}
        return type(f"Exercised{kind.__name__}", (kind,), {**bases, **members})

    # -- calling ---------------------------------------------------------------------------------------------------

    def call(self, event: str, work: Callable[[], Any], about: Sequence[object]) -> Any:  # noqa: ANN401
        """Do some work, unless the exercise wants something else at this event.

        Raises:
            SlackwaterError: no exercise is on, so nothing may be touched; or a failure is wanted.
        """
        exercise = _required(event)
        names = self.aliases(frozenset(names_in(tuple(about)))) if exercise.fault else frozenset()
        fault = strike(exercise, event, names)
        return self._woven(work()) if fault is None else self.lie(event, fault.kind)

    def lie(self, event: str, kind: str = "") -> Any:  # noqa: ANN401
        """What is said at an event without doing it.

        Raises:
            NoLieError: nothing can be.
        """
        own = self.own_lies.get(event)
        return own(kind) if own else lies.told(self.events[event])

    def _entered(self, name: str, value: Any, about: Sequence[object]) -> Any:  # noqa: ANN401
        if name in self.within and isinstance(value, AbstractContextManager):
            return self._opened(value, self.within[name][0], about)
        return value

    @contextmanager
    def _opened(self, context: AbstractContextManager[Any], prefix: str, about: Sequence[object]) -> Iterator[Any]:
        with context as given:
            yield _Given(self, given, prefix, about)

    def _woven(self, value: Any) -> Any:  # noqa: ANN401
        """The effects in an answer, each with its faults."""
        kind = self._kinds.get(type(value))
        if kind is not None:
            return kind(**{each.name: getattr(value, each.name) for each in fields(value)})
        if is_dataclass(value) and not isinstance(value, type):
            parts = {each.name: getattr(value, each.name) for each in fields(value)}
            planned = {
                n: p for n, p in parts.items() if isinstance(p, tuple) and any(type(e) in self._kinds for e in p)
            }
            return replace(value, **{n: tuple(map(self._woven, p)) for n, p in planned.items()}) if planned else value
        return value


class _Given:
    """What a context gave, with faults: it is called, or its methods are."""

    def __init__(self, room: Room, inner: Any, prefix: str, about: Sequence[object]) -> None:  # noqa: ANN401
        self._room, self._inner, self._prefix, self._about = room, inner, prefix, about

    def __call__(self) -> Any:  # noqa: ANN401
        return self._room.call(self._prefix, self._inner, self._about)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        method = getattr(self._inner, name)
        return lambda *args: self._room.call(f"{self._prefix}.{name}", partial(method, *args), self._about)


def methods(contract: type) -> dict[str, Callable[..., Any]]:
    """The methods that a contract demands, by name."""
    return {
        name: each
        for name, each in vars(contract).items()
        if callable(each) and (name == "__call__" or not name.startswith("_")) and not isinstance(each, type)
    }


def _required(event: str) -> Exercise:
    exercise = current()
    if exercise is None:
        raise SlackwaterError(
            f"What an exercise made is not touched while none is on ({event}).",
            data="It was left as it is.",
            hint=f"Set {VARIABLE} to the file of that exercise and run this again.",
            code="exercise-off",
        )
    return exercise
