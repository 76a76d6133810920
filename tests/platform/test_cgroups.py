# SPDX-License-Identifier: Apache-2.0
"""Who may be frozen, and processes that are gathered so that they may; nobody else is ever moved."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from slackwater.errors import RefusedError, RightsError, SlackwaterError
from slackwater.guard.client import Guard
from slackwater.journal.effects import Effect, EffectKinds, fields_of
from slackwater.system import cgroups
from slackwater.system.cgroups import Freeze, Gather, freezable, members, plan_gather
from slackwater.system.credentials import as_user
from slackwater.system.processes import descendants, identity, stat_of
from tests.platform.crowd import Crowd, eventually, new_cgroup, new_crowd, new_folder, write

pytestmark = [pytest.mark.root]

#: Two children that sleep; each says its number.
FAMILY = (
    "import os, sys, time\n"
    "for _ in range(2):\n"
    "    if os.fork() == 0: time.sleep(60)\n"
    "print('ready', flush=True); time.sleep(60)\n"
)
#: Forks without end: children that live for a moment, and one in three leaves a child behind when it ends.
FORKING = (
    "import os, signal, sys, time\n"
    "signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n"
    "print('ready', flush=True)\n"
    "n = 0\n"
    "while True:\n"
    "    n += 1\n"
    "    if os.fork() == 0:\n"
    "        if n % 3 == 0 and os.fork(): time.sleep(0.02); os._exit(0)\n"
    "        time.sleep(0.05); os._exit(0)\n"
    "    time.sleep(0.002)\n"
)


@contextmanager
def application(code: str, cgroup: str) -> Iterator[tuple[int, str]]:
    """A process in a cgroup, with a mark that all its children bear; every one of them ends with the context."""
    mark = f"sw-{os.urandom(6).hex()}"
    child = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", f"input()\n{code}", mark],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd="/",
    )  # fmt: skip
    try:
        write(f"{cgroup}/cgroup.procs", str(child.pid))
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write("\n")
        child.stdin.flush()
        assert child.stdout.readline() == "ready\n"
        yield child.pid, mark
    finally:
        child.kill()
        assert eventually(lambda: not killed(mark))
        child.communicate()


def marked(mark: str) -> set[int]:
    """Every living process that bears the mark, found without asking who stems from whom."""
    found = set()
    for name in os.listdir("/proc"):
        if name.isdecimal():
            try:
                if mark.encode() in Path(f"/proc/{name}/cmdline").read_bytes():
                    found.add(int(name))
            except OSError:
                continue
    return found


def killed(mark: str) -> set[int]:
    """Kill all who bear the mark; returns who did."""
    found = marked(mark)
    for pid in found:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return found


def places(mark: str) -> set[str]:
    found = set()
    for pid in marked(mark):
        stat = stat_of(pid)
        if stat and not stat.dead:
            try:
                found.add(cgroups.cgroup_of(pid))
            except ProcessLookupError:
                continue
    return found


@pytest.fixture
def cgroup() -> Iterator[str]:
    with new_cgroup() as made:
        yield made


def gather_of(pids: set[int] | frozenset[int]) -> Gather:
    """The effect that is planned where the processes do not have a cgroup to themselves."""
    effects = plan_gather("s1", frozenset(pids))[1]
    assert isinstance(effects[0], Gather)
    return effects[0]


# --- who may be frozen -------------------------------------------------------------------------------------------


def test_the_root_of_the_hierarchy_is_where_the_kernel_says() -> None:
    found = cgroups.root()
    assert os.path.exists(f"{found}/cgroup.controllers")
    assert cgroups.cgroup_of(1).startswith(found)
    with pytest.raises(ProcessLookupError):
        cgroups.cgroup_of(1 << 30)


def the_root_of_all() -> str:
    """A folder without `cgroup.freeze`: the root, or what holds it where ours is that of a namespace."""
    found = cgroups.root()
    return os.path.dirname(found) if os.path.exists(f"{found}/cgroup.freeze") else found


def test_the_root_and_what_is_gone_may_not_be_frozen(cgroup: str) -> None:
    assert "root of all cgroups" in freezable(the_root_of_all(), frozenset())
    assert "not there" in freezable(f"{cgroup}/gone", frozenset())
    assert freezable(cgroup, frozenset()) == ""


def test_a_stranger_in_it_is_named(cgroup: str) -> None:
    with application(FAMILY, cgroup) as (leader, mark), application(FAMILY, cgroup) as (other, _):
        assert members(cgroup) >= marked(mark) | {other}
        said = freezable(cgroup, frozenset(marked(mark)))
        assert f"({other})" in said
        assert f"({leader})" not in said
        assert freezable(cgroup, descendants(leader) | descendants(other)) == ""


def test_children_born_after_the_count_are_no_strangers(cgroup: str) -> None:
    with application(FAMILY, cgroup) as (leader, mark):
        assert len(marked(mark)) == 3
        assert freezable(cgroup, frozenset({leader})) == ""


def test_a_stranger_in_a_cgroup_below_counts(cgroup: str) -> None:
    with new_cgroup(cgroup) as below, application(FAMILY, cgroup) as (leader, _), application(FAMILY, below) as (o, _):
        assert f"({o})" in freezable(cgroup, descendants(leader))


def test_what_holds_us_or_an_ancestor_of_ours_is_refused(cgroup: str) -> None:
    code = (
        "import os, sys\n"
        "from slackwater.errors import RefusedError\n"
        "from slackwater.system import cgroups\n"
        "input()\n"
        "cgroup = cgroups.cgroup_of(os.getppid())\n"
        "print(cgroups.freezable(cgroup, cgroups.members(cgroup)))\n"
        "try: print(cgroups.plan_gather('s1', cgroups.members(cgroup)))\n"
        "except RefusedError as e: print('refused', e.reason)\n"
    )
    shell = f'read line; echo go | "{sys.executable}" -c "{code}"; true'
    parent = subprocess.Popen(["bash", "-c", shell], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    write(f"{cgroup}/cgroup.procs", str(parent.pid))
    said = parent.communicate("\n")[0].splitlines()
    assert "Slackwater itself" in said[0]
    assert f"({parent.pid})" in said[0]
    assert said[1] == "refused own-ancestor"
    assert os.listdir(cgroup).count(f"slackwater.s1.{parent.pid}") == 0


# --- planning ----------------------------------------------------------------------------------------------------


def test_who_has_a_cgroup_to_himself_is_not_moved(cgroup: str) -> None:
    with application(FAMILY, cgroup) as (_, mark):
        assert plan_gather("s1", frozenset(marked(mark))) == (cgroup, (Freeze("s1", cgroup),))


def test_who_shares_one_is_moved_below_it(cgroup: str) -> None:
    with application(FAMILY, cgroup) as (leader, mark), application(FAMILY, cgroup):
        path, effects = plan_gather("s1", frozenset(marked(mark)))
        assert path == f"{cgroup}/slackwater.s1.{leader}"
        assert [each.kind for each in effects] == ["process.gather", "process.freeze"]
        assert not os.path.exists(path), "a plan changes nothing"
        assert isinstance(effects[0], Gather)
        assert effects[0].leader == identity(leader)
        assert len(effects[0].others) == 2
        assert str(leader) in effects[0].describe()


def test_nobody_left_and_no_right_are_clear_errors(cgroup: str) -> None:
    with pytest.raises(SlackwaterError, match="any more"):
        plan_gather("s1", frozenset({1 << 30}))
    with (
        application(FAMILY, cgroups.root()) as (leader, _),
        as_user(65534, 65534),
        pytest.raises(RightsError) as caught,
    ):
        plan_gather("s1", frozenset({leader}))
    assert caught.value.exit_status == 6
    assert caught.value.hint


# --- gathering ---------------------------------------------------------------------------------------------------


def test_gathered_processes_come_back_to_where_each_was(cgroup: str) -> None:
    with new_cgroup() as second, application(FAMILY, cgroup) as (leader, mark), application(FAMILY, cgroup) as (o, om):
        stray = next(iter(marked(mark) - {leader}))
        write(f"{second}/cgroup.procs", str(stray))
        before = {pid: cgroups.cgroup_of(pid) for pid in marked(mark)}
        gather = gather_of(marked(mark))
        learnt = gather.make()
        assert learnt == {"cgroup": gather.cgroup, "processes": 3}
        assert places(mark) == {gather.cgroup}
        assert places(om) == {cgroup}, "nobody else is moved"
        assert gather.make() == learnt, "making it again changes nothing"
        gather.undo()
        assert {pid: cgroups.cgroup_of(pid) for pid in marked(mark)} == before
        assert not os.path.exists(gather.cgroup)
        gather.undo()
        assert {pid: cgroups.cgroup_of(pid) for pid in marked(mark)} == before
        assert o in members(cgroup)


@pytest.mark.parametrize("round_", range(3))
def test_a_parent_that_never_stops_forking_is_gathered_completely(cgroup: str, round_: int) -> None:
    with application(FORKING, cgroup) as (leader, mark), application(FAMILY, cgroup):
        gather = gather_of({leader})
        assert gather.make()["cgroup"] == gather.cgroup
        assert eventually(lambda: places(mark) == {gather.cgroup}, 5), "children of dead parents end by themselves"
        assert all(places(mark) == {gather.cgroup} for _ in range(20))
        gather.undo()
        assert places(mark) == {cgroup}
        assert not os.path.exists(gather.cgroup)


def test_a_gathering_that_forgets_the_children_would_be_caught(cgroup: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroups, "descendants", lambda pid: frozenset({pid}))
    with application(FAMILY, cgroup) as (leader, mark), application(FAMILY, cgroup):
        gather = gather_of({leader})
        gather.make()
        assert places(mark) == {cgroup, gather.cgroup}
        gather.undo()


def test_gathered_and_frozen_a_forking_parent_stands_still_with_all_its_children(cgroup: str) -> None:
    with application(FORKING, cgroup) as (leader, mark), application(FAMILY, cgroup), new_folder() as run_dir:
        path, effects = plan_gather("s1", frozenset({leader}))
        for effect in effects:
            effect.make()
        with Guard.arm("s1", [path], freeze_s=10, hold_s=10, run_dir=str(run_dir)) as guard:
            guard.freeze()
            before = marked(mark)
            assert not eventually(lambda: marked(mark) != before, 0.2)
            guard.release()
        assert eventually(lambda: marked(mark) != before)
        for effect in reversed(effects):
            effect.undo()
        assert places(mark) == {cgroup}


def test_an_orphan_that_is_known_is_gathered_too(cgroup: str) -> None:
    code = (
        "import os, time\n"
        "if os.fork() == 0:\n"
        "    if os.fork(): os._exit(0)\n"
        "    time.sleep(60)\n"
        "os.wait(); print('ready', flush=True); time.sleep(60)\n"
    )
    with application(code, cgroup) as (leader, mark), application(FAMILY, cgroup):
        assert descendants(leader) == {leader}
        assert len(marked(mark)) == 2
        gather = gather_of(marked(mark))
        gather.make()
        assert places(mark) == {gather.cgroup}
        gather.undo()
        assert places(mark) == {cgroup}


@pytest.mark.parametrize("came", ["nothing", "the cgroup", "the leader"])
def test_a_gathering_cut_off_anywhere_is_undone_or_finished(cgroup: str, came: str) -> None:
    with application(FAMILY, cgroup) as (leader, mark), application(FAMILY, cgroup):
        gather = gather_of(marked(mark))
        for end in (gather.undo, gather.make, gather.undo):
            if came != "nothing":
                os.makedirs(gather.cgroup, exist_ok=True)
            if came == "the leader":
                write(f"{gather.cgroup}/cgroup.procs", str(leader))
            end()
            assert places(mark) == ({gather.cgroup} if end == gather.make else {cgroup})
        assert not os.path.exists(gather.cgroup)


def test_what_was_left_frozen_in_it_is_thawed_and_moved_back(cgroup: str) -> None:
    with application(FORKING, cgroup) as (leader, mark), application(FAMILY, cgroup):
        gather = gather_of({leader})
        gather.make()
        write(f"{gather.cgroup}/cgroup.freeze", "1")
        gather.undo()
        assert places(mark) == {cgroup}
        before = marked(mark)
        assert eventually(lambda: marked(mark) != before), "it forks again"


def test_a_dead_leader_cannot_be_gathered_and_is_nothing_to_undo(cgroup: str) -> None:
    with application(FAMILY, cgroup) as (leader, mark), application(FAMILY, cgroup):
        gather = gather_of(marked(mark))
        os.kill(leader, signal.SIGKILL)
        assert eventually(lambda: (stat := stat_of(leader)) is None or stat.dead)
        with pytest.raises(SlackwaterError, match="is gone"):
            gather.make()
        assert not os.path.exists(gather.cgroup)
        gather.undo()


def test_a_leader_that_dies_gathered_leaves_its_children_to_the_undo(cgroup: str) -> None:
    with application(FAMILY, cgroup) as (leader, mark), application(FAMILY, cgroup):
        gather = gather_of(marked(mark))
        gather.make()
        os.kill(leader, signal.SIGKILL)
        gather.undo()
        assert places(mark) == {cgroup}
        assert not os.path.exists(gather.cgroup)


def test_a_cgroup_that_does_not_bear_our_name_is_left_alone(cgroup: str) -> None:
    with application(FAMILY, cgroup) as (leader, mark):
        write(f"{cgroup}/cgroup.freeze", "1")
        with pytest.raises(SlackwaterError, match="left alone"):
            Gather("s1", identity(leader), cgroups.root(), cgroup).undo()
        assert places(mark) == {cgroup}
        assert Path(f"{cgroup}/cgroup.freeze").read_text() == "1\n"
        write(f"{cgroup}/cgroup.freeze", "0")


def test_two_applications_of_one_session_do_not_share_a_cgroup(cgroup: str) -> None:
    with application(FAMILY, cgroup) as (one, _), application(FAMILY, cgroup) as (two, _):
        assert gather_of(descendants(one)).cgroup != gather_of(descendants(two)).cgroup


def test_a_process_that_becomes_ours_is_never_moved(cgroup: str) -> None:
    gather = Gather(
        "s1", identity(os.getpid()), cgroups.cgroup_of(os.getpid()), f"{cgroup}/slackwater.s1.{os.getpid()}"
    )
    before = cgroups.cgroup_of(os.getpid())
    with pytest.raises(RefusedError):
        gather.make()
    assert cgroups.cgroup_of(os.getpid()) == before
    gather.undo()
    assert not os.path.exists(gather.cgroup)


# --- what the journal knows of a freeze --------------------------------------------------------------------------


def test_the_effect_never_freezes_and_its_undo_thaws() -> None:
    with new_crowd(1) as crowd:
        effect = Freeze("s1", crowd.cgroup)
        assert effect.make() == {}
        assert crowd.moves()
        write(f"{crowd.cgroup}/cgroup.freeze", "1")
        assert eventually(crowd.stands)
        with pytest.raises(RefusedError, match="somebody else"):
            effect.make()
        effect.undo()
        assert crowd.moves()
        effect.undo()
        assert crowd.moves()
    effect.undo()
    with pytest.raises(RefusedError):
        effect.make()
    with pytest.raises(RefusedError):
        Freeze("s1", the_root_of_all()).make()


def test_effects_come_back_from_the_journal_as_they_went(cgroup: str) -> None:
    kinds = EffectKinds([Gather, Freeze])
    with application(FAMILY, cgroup) as (_, mark), application(FAMILY, cgroup):
        for effect in plan_gather("s1", frozenset(marked(mark)))[1]:
            assert isinstance(effect, Effect)
            assert kinds.load(effect.kind, json.loads(json.dumps(fields_of(effect)))) == effect


def test_a_crowd_of_the_tests_really_moves_and_stands(cgroup: str) -> None:
    """The oracle of these tests, and of the guard's, tells moving from standing."""
    with new_crowd(2) as crowd:
        assert isinstance(crowd, Crowd)
        assert crowd.moves()
        assert not crowd.stands()
        crowd.children[0].send_signal(signal.SIGSTOP)
        assert not crowd.moves(), "one of two stands"
        assert crowd.moves_within(0.2) == float("inf")
        crowd.children[0].send_signal(signal.SIGCONT)
        assert crowd.moves()
