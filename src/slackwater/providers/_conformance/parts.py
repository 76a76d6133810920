# SPDX-License-Identifier: Apache-2.0
"""Several volumes, and volumes that are copied file by file."""

import os
import time

from slackwater.model.storage import Take
from slackwater.providers._conformance.ground import Ground, write
from slackwater.providers._conformance.pictures import picture
from slackwater.providers._conformance.promises import promise
from slackwater.system import command

_SETTLE_S = 0.05


@promise
def several_volumes_are_barred(ground: Ground) -> None:
    """While some volumes are exchanged and others are not, nobody but root can enter any of them."""
    for path in ground.paths:
        write(path, "rows", "one")
        for each in (path, os.path.join(path, "rows")):
            os.chmod(each, 0o755)  # noqa: S103
    copies = ground.backup()
    switch = ground.switch(copies, ground.session())
    for effect in (*switch.clones, *switch.bar):
        ground.make(effect)
    for effect in switch.exchange:
        ground.make(effect)
        inside = [path for path in ground.paths if _lets_in(path)]
        ground.check(not inside, f"after {effect.describe()}: anybody can read in {inside}")
    for effect in (*switch.unbar, *switch.seal):
        ground.make(effect)
    ground.check(all(map(_lets_in, ground.paths)), "the bar was not lifted")


@promise
def files_of_several_stages(ground: Ground) -> None:
    """A volume can be taken in two parts, with files left out and files taken last, into one copy."""
    path = ground.paths[0]
    for name in ("data", "log"):
        os.mkdir(os.path.join(path, name))
        write(path, f"{name}/file", name)
    for name in ("control", "never"):
        write(path, f"data/{name}", name)
    volume = ground.volume()
    inside = [os.path.join(path, each) for each in ("log", "data/never", "data/control")]
    stages = [[Take(volume, (path,), tuple(inside[:2]), (inside[2],))], [Take(volume, (inside[0],))]]
    wanted = {name: each for name, each in picture(path).items() if name != "data/never"}
    (copy,) = ground.take(stages, ground.session())
    with ground.provider.reach(copy) as root:
        ground.same(wanted, root, "the copy")


@promise
def files_that_changed_are_told(ground: Ground) -> None:
    """`changed` names what changed from the first copy to the last, and is empty when all copies show one moment."""
    path = ground.paths[0]
    for name in ("data", "log"):
        os.mkdir(os.path.join(path, name))
        write(path, f"{name}/file", name)
    time.sleep(_SETTLE_S)
    volume = ground.volume()
    log = os.path.join(path, "log")
    stages = [[Take(volume, (path,), (log,))], [Take(volume, (log,))]]
    (still,) = ground.take(stages, ground.session())
    ground.check(not still.facts.get("changed"), f"nothing changed, and it says {still.facts.get('changed')}")
    counted = iter(range(2))

    def second_time() -> None:
        if next(counted) == 1:
            write(path, "data/file", "atad")

    (changed,) = ground.take(stages, ground.session(), second_time)
    told = str(changed.facts.get("changed", ""))
    ground.check("data/file" in told, f"data/file changed between the two parts, and it says {told!r}")


def _lets_in(path: str) -> bool:
    """Whether a user without rights can read the file `rows` in a directory."""
    nobody = 65534 if os.geteuid() == 0 else None
    return command.run("cat", os.path.join(path, "rows"), check=False, user=nobody, group=nobody).status == 0
