# SPDX-License-Identifier: Apache-2.0
"""A machine of its own sees the lab's disks, and loses what it had not written when its power is cut."""

import os
import time

import pytest

from slackwater.demo.lab import Lab
from slackwater.system.command import run
from tests.platform.machine import boot

pytestmark = [pytest.mark.root, pytest.mark.uml]


@pytest.fixture
def image(lab: Lab) -> str:
    disk = lab.btrfs(size_bytes=512 << 20)
    disk.subvolume("data")
    disk.unmount(disk.path)
    run("losetup", "--detach", disk.device)
    return disk.image


def test_it_works_on_a_disk_and_leaves_the_host_alone(lab: Lab, image: str) -> None:
    script = """set -eu
        mkdir /there; mount -o subvol=data /dev/ubda /there
        touch /there/guest /etc/guest
        uname -m; id -un; ls /there
        umount /there
        exit 7"""
    status, said = boot(lab, script, image).wait()
    assert (status, said.split()) == (7, [os.uname().machine, "root", "guest"])
    assert not os.path.exists("/etc/guest")
    again, found = boot(lab, "mount /dev/ubda /srv && ls /srv/data", image).wait()
    assert (again, found.split()) == (0, ["guest"])


def test_a_power_cut_loses_what_was_not_written(lab: Lab, image: str) -> None:
    script = """mount -o subvol=data,commit=300 /dev/ubda /srv
        echo safe > /srv/safe; sync /srv/safe
        echo lost > /srv/lost
        touch {share}/ready; sleep 60"""
    machine = boot(lab, script.replace("{share}", "$(dirname $0)"), image)
    deadline = time.monotonic() + 200
    while not os.path.exists(f"{machine.share}/ready") and time.monotonic() < deadline:
        time.sleep(0.05)
    machine.cut()
    assert machine.wait()[0] == 255
    status, said = boot(lab, "mount /dev/ubda /srv && ls /srv/data", image).wait()
    assert (status, said.split()) == (0, ["safe"])
