# SPDX-License-Identifier: Apache-2.0
"""Laboratories for tests on the real kernel and real servers, each for one test or for a whole module."""

import functools
import os
import shutil
from collections.abc import Iterator

import pytest

from slackwater.demo.cluster import DebianCluster
from slackwater.demo.disk import BtrfsDisk
from slackwater.demo.lab import Lab
from tests.platform.machine import has_more_registers


@functools.cache
def lacking(kind: str) -> str:
    """Why tests of a kind cannot run here; empty when they can."""
    if kind == "root":
        return _without_root()
    if kind == "postgresql":
        return "" if shutil.which("pg_createcluster") else "PostgreSQL is not installed (make system)"
    if has_more_registers() and not shutil.which("cc"):
        return "no C compiler is installed, which user-mode Linux needs on this processor (make system)"
    return "" if shutil.which("linux.uml") else "user-mode Linux is not installed (make system)"


def _without_root() -> str:
    if os.geteuid() != 0:
        return "needs root"
    for program, package in (("mkfs.btrfs", "btrfs-progs"), ("mkfs.xfs", "xfsprogs"), ("setfacl", "acl")):
        if shutil.which(program) is None:
            return f"{package} is not installed (make system)"
    if not os.path.exists("/dev/loop-control"):
        return "this machine has no loop devices"
    with open("/proc/filesystems", encoding="utf-8") as f:
        known = f.read()
        if not all(f"\t{each}\n" in known for each in ("btrfs", "xfs")) and not os.path.isdir("/lib/modules"):
            return "this kernel has no Btrfs or no XFS"
    return ""


def pytest_runtest_setup(item: pytest.Item) -> None:
    for kind in ("root", "postgresql", "uml"):
        if item.get_closest_marker(kind) and (reason := lacking(kind)):
            pytest.skip(reason)


def _lab() -> Iterator[Lab]:
    with Lab() as lab:
        yield lab


def _cluster(lab: Lab, disk: BtrfsDisk) -> DebianCluster:
    cluster = lab.cluster(disk.subvolume("pg"))
    cluster.start()
    return cluster


@pytest.fixture
def lab() -> Iterator[Lab]:
    """A scratch world, gone after the test."""
    yield from _lab()


@pytest.fixture
def disk(lab: Lab) -> BtrfsDisk:
    """A Btrfs filesystem in it."""
    return lab.btrfs()


@pytest.fixture
def cluster(lab: Lab, disk: BtrfsDisk) -> DebianCluster:
    """A running Debian cluster whose data directory is the subvolume `pg` of `disk`."""
    return _cluster(lab, disk)


@pytest.fixture(scope="module")
def module_lab() -> Iterator[Lab]:
    """A scratch world for all tests of a module."""
    yield from _lab()


@pytest.fixture(scope="module")
def module_disk(module_lab: Lab) -> BtrfsDisk:
    """A Btrfs filesystem for all tests of a module."""
    return module_lab.btrfs()


@pytest.fixture(scope="module")
def module_cluster(module_lab: Lab, module_disk: BtrfsDisk) -> DebianCluster:
    """A running Debian cluster for all tests of a module: leave it running, and its data as they were."""
    return _cluster(module_lab, module_disk)
