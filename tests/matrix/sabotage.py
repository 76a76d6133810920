# SPDX-License-Identifier: Apache-2.0
"""Twins of Slackwater with one part that does not do its work: applied in a spawner, never in the shipped code."""

import os
import tempfile
from typing import Any


def apply(name: str) -> None:
    """Sabotage what this process, and so every command that is forked from it, will do."""
    {"": _nothing, "reconcile": _idle_reconcile, "guard": _deaf_guard, "lock": _idle_lock}[name]()


def _nothing() -> None:
    """The real one."""


def _idle_reconcile() -> None:
    """A reconcile that looks at no session that was cut off."""
    from slackwater.hosts.local import LocalHost

    async def reconcile(*_: Any) -> tuple[()]:
        return ()

    LocalHost.reconcile = reconcile  # type: ignore[assignment, method-assign]


def _deaf_guard() -> None:
    """A guard that freezes and never thaws, and an understudy that does nothing about it."""
    from slackwater.guard import client, third

    with open(client.PROGRAM, encoding="utf-8") as f:
        text = f.read()
    order = "os.pwrite(self.switch, value, 0)"
    assert text.count(order) == 1
    folder = os.path.join(tempfile.mkdtemp(prefix="sw-twin-", dir=os.environ["SLACKWATER_RUN_DIR"]), "guard")
    os.mkdir(folder)
    client.PROGRAM = f"{folder}/guard.py"
    with open(client.PROGRAM, "w", encoding="utf-8") as f:
        f.write(text.replace(order, f'value == b"0" or {order}'))
    third.PROGRAM = f"{folder}/understudy.py"
    with open(third.PROGRAM, "w", encoding="utf-8") as f:
        f.write('print("ready")')


def _idle_lock() -> None:
    """Keepers that say that they hold the lock, and never took it."""
    from slackwater.guard.keepers import RunningKeeper

    def order(_: RunningKeeper, word: str, timeout_s: float) -> tuple[str, str]:
        return {"hold": "held", "release": "released"}[word], ""

    RunningKeeper.order = order  # type: ignore[assignment, method-assign]
