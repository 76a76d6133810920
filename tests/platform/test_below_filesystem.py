# SPDX-License-Identifier: Apache-2.0
"""Volumes copied below their filesystems show one moment: by a filesystem freeze, or by frozen processes and syncfs."""

import fcntl
import os
import struct
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, cast

import anyio
import pytest

from slackwater.coordinator import events
from slackwater.coordinator.events import take
from slackwater.coordinator.parts import Parts
from slackwater.coordinator.plan import make_plan
from slackwater.errors import DeadlineError
from slackwater.guard.client import Guard
from slackwater.guard.leftovers import release_leftovers
from slackwater.hosts import survey
from slackwater.journal.effects import EffectKinds
from slackwater.journal.journal import Journal
from slackwater.model.component import Component, ComponentRef, FileRole, FileSet
from slackwater.model.facts import Facts, Finding
from slackwater.model.hold import Hold
from slackwater.model.plan import Plan, PlanOptions
from slackwater.model.storage import Capabilities, CommitForm, ShadowCopy, Take, Volume
from slackwater.system import loops, mounts
from slackwater.system.clock import SYSTEM_CLOCK
from slackwater.system.story import Story
from tests.platform.crowd import Crowd, eventually, new_crowd, new_folder
from tests.platform.disks import mounted, thaw

pytestmark = [pytest.mark.root]

_FICLONE = 0x40049409
#: Each number is written to the first volume, and then to the second one: no moment shows more there.
PAIRS = """
import os, struct, sys, time
files = [os.open(each, os.O_RDWR | os.O_CREAT) for each in sys.argv[1:]]
n = 0
while True:
    n += 1
    for each in files:
        os.pwrite(each, struct.pack("q", n), 0)
    time.sleep(0.001)
"""


@dataclass(frozen=True)
class Nothing:
    """An effect of a provider that makes all it makes in its commit."""

    kind: ClassVar[str] = "test.nothing"
    name: str

    def describe(self) -> str:
        return self.name

    def make(self) -> Facts:
        return {}

    def undo(self) -> None:
        pass


class ImageProvider:
    """Copies the image file behind a loop device by sharing its extents: one system call, below the filesystem."""

    name = "image"
    capabilities = Capabilities(CommitForm.SYSTEM_CALL, "volume", reads_through_filesystem=False)

    def volume_of(self, path: str) -> Volume | None:
        mount = mounts.mount_of(path)
        assert mount is not None
        image = loops.backing_file(mount.source)
        return Volume("image", image, Path(image).stem, mount.target, mount.superblock) if image else None

    def check_backup(self, volume: Volume, trees: Sequence[str], beside: Sequence[Volume] = ()) -> Sequence[Finding]:
        return ()

    def estimate_s(self, volume: Volume) -> float:
        return 0.0

    def foreign(self, volume: Volume, trees: Sequence[str]) -> Sequence[str]:
        return ()

    def place_effect(self, volume: Volume, session: str) -> Nothing:
        return Nothing("place")

    def snapshot_effect(self, volume: Volume, session: str) -> Nothing:
        return Nothing(volume.name)

    @contextmanager
    def open(self, take: Take, session: str) -> Iterator[Any]:
        """The second volume is copied long after the first one."""
        with open(take.volume.id, "rb") as image, open(f"{take.volume.id}.copy", "wb") as copy:

            def commit() -> None:
                time.sleep(0.3 if take.volume.name == "second" else 0)
                fcntl.ioctl(copy, _FICLONE, image.fileno())

            yield commit

    def copy(self, volume: Volume, session: str, facts: Facts) -> ShadowCopy:
        return ShadowCopy(volume, f"{volume.id}.copy", facts)


class PairWriter:
    """Speaks for the process that writes pairs."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def processes(self, component: Component) -> frozenset[int]:
        return frozenset({self.pid})

    def prepare(self, component: Component) -> Facts:
        return {}

    def freeze(self, component: Component) -> None:
        pass

    def thaw(self, component: Component) -> None:
        pass


@dataclass
class Scene:
    """An application that writes pairs to two filesystems, each in an image of its own."""

    folder: Path
    run_dir: str
    crowd: Crowd
    writer: PairWriter
    component: Component
    provider: ImageProvider

    def plan(self, wanted: Hold | None = None, **more: object) -> Plan:
        component = replace(self.component, **more)  # type: ignore[arg-type]
        grounds = survey.grounds(
            [component], cast("Any", {"pairs": self.writer}), cast("Any", {"image": self.provider}), str(self.folder)
        )
        return make_plan(grounds, PlanOptions(hold=wanted))

    def take(self, plan: Plan) -> None:
        journal = Journal(str(self.folder / "journal.sqlite"), EffectKinds([Nothing]))
        journal.begin("s1", "backup", "1:1:1")

        def arm(session: str, cgroups: Any, keepers: Any, filesystems: Any, limits: Any) -> Guard:
            return Guard.arm(
                session, cgroups, freeze_s=20, hold_s=10, run_dir=self.run_dir, keepers=keepers, filesystems=filesystems
            )

        parts = Parts(
            cast("Any", {"pairs": self.writer}), cast("Any", {"image": self.provider}), journal, SYSTEM_CLOCK,
            lambda session, pids: (self.crowd.cgroup, ()), arm,
        )  # fmt: skip
        anyio.run(lambda: take(plan, "s1", parts, Story(SYSTEM_CLOCK)))

    def copied(self) -> list[int]:
        """The last number in each copy."""
        found = []
        with ExitStack() as stack:
            for number, volume in enumerate(("first", "second")):
                place = self.folder / f"copy{number}"
                place.mkdir(exist_ok=True)
                image = str(self.folder / "disk" / f"{volume}.image.copy")
                subprocess.run(["mount", "-o", "loop", image, str(place)], check=True)
                stack.callback(subprocess.run, ["umount", str(place)], check=True)
                file = place / "number"
                found.append(struct.unpack("q", file.read_bytes())[0] if file.exists() else 0)
        return found


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with ExitStack() as stack:
        folder, run_dir = stack.enter_context(new_folder()), stack.enter_context(new_folder())
        outer = stack.enter_context(mounted("xfs", folder, "outer"))
        (tmp_path / "disk").symlink_to(outer)
        places = [stack.enter_context(mounted("ext4", outer, each)) for each in ("first", "second")]
        crowd = stack.enter_context(new_crowd(0))
        child = crowd.add(PAIRS, *(str(place / "number") for place in places))
        assert eventually(lambda: all((place / "number").exists() for place in places))
        files = tuple(FileSet(FileRole.DATA, str(place)) for place in places)
        component = Component(
            ComponentRef("pairs", "one"), "Pairs", running=True, main_pid=child.pid, files=files,
            survives_power_cut=True,
        )  # fmt: skip
        yield Scene(tmp_path, str(run_dir), crowd, PairWriter(child.pid), component, ImageProvider())
        release_leftovers(str(run_dir))


def check_one_moment(scene: Scene, plan: Plan) -> None:
    assert plan.refusals == ()
    scene.take(plan)
    first, second = scene.copied()
    assert 0 < second <= first <= second + 1, f"not one moment: {first}, {second}"


def test_filesystems_are_frozen_for_a_provider_below_them(scene: Scene) -> None:
    plan = scene.plan()
    assert plan.hold is Hold.FILESYSTEM_FREEZE
    assert {each.mount for each in plan.filesystems} == {each.path for each in scene.component.files}
    check_one_moment(scene, plan)


def test_copies_without_the_freeze_would_be_caught(scene: Scene) -> None:
    with pytest.raises(AssertionError, match="not one moment"):
        check_one_moment(scene, replace(scene.plan(), filesystems=()))


def test_processes_are_frozen_and_what_they_wrote_is_written_out(scene: Scene) -> None:
    plan = scene.plan(survives_power_cut=False)
    assert plan.hold is Hold.PROCESS_FREEZE
    check_one_moment(scene, plan)


def test_frozen_processes_alone_would_be_caught(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """What they wrote is in the kernel's memory, and in no copy."""
    monkeypatch.setattr(events, "open_flushes", lambda *_: [])
    with pytest.raises(AssertionError, match="not one moment"):
        check_one_moment(scene, scene.plan(survives_power_cut=False))


def test_a_stranger_who_thaws_during_the_copies_costs_the_set(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Path(scene.component.files[0].path)
    opened = ImageProvider.open

    @contextmanager
    def disturbed(self: ImageProvider, take: Take, session: str) -> Iterator[Any]:
        with opened(self, take, session) as commit:
            yield lambda: (thaw(place), commit())

    monkeypatch.setattr(ImageProvider, "open", disturbed)
    with pytest.raises(DeadlineError):
        scene.take(scene.plan())
    assert os.listdir(scene.run_dir) == []


def test_what_carries_our_own_state_is_not_frozen(scene: Scene) -> None:
    """The state lies in an image on one of the filesystems."""
    first = Path(scene.component.files[0].path)
    with mounted("ext4", first, "state") as state:
        scene.folder = state
        plan = scene.plan(wanted=Hold.FILESYSTEM_FREEZE)
        assert str(first) not in {each.mount for each in plan.filesystems}
        (refusal,) = plan.refusals
        assert f"{first} carries Slackwater's own state" in refusal.sentence
        assert scene.plan().hold is Hold.PROCESS_FREEZE
