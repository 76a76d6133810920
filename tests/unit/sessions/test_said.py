# SPDX-License-Identifier: Apache-2.0
"""Whose word counts where several specifications say something of one component."""

from typing import Any

from slackwater.config.specification import ComponentEntry, Specification
from slackwater.model.component import Credentials, Handling
from slackwater.sessions.cell import said_of


def specification(name: str, **how: Any) -> Specification:
    return Specification(name=name, component=(ComponentEntry(writer="files", instance="/srv/up", **how),))


LOCKS = specification("locks", lock="on", unlock="off")
LOGS_IN = specification("login", user="backup")
SILENT = specification("silent")


def test_who_says_nothing_undoes_nothing() -> None:
    assert said_of([LOCKS, SILENT], "") == {"files": {"/srv/up": Handling(lock="on", unlock="off")}}
    assert said_of([SILENT], "") == {}


def test_a_session_holds_as_its_own_specification_says_and_logs_in_as_any_does() -> None:
    assert said_of([LOCKS, SILENT], "silent") == {"files": {"/srv/up": Handling()}}
    assert said_of([LOCKS, LOGS_IN], "locks")["files"]["/srv/up"] == Handling(
        Credentials(user="backup"), lock="on", unlock="off"
    )
