# SPDX-License-Identifier: Apache-2.0
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slackwater.config.secrets import (
    REMOVED,
    in_environment,
    in_password_file,
    in_service_file,
    password_files_in,
    redact,
)


@pytest.mark.parametrize(
    "text",
    [
        "password = {}",
        'password = "{}"',
        "PGPASSWORD={}",
        "postgresql://me:{}@host/db?sslmode=require",
        "host=x user=y password='{}' dbname=z",
        '{{"api_key": "{}"}}',
        "primary_conninfo = 'host=x password={}'",
        "AWS_SECRET_ACCESS_KEY: {}",
        "get --password {} %f",
        "get --api-token {} %f",
        '["get", "--password", "{}"]',
        "curl -u me:{} https://x",
        '["curl", "--user", "me:{}"]',
        "Authorization: Basic {}",
        r'{{"said": "\"Bearer {}\""}}',
        r'{{"said": "connection \"password={} host=x\" failed"}}',
    ],
)
def test_what_is_called_a_secret_is_taken_out(text: str) -> None:
    said = redact(text.format("hunter2"))
    assert "hunter2" not in said
    assert REMOVED in said


@pytest.mark.parametrize(
    "text",
    [
        'password_file = "/etc/slackwater/orders.pgpass"',
        '{"code": "wrong-password", "sentence": "The password for the server is wrong."}',
        "get --password-file /etc/x --token-file=/etc/y",
        '["runuser", "-u", "postgres", "--", "psql"]',
        "systemctl --user start x",
        "The password file /etc/x is not there or cannot be read.",
        "36 25 0:32 / /srv rw shared:1 - btrfs /dev/sda rw,space_cache=v2,subvol=/pg",
    ],
)
def test_what_only_speaks_of_secrets_stays(text: str) -> None:
    assert redact(text) == text


def test_json_stays_json() -> None:
    plain = {"password": None, "token": True, "credentials": {"a": [1]}, "secret": "x y", "pwd": 'a"b'}
    said = json.loads(redact(json.dumps(plain, indent=1)))
    assert said["credentials"] == {"a": [1]}
    assert (said["secret"], said["pwd"]) == (REMOVED, REMOVED)


@given(st.text(min_size=4), st.text(), st.text())
def test_a_known_secret_never_stays(secret: str, before: str, after: str) -> None:
    said = redact(before + secret + after, [secret])
    assert secret not in said.replace(REMOVED, "") or secret in REMOVED


def test_known_secrets_are_found_where_they_lie(tmp_path: Path) -> None:
    pgpass = tmp_path / "pgpass"
    pgpass.write_text("# mine\n*:*:*:me:with\\:colon\nhost:5432:db:you:two:three\n")
    assert in_password_file(str(pgpass)) == {"with\\:colon", "with:colon", "two:three"}
    alone = tmp_path / "credential"
    alone.write_text("all-of-it\n")
    assert in_password_file(str(alone)) == {"all-of-it"}
    assert in_password_file(str(tmp_path / "none")) == set()
    service = tmp_path / "service"
    service.write_text("[orders]\nhost=x\npassword=in-the-service\n")
    assert in_service_file(str(service)) == {"in-the-service"}
    environment = {"PGPASSWORD": "one", "PGPASSFILE": "/etc/pgpass", "URL": "mysql://u:two@h/d", "HOME": "/root"}
    assert in_environment(environment) == {"one", "two"}
    assert password_files_in('[[component]]\npassword_file = "/a b"\n') == {"/a b"}
