# SPDX-License-Identifier: Apache-2.0
"""Services as real processes, and containers and units by stand-ins that keep the interfaces of docker and systemctl.

Around a real server's recoveries they are in e2e/test_services.py, under a real systemd in platform/.
"""

import json
import os
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import anyio
import pytest

from slackwater.hosts.mending import Mender
from slackwater.journal.effects import EffectKinds
from slackwater.journal.journal import Journal
from slackwater.model.service import Service
from slackwater.model.session import SessionKind
from slackwater.recovery import services
from slackwater.recovery.order import Hands
from slackwater.system import companions, hooks
from slackwater.system.clock import SYSTEM_CLOCK
from slackwater.system.companions import ServiceError, StopService
from slackwater.system.processes import identity, stat_of
from slackwater.system.story import Story
from tests.platform.crowd import eventually

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="services are root's")]

#: What is started stays, whatever the command says afterwards; `$1` is the service's name.
START = """cd {folder}
echo "start $1" >>log
[ -s $1 ] || {{ {way} sleep 1000 >/dev/null 2>&1 & echo $! >$1; }}
{end}
"""
#: State lies in `said`; a stop that goes on in the daemon is whoever writes it later.
DOCKER = """cd {folder}
case "$1" in
    inspect) [ "$4" = web ] && cat said ;;
    start) echo "$*" >>log; grep -q '"Running": true' said || cp up said ;;
    stop) echo "$*" >>log; cp down said ;;
esac
"""
SYSTEMCTL = """cd {folder}
case "$1" in
    show) cat said ;;
    start) echo start >>log; sed -i s/=inactive/={after}/ said ;;
    *) : ;;
esac
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """For commands that only root may write: pytest's own lies in everybody's /tmp."""
    made = Path(f"/run/slackwater-test-companions-{secrets.token_hex(4)}")
    made.mkdir(mode=0o755)
    yield made
    for path in made.iterdir():
        if path.read_text().strip().isdecimal():
            kill(int(path.read_text()))
    shutil.rmtree(made)


def kill(pid: int) -> None:
    if runs(pid):
        os.kill(pid, signal.SIGKILL)


def runs(pid: int) -> bool:
    stat = stat_of(pid)
    return stat is not None and not stat.dead


def program(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def service(folder: Path, name: str, end: str = "exit 3", way: str = "setsid") -> StopService:
    start = program(folder / f"start-{name}", START.format(folder=folder, way=way, end=end))
    return StopService(f"the service of {name}", "s1", "orders", ("/bin/true", name), (start, name), 60.0, running=True)


def started(folder: Path) -> list[str]:
    path = folder / "log"
    return path.read_text().splitlines() if path.exists() else []


def pid_in(path: Path) -> int:
    ends_s = time.monotonic() + 60
    while not (path.exists() and path.read_text().strip()):
        assert time.monotonic() < ends_s
        time.sleep(0.02)
    return int(path.read_text())


# -- what a start left running ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["setsid", ""], ids=["a session of its own", "the group of the command"])
def test_a_service_that_a_failed_start_left_running_is_not_killed(
    folder: Path, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    effect = service(folder, "mail", way=way)
    for _ in range(2):
        with pytest.raises(ServiceError, match="ended with status 3"):
            effect.undo()
    assert runs(pid_in(folder / "mail"))
    assert started(folder) == ["start mail"] * 2
    # The oracle sees it: whoever kills all that bears the marks kills the service.
    mended = hooks.kill_left

    def careless(told: dict[str, str], *, own: bool = False) -> None:
        mended(told, own=own and False)

    monkeypatch.setattr(hooks, "kill_left", careless)
    with pytest.raises(ServiceError):
        effect.undo()
    assert not runs(pid_in(folder / "mail"))


def test_a_start_that_a_killed_session_left_hanging_is_ended_and_its_service_is_not(folder: Path) -> None:
    effect = service(folder, "mail", end="[ -e hung ] || { echo >hung; sleep 1000 & echo $! >work; wait; }")
    told = {
        "SLACKWATER_SESSION": "s1", "SLACKWATER_SPEC": "orders", "SLACKWATER_PHASE": "start",
        "SLACKWATER_SERVICE": "/bin/true mail",
    }  # fmt: skip
    with subprocess.Popen(hooks.marked(effect.start), env=told, start_new_session=True) as left:
        work, daemon = pid_in(folder / "work"), pid_in(folder / "mail")
        assert eventually(lambda: os.getsid(daemon) == daemon, 60.0)  # before that it is a part of what hangs
        effect.undo()
        assert left.wait(60) == -signal.SIGKILL
    assert (runs(work), runs(daemon)) == (False, True)
    assert started(folder) == ["start mail"] * 2


def test_a_service_that_does_not_start_again_holds_nothing_up(folder: Path, tmp_path: Path) -> None:
    journal = Journal(str(tmp_path / "journal.db"), EffectKinds([StopService]))
    journal.begin("s1", SessionKind.RECOVERY, identity(os.getpid()))
    for effect in (service(folder, "web", end=""), service(folder, "mail")):
        journal.run("s1", effect)
    mender = Mender(journal, Hands({}, {}, SYSTEM_CLOCK))
    told = {each.effect: each.error for each in mender.undo("s1").mended}
    command = f"{folder}/start-mail mail"
    assert told == {
        "run /bin/true web, within 60 s": "",
        f"run {command}": f"The service of mail did not start: {folder}/start-mail ended with status 3."
        f" Start it by hand: {command}",
    }
    assert journal.open_sessions() == []
    assert (mender.undo("s1").mended, started(folder)) == ((), ["start mail", "start web"])
    journal.close()


def test_a_service_that_fails_after_a_recovery_is_told_once_and_keeps_no_other_down(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(str(tmp_path / "journal.db"), EffectKinds([StopService]))
    journal.begin("s1", SessionKind.RECOVERY, identity(os.getpid()))
    stopped = [service(folder, "web", end=""), service(folder, "jobs"), service(folder, "mail", end="")]
    for effect in stopped:
        journal.run("s1", effect)
    start = StopService.start_again

    def broken(effect: StopService) -> None:
        if effect is stopped[2]:
            raise RuntimeError("a defect")
        start(effect)

    monkeypatch.setattr(StopService, "start_again", broken)
    story = Story(SYSTEM_CLOCK, None, "orders")
    anyio.run(partial(services.start, stopped, "s1", journal, story))
    assert started(folder) == ["start jobs", "start web"]
    defect, failed = [each.text for each in story.messages]
    assert "a defect" in defect
    assert f"Start it by hand: {folder}/start-jobs jobs" in failed
    assert Mender(journal, Hands({}, {}, SYSTEM_CLOCK)).undo("s1").mended == ()
    journal.close()


# -- containers ------------------------------------------------------------------------------------------------------


def container(*, removed: bool = False, grace: int | None = None, **state: object) -> str:
    known = {"Running": True, "Restarting": False, "Pid": 1} | state
    config = {} if grace is None else {"StopTimeout": grace}
    return json.dumps([{"State": known, "Config": config, "HostConfig": {"AutoRemove": removed}}])


@pytest.fixture
def docker(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    program(folder / "docker", DOCKER.format(folder=folder))
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    (folder / "up").write_text(container())
    (folder / "down").write_text(container(Running=False, Pid=0))
    return folder


def test_a_container_that_does_not_survive_its_stop_is_refused_while_it_runs(docker: Path) -> None:
    for said, why in (
        (container(removed=True), "is removed when it stops"),
        (container(grace=60), "may take 60 s to stop, and its timeout is 60 s"),
        (container(grace=-1), "may take inf s"),
        ("[]", "cannot be understood"),
        (container(grace=59), ""),
        (container(removed=True, Running=False, Pid=0), ""),
    ):
        (docker / "said").write_text(said)
        found = companions.findings([Service(container="web")])
        assert [why in each.sentence for each in found] == [True] * bool(why), (said, found)


@pytest.mark.parametrize("running", [True, False], ids=["as docker says it", "as podman does"])
def test_a_container_that_is_about_to_start_again_runs(docker: Path, running: bool) -> None:
    (docker / "said").write_text(container(Running=running, Restarting=True, Pid=0))
    (effect,) = companions.plan([Service(container="web")], "s1", "orders")
    assert (effect.running, companions.pids([Service(container="web")])) == (True, frozenset())
    effect.make()
    assert started(docker) == ["stop web"]


def test_a_container_whose_stop_goes_on_is_started_when_it_is_at_rest(docker: Path) -> None:
    (docker / "said").write_text(container())
    (effect,) = companions.plan([Service(container="web")], "s1", "orders")
    assert effect.grace_s == 10.0
    with subprocess.Popen(["/bin/sh", "-c", f"sleep 1; cp {docker}/down {docker}/said"]):
        effect.undo()
    assert (started(docker), (docker / "said").read_text()) == (["start web"], (docker / "up").read_text())


def test_a_container_that_ends_at_once_is_no_success(docker: Path) -> None:
    (docker / "said").write_text(container())
    (effect,) = companions.plan([Service(container="web")], "s1", "orders")
    effect.make()
    (docker / "up").write_text((docker / "down").read_text())
    with pytest.raises(ServiceError, match="it does not run"):
        effect.undo()


# -- units -----------------------------------------------------------------------------------------------------------


def unit(load: str = "loaded", active: str = "active", transient: str = "no") -> str:
    return f"LoadState={load}\nActiveState={active}\nTransient={transient}\n"


@pytest.fixture
def systemctl(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("slackwater.system.services.booted", lambda: True)
    program(folder / "systemctl", SYSTEMCTL.format(folder=folder, after="active"))
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


def test_a_unit_that_could_not_be_started_again_is_refused_while_it_runs(systemctl: Path) -> None:
    for said, why in (
        (unit("not-found"), "There is no unit"),
        (unit("masked"), "is masked: it could not be started again"),
        (unit(transient="yes"), "is gone when it stops"),
        (unit("masked", "inactive"), ""),
        (unit(), ""),
    ):
        (systemctl / "said").write_text(said)
        found = companions.findings([Service(unit="web.service")])
        assert [why in each.sentence for each in found] == [True] * bool(why), (said, found)


def test_a_unit_whose_start_came_to_nothing_is_no_success(systemctl: Path) -> None:
    (systemctl / "said").write_text(unit())
    (effect,) = companions.plan([Service(unit="web.service")], "s1", "orders")
    (systemctl / "said").write_text(unit(active="inactive"))
    effect.undo()
    assert "=active" in (systemctl / "said").read_text()
    # A condition of the unit that does not hold: its job ends well, and it does not run.
    (systemctl / "said").write_text(unit(active="inactive"))
    program(systemctl / "systemctl", SYSTEMCTL.format(folder=systemctl, after="inactive"))
    with pytest.raises(ServiceError, match="it does not run"):
        effect.undo()
