# SPDX-License-Identifier: Apache-2.0
"""What every writer must do, as checks that anybody can run on a scratch instance of the application.

`examine` runs them all, in the order in which they need each other, and gives a verdict for each: plain sentences, no
test framework. It stops the application and starts it again, keeps it from writing for a moment, and changes nothing
else; a writer that does not keep its contract may do more, so use an instance that nobody needs.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import partial

from slackwater.guard.keepers import RunningKeeper
from slackwater.journal.effects import Effect, EffectKinds, fields_of
from slackwater.model.component import Component
from slackwater.model.facts import Facts, Severity
from slackwater.model.hold import Hold
from slackwater.system.command import run
from slackwater.writers.contract import Writer

_ANSWER_S, _UP_S = 30.0, 60.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one check found."""

    demand: str
    """What the contract demands, as one sentence."""
    why_not: str
    """How the writer falls short of it; empty when it does not."""

    @property
    def kept(self) -> bool:
        """Whether the writer does what is demanded."""
        return not self.why_not


def examine(writer: Writer, name: str) -> list[Verdict]:
    """Run every check on the component of this name, which runs and which nobody needs.

    A check that raises has found something too. The application runs again afterwards, as far as the writer can.
    """
    component = _component(writer, name)
    if component is None or component.refusals:
        why = component.refusals[0].sentence if component else f"there is no {writer.name}:{name}"
        return [Verdict("The component can be backed up.", why)]
    return [Verdict(demand, _tried(partial(check, writer, component))) for demand, check in CHECKS]


def _tried(check: Callable[[], str]) -> str:
    try:
        return check()
    except Exception as e:  # noqa: BLE001  # a stranger's writer may raise anything, and that is the finding
        return f"it raised {type(e).__name__}: {e}"


def _component(writer: Writer, name: str) -> Component | None:
    found = {each.ref.name: each for each in writer.identify()}
    return found.get(name) or writer.find(name)


# -- describing ----------------------------------------------------------------------------------------------------


def _names(writer: Writer, component: Component) -> str:
    if not writer.name or ":" in writer.name:
        return f"the writer is called {writer.name!r}, which cannot stand before a colon"
    if component.ref.writer != writer.name:
        return f"it calls its component {component.ref}"
    if not isinstance(getattr(writer, "answers", None), bool):
        return "it does not say whether it answers questions (answers)"
    return _first(
        f"the effect {each.__name__} is of the kind {each.kind!r}, which does not begin with {writer.name}."
        for each in writer.effects
        if not each.kind.startswith(f"{writer.name}.")
    )


def _alike(writer: Writer, component: Component) -> str:
    again = _component(writer, component.ref.name)
    if again is None or again.files != component.files or again.ref != component.ref:
        return f"asked again it says {again}"
    twice = [each.ref for each in writer.identify()]
    if len(twice) != len(set(twice)):
        return f"it lists {next(each for each in twice if twice.count(each) > 1)} twice"
    return ""


def _paths(writer: Writer, component: Component) -> str:
    if not component.files:
        return "it names no files, so a replica would be empty"
    paths = [each.path for each in component.files]
    found = _first(f"{each} is not an absolute path without links" for each in paths if os.path.realpath(each) != each)
    return found or _first(f"{each} is not a directory" for each in paths if not os.path.isdir(each))


def _flat(writer: Writer, component: Component) -> str:
    return _not_flat("the facts of the component", component.facts)


def _nothing(writer: Writer, component: Component) -> str:
    found = _component(writer, "/nowhere/to be found")
    return f"it finds {found.ref} where nothing is" if found is not None else ""


def _promises(writer: Writer, component: Component) -> str:
    known = {Hold.LOG_BRIDGE, Hold.APPLICATION_LOCK, Hold.COLD}
    if strange := set(component.offers) - known:
        return f"it offers {min(strange)}, which is not a writer's to offer"
    return _first(
        f"the finding {each.code} refuses and does not say what to do"
        for each in component.findings
        if each.severity is Severity.REFUSAL and not each.hint
    )


# -- coming to rest ------------------------------------------------------------------------------------------------


def _ours(writer: Writer, component: Component) -> str:
    pids = writer.processes(component)
    if os.getpid() in pids:
        return "it counts Slackwater itself among the application's processes, and would freeze it"
    if component.main_pid is not None and component.main_pid not in pids:
        return f"its main process {component.main_pid} is not among the processes {sorted(pids)}"
    gone = {each for each in pids if not os.path.exists(f"/proc/{each}")} & writer.processes(component)
    return f"process {min(gone)} is not there" if gone else ""


def _prepared(writer: Writer, component: Component) -> str:
    first, second = writer.prepare(component), writer.prepare(component)
    return _not_flat("what prepare returns", first) or _not_flat("what prepare returns", second)


def _thawed(writer: Writer, component: Component) -> str:
    writer.thaw(component)
    writer.freeze(component)
    writer.thaw(component)
    writer.thaw(component)
    return ""


def _kept(writer: Writer, component: Component) -> str:
    if Hold.APPLICATION_LOCK not in component.offers:
        return ""
    keeper = RunningKeeper(writer.keeper(component))
    try:
        for order, wanted in (("", "ready"), ("hold", "held"), ("release", "released"), ("hold", "held")):
            word, why = keeper.order(order, _ANSWER_S) if order else keeper.answer(_ANSWER_S)
            if word != wanted:
                return f"its keeper said {word or 'nothing'} {why} where {wanted} was due"
        return "" if keeper.close() else "its keeper does not end with its input"
    finally:
        keeper.close()


def _freed(writer: Writer, component: Component) -> str:
    """A lock must not outlive a keeper that was killed."""
    if Hold.APPLICATION_LOCK not in component.offers:
        return ""
    for turn in ("first", "second"):
        keeper = RunningKeeper(writer.keeper(component))
        try:
            ready, held = keeper.answer(_ANSWER_S), keeper.order("hold", _ANSWER_S)
        finally:
            keeper.end()
            keeper.close()
        if (ready[0], held[0]) != ("ready", "held"):
            return f"the {turn} keeper said {' '.join(ready)!r} and {' '.join(held)!r}"
    return ""


def _bridged(writer: Writer, component: Component) -> str:
    """A bridge whose end never comes must leave nothing that keeps the next one from being had."""
    if Hold.LOG_BRIDGE not in component.offers:
        return ""
    with writer.bridge(component, "2000-01-01-1"):
        pass
    with writer.bridge(component, "2000-01-01-2") as bridge:
        marks = bridge.close()
    if not marks.get("lsn"):
        return "its bridge does not say which position it reached (`lsn`)"
    return _not_flat("what a bridge's close returns", marks)


# -- stopping and starting -----------------------------------------------------------------------------------------


def _stored(writer: Writer, component: Component) -> str:
    planned = [writer.stop_effect(component), writer.start_effect(component), writer.settle_effect(component)]
    effects = [each for each in planned if each is not None]
    kinds = EffectKinds(writer.effects)
    return _first(why for each in effects if (why := _not_stored(each, kinds)))


def _not_stored(effect: Effect, kinds: EffectKinds) -> str:
    if not is_dataclass(effect):
        return f"{type(effect).__name__} is no dataclass"
    if not effect.describe() or "\n" in effect.describe():
        return f"{effect.kind} does not say in one line what it does"
    again = kinds.load(effect.kind, json.loads(json.dumps(fields_of(effect))))
    if again is None:
        return f"{effect.kind} is not among the writer's effects, so that the journal could not undo it"
    differs = [each.name for each in fields(effect) if getattr(again, each.name) != getattr(effect, each.name)]
    return f"{effect.kind}: {differs[0]} is another when it is read again" if differs else ""


def _stopped(writer: Writer, component: Component) -> str:
    stop = writer.stop_effect(component)
    if stop is None:
        return ""
    try:
        stop.make()
        if left := writer.processes(component):
            return f"after its stop the processes {sorted(left)} are still there"
        stop.make()
    finally:
        stop.undo()
    if component.main_pid is not None and not _comes(writer, component):
        return "undone, the stop did not start it again"
    stop.undo()
    return ""


def _started(writer: Writer, component: Component) -> str:
    start, stop = writer.start_effect(component), writer.stop_effect(component)
    if start is None or stop is None:
        return ""
    stop.make()
    start.make()
    start.make()
    now = _component(writer, component.ref.name) or component
    if component.main_pid is not None and not _comes(writer, now):
        return "it is started, and has no process"
    start.undo()
    if left := writer.processes(now):
        return f"undone, the start left the processes {sorted(left)}"
    start.make()
    return ""


def _confirmed(writer: Writer, component: Component) -> str:
    now = _component(writer, component.ref.name) or component
    reached = writer.confirm(now, writer.prepare(now), timeout_s=_UP_S)
    return _not_flat("what confirm returns", reached)


def _elsewhere(writer: Writer, component: Component) -> str:
    """Nothing may depend on what this process remembers: the next command is another one."""
    code = (
        "import importlib, sys; module, name, found = sys.argv[1:]\n"
        "writer = getattr(importlib.import_module(module), name)()\n"
        "listed = found in [each.ref.name for each in writer.identify()]\n"
        "print(listed or writer.find(found) is not None)"
    )
    kind = type(writer)
    command = (sys.executable, "-c", code, kind.__module__, kind.__qualname__, component.ref.name)
    done = run(
        *command,
        timeout_s=_UP_S,
        check=False,
        environment={"PYTHONPATH": os.pathsep.join(each or os.getcwd() for each in sys.path)},
    )
    said = done.complaint[-200:] or done.output.strip()
    return "" if said == "True" else f"another process does not find it: {said}"


def _comes(writer: Writer, component: Component) -> bool:
    ends_s = time.monotonic() + _UP_S
    while not writer.processes(component):
        if time.monotonic() >= ends_s:
            return False
        time.sleep(0.05)
    return True


def _not_flat(what: str, facts: Facts) -> str:
    return _first(
        f"{what}: {key!r} is a {type(value).__name__}, which cannot be stored"
        for key, value in facts.items()
        if type(value) not in (str, int, float, bool, type(None))
    )


def _first(sentences: Iterable[str]) -> str:
    return next(iter(sentences), "")


Check = Callable[[Writer, Component], str]
CHECKS: Sequence[tuple[str, Check]] = (
    ("Writer, components and kinds of effect bear the writer's name; it says whether it answers.", _names),
    ("Asked twice, it says the same, and each component once.", _alike),
    ("Files are directories that are there, by absolute paths without links.", _paths),
    ("Facts are flat, so that they can be stored.", _flat),
    ("What is not there is not found.", _nothing),
    ("It offers what a writer can offer, and a refusal says what to do.", _promises),
    ("Another process finds the same component.", _elsewhere),
    ("Its processes are those of the application and never ours.", _ours),
    ("prepare can be called again, and returns what can be stored.", _prepared),
    ("thaw may come without freeze, and twice.", _thawed),
    ("The keeper of its lock answers every order, and ends with its input.", _kept),
    ("Its lock does not outlive a keeper that was killed.", _freed),
    ("A log bridge can be left at any time, and its end can be stored.", _bridged),
    ("Its effects can be stored and read again.", _stored),
    ("Stopped means that every process is gone; a stop can be repeated and undone.", _stopped),
    ("A start can be repeated and undone.", _started),
    ("A running application is confirmed.", _confirmed),
)
