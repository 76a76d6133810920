# SPDX-License-Identifier: Apache-2.0
"""Logging in: as root on an untouched cluster, by the least role, and every way not to get in."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from slackwater.errors import RightsError, SlackwaterError
from slackwater.model.component import Component, Credentials, Handling
from slackwater.writers._postgresql.confirm import door_of
from slackwater.writers._postgresql.connect import connected
from slackwater.writers._postgresql.find import postmaster_on
from slackwater.writers.postgresql import PostgresqlWriter
from tests.platform.postgresql_support import Cluster, codes, identify, new_cluster

pytestmark = [pytest.mark.root, pytest.mark.postgresql]

PASSWORD = "correct horse"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """The owner comes in by peer, the roles of these tests by password."""
    with new_cluster() as cluster:
        cluster.initdb()
        hba = cluster.data / "pg_hba.conf"
        hba.write_text("local all postgres peer\nlocal all barred reject\nlocal all all scram-sha-256\n")
        cluster.start()
        for name in ("least", "nothing", "barred"):
            cluster.sql(f"create role {name} login password '{PASSWORD}'")
        cluster.sql("grant pg_monitor, pg_checkpoint to least")
        yield cluster


@pytest.fixture
def passwords(tmp_path: Path) -> Path:
    path = tmp_path / "passwords"
    path.write_text(f"*:*:*:*:{PASSWORD}\n")
    path.chmod(0o600)
    return path


def login(cluster: Cluster, **how: str) -> tuple[PostgresqlWriter, Component]:
    writer = PostgresqlWriter({str(cluster.data): Handling(Credentials(**how))})
    return writer, identify(writer, cluster)


def test_the_documented_role_is_enough_for_all_but_being_the_owner(cluster: Cluster, passwords: Path) -> None:
    writer, component = login(cluster, user="least", password_file=str(passwords))
    assert codes(component) == {"no-log-bridge"}  # a note: that needs two rights more
    expected = writer.prepare(component)
    assert expected["timeline"] == 1
    assert writer.confirm(component, expected, timeout_s=5)["pid"] == cluster.pid
    assert PASSWORD not in repr(component)


def test_a_credential_of_systemd_and_a_service_file(
    cluster: Cluster, passwords: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(passwords.parent))
    assert codes(login(cluster, user="least", password_file="passwords")[1]) <= {"no-log-bridge"}
    services = passwords.parent / "pg_service.conf"
    # Where the server is comes from the server, whatever the file says.
    services.write_text(f"[orders]\nuser=least\npassword={PASSWORD}\nhost=/nowhere\nport=1\n")
    monkeypatch.setenv("PGSERVICEFILE", str(services))
    assert codes(login(cluster, service="orders")[1]) <= {"no-log-bridge"}


def test_every_refusal_names_its_reason_and_no_secret(
    cluster: Cluster, passwords: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    wrong = passwords.with_name("wrong")
    wrong.write_text("*:*:*:*:battery staple\n")
    wrong.chmod(0o600)
    for how, code in (
        ({"user": "least", "password_file": str(wrong)}, "wrong-password"),
        ({"user": "least", "password_file": "/nowhere"}, "no-password-file"),
        ({"user": "least", "password_file": "unnamed"}, "no-password-file"),
        ({"user": "nothing", "password_file": str(passwords)}, "no-right"),
        ({"user": "barred", "password_file": str(passwords)}, "not-admitted"),
        ({"user": "postgres"}, "not-admitted"),
    ):
        _, component = login(cluster, **how)
        (refused,) = component.refusals
        assert refused.code == code
        assert refused.hint
        assert PASSWORD not in repr(component)
        assert "staple" not in repr(component)
        assert component.running
        assert component.files


def test_no_password_where_one_is_needed(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/nonexistent")
    assert codes(login(cluster, user="least")[1]) == {"no-password"}


def test_a_role_that_may_see_but_not_make_a_checkpoint(cluster: Cluster, passwords: Path) -> None:
    cluster.sql("revoke pg_checkpoint from least")
    try:
        writer, component = login(cluster, user="least", password_file=str(passwords))
        assert codes(component) <= {"no-log-bridge"}
        with pytest.raises(RightsError) as caught:
            writer.prepare(component)
        assert caught.value.reason == "no-right"
        assert caught.value.exit_status == 6
    finally:
        cluster.sql("grant pg_checkpoint to least")


def test_a_database_that_may_not_be_looked_into_is_named(cluster: Cluster, passwords: Path) -> None:
    cluster.sql("create database secret")
    cluster.sql("revoke connect on database secret from public")
    try:
        _, component = login(cluster, user="least", password_file=str(passwords))
        (found,) = [each for each in component.findings if each.code != "no-log-bridge"]
        assert found.code == "unlogged-unknown"
        assert "secret" in found.sentence
    finally:
        cluster.sql("drop database secret")


def test_servers_that_do_not_answer_cost_five_seconds_together(cluster: Cluster) -> None:
    with new_cluster() as second:
        second.initdb()
        second.start()
        stopped = (cluster.pid, second.pid)
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        try:
            began = time.monotonic()
            found = {each.ref.name: each for each in PostgresqlWriter().identify()}
            took_s = time.monotonic() - began
        finally:
            for pid in stopped:
                os.kill(pid, signal.SIGCONT)
        for each in (cluster, second):
            assert codes(found[str(each.data)]) == {"not-answering"}
        assert took_s < 9.5  # and not ten


def ask_a_frozen_backend(connection: "psycopg.Connection[Any]") -> None:
    backend = connection.info.backend_pid
    os.kill(backend, signal.SIGSTOP)
    try:
        connection.execute("select 1")
    finally:
        os.kill(backend, signal.SIGCONT)


def test_one_that_stops_answering_in_the_middle_is_cut_off(cluster: Cluster) -> None:
    server = postmaster_on(str(cluster.data))
    assert server is not None
    began = time.monotonic()
    with (
        pytest.raises(SlackwaterError, match="did not answer"),
        connected(door_of(server), Credentials(), deadline_s=2) as connection,
    ):
        ask_a_frozen_backend(connection)
    assert 1.5 < time.monotonic() - began < 4


def test_without_root_it_is_listed_and_refused(cluster: Cluster) -> None:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            found = [f"{each.ref.name} {[f.code for f in each.refusals]}" for each in PostgresqlWriter().identify()]
            os.write(writer, "\n".join(found).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader) as f:
        said = f.read()
    os.waitpid(child, 0)
    assert f"{cluster.data} ['permission']" in said.splitlines()
