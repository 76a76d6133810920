# SPDX-License-Identifier: Apache-2.0
"""Effects of `reflink` and `plain` in a process that is killed in the middle of them: another one puts all back."""

import json
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from slackwater.demo.lab import Lab
from slackwater.journal.effects import Effect, fields_of
from slackwater.providers._copying import contents
from tests.platform.btrfs_support import OWNER, steps
from tests.platform.reflink_support import Ground, ground_on, stored, undo
from tests.seeds import seed

pytestmark = [pytest.mark.root]
FILES = 60
TRIES = 5
SEED = seed()
VICTIM = """
import json, sys, time
from contextlib import ExitStack
from slackwater.journal.effects import EffectKinds
from slackwater.model.storage import Take
from slackwater.hosts.plugins import load_providers
provider = load_providers(sys.argv[2])[0][sys.argv[5]]
effects = [EffectKinds(provider.effects).load(kind, fields) for kind, fields in json.loads(sys.argv[1])]
print("ready", flush=True)
for effect in effects:
    if effect.kind.endswith(".snapshot"):
        with provider.open(Take(provider.volume_of(sys.argv[3])), sys.argv[4]) as commit:
            commit()
    effect.make()
print("done", flush=True)
time.sleep(60)
"""


@pytest.fixture(params=["xfs", "ext4"])
def ground(request: pytest.FixtureRequest) -> Iterator[Ground]:
    with Lab() as lab:
        yield ground_on(lab, request.param)


def full(ground: Ground, name: str) -> str:
    path = ground.directory(name)
    for number in range(FILES):
        Path(path, f"f{number}").write_bytes(bytes([number]) * 65536)
    return path


def tree(path: str) -> set[str]:
    return {str(each) for each in Path(path).rglob("*")}


def killed(
    effects: list[Effect], path: str, session: str, delay_s: float, begun: Callable[[], bool] = lambda: True
) -> None:
    """Make effects in another process and kill it a moment after it has begun, by what is seen."""
    fields = json.dumps([(each.kind, fields_of(each)) for each in effects])
    words = [sys.executable, "-c", VICTIM, fields, OWNER, path, session, effects[0].kind.partition(".")[0]]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(delay_s)
        while not begun() and process.poll() is None:
            time.sleep(0.001)
        process.kill()


def strike(ground: Ground, effects: list[Effect], path: str, session: str) -> None:
    """At moments drawn anew; whatever was made by then is gone after an undo, and nothing else is."""
    rng, before = random.Random(SEED), tree(ground.path)
    seen = set()
    for number in range(TRIES):
        last = number == TRIES - 1
        begun = (lambda: tree(ground.path) != before) if last else (lambda: True)
        killed(effects, path, session, 0.0 if last else rng.random() * 0.08 * number, begun)
        seen.add(len(tree(ground.path) - before))
        for _ in range(2):
            undo(effects)
        assert tree(ground.path) == before, f"seed {SEED}, {number}"
    assert len(seen) > 1, "it was never struck after it had begun"


def test_a_snapshot(ground: Ground) -> None:
    path = full(ground, "app")
    volume = ground.volume(path)
    ground.backup([volume], "s0")  # the directory of all sessions stays
    strike(
        ground, [ground.provider.place_effect(volume, "s1"), ground.provider.snapshot_effect(volume, "s1")], path, "s1"
    )


def test_a_full_copy_that_is_brought_back(ground: Ground) -> None:
    path, origin = full(ground, "app"), full(ground, "kept")
    volume = ground.volume(path)
    ground.backup([volume], "s0")
    fill = ground.provider.fill_effect(volume, "s1", origin, contents(origin).digest)
    strike(ground, [ground.provider.place_effect(volume, "s1"), fill], path, "s1")


def test_a_switch(ground: Ground) -> None:
    path = full(ground, "app")
    copies = ground.backup([ground.volume(path)], "s0")
    strike(ground, steps(ground.provider.switch(copies, [ground.volume(path)], "s1")), path, "s1")
    assert len(list(Path(path).iterdir())) == FILES


def test_a_deletion_goes_on(ground: Ground) -> None:
    path = full(ground, "app")
    volume = ground.volume(path)
    rng = random.Random(SEED)
    ground.backup([volume], "s0")
    before = tree(ground.path)
    for number in range(TRIES):
        copies = ground.backup([volume], "s1")
        delete = ground.provider.delete_effect(copies, "s1")
        killed([delete], path, "s1", rng.random() * 0.02 * number)
        for _ in range(2):
            stored(delete).make()
        assert tree(ground.path) == before, f"seed {SEED}, {number}"


def test_what_is_not_undone_is_seen(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    path = full(ground, "app")
    volume = ground.volume(path)
    ground.backup([volume], "s0")
    monkeypatch.setitem(globals(), "undo", lambda effects: None)
    with pytest.raises(AssertionError, match="seed"):
        strike(ground, [ground.provider.place_effect(volume, "s1")], path, "s1")
