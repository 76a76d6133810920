# SPDX-License-Identifier: Apache-2.0
import os
import re
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slackwater.config import specification
from slackwater.config.around import HookOptions
from slackwater.config.specification import (
    BackupOptions,
    ComponentEntry,
    RecoveryOptions,
    ReplicaOptions,
    Specification,
    VerifyOptions,
)
from slackwater.config.tables import check
from slackwater.config.template import text_of, write_new
from slackwater.errors import NotFoundError, SlackwaterError, UsageError
from slackwater.model.component import ComponentRef, Credentials, Handling
from slackwater.model.hooks import Hook, Hooks
from slackwater.model.plan import Limits, LogKeeping
from slackwater.model.quantities import Bytes, Share
from slackwater.model.retention import Keep
from slackwater.model.service import Service

REF = ComponentRef("postgresql", "15/main")

FULL = """
name = "orders"
[[component]]
writer = "postgresql"
instance = "15/main"
user = "backup"
[[component]]
writer = "postgresql"
instance = "/srv/pg:1"
password_file = "/etc/slackwater/pgpass"
[replica]
keep = 3
min_redundancy = 2
min_free = "20GiB"
[options]
configuration_check = "non-strict"
freeze_timeout = "5s"
hold_timeout = "500ms"
on_writer_failure = "crash"
"""
MINIMAL = '[[component]]\nwriter = "postgresql"\ninstance = "15/main"\n'
SERVICE = 'name = "orders"\n' + MINIMAL + "[[recovery.service]]\n"
HOOKS = 'name = "orders"\n' + MINIMAL + "[hooks]\n"
REPLICA = 'name = "orders"\n' + MINIMAL + "[replica]\n"


def put(folder: Path, name: str, text: str) -> str:
    path = folder / f"{name}.toml"
    path.write_text(text)
    return str(path)


def refusal(tmp_path: Path, text: str) -> str:
    with pytest.raises(UsageError) as caught:
        specification.load(put(tmp_path, "orders", text))
    assert caught.value.sentence.startswith(str(tmp_path / "orders.toml"))
    assert caught.value.exit_status == 2
    assert caught.value.data == "Nothing was changed."
    assert caught.value.hint
    return caught.value.sentence


def test_everything_that_can_be_said_is_read(tmp_path: Path) -> None:
    spec = specification.load(put(tmp_path, "orders", FULL))
    second = ComponentRef("postgresql", "/srv/pg:1")
    assert spec.components == (REF, second)
    assert spec.handling == {
        REF: Handling(Credentials(user="backup")),
        second: Handling(Credentials(password_file="/etc/slackwater/pgpass")),
    }
    assert (spec.replica.keep, spec.replica.min_redundancy) == (Keep(last=3), 2)
    assert (spec.replica.type, spec.replica.min_free) == ("snapshot", Bytes(20 << 30))
    assert spec.plan_options.limits == Limits(freeze_s=5, hold_s=0.5)
    assert (spec.options.configuration_check, spec.options.on_writer_failure) == ("non-strict", "crash")


@pytest.mark.parametrize(
    ("written", "keep", "said"),
    [
        ("6", Keep(last=6), "6"),
        ('"24h 14d 8w 12m"', Keep(hourly=24, daily=14, weekly=8, monthly=12), None),
        ('" 7d  5y "', Keep(daily=7, yearly=5), "7 daily, 5 yearly"),
        ("{ last = 3, weekly = 0, monthly = 12 }", Keep(last=3, monthly=12), "3 last, 12 monthly"),
    ],
)
def test_what_is_kept_is_written_in_three_forms(tmp_path: Path, written: str, keep: Keep, said: str | None) -> None:
    spec = specification.load(put(tmp_path, "orders", f"{REPLICA}keep = {written}"))
    assert spec.replica.keep == keep
    assert said is None or str(keep) == said


def test_services_keep_their_order(tmp_path: Path) -> None:
    text = 'name = "orders"\n' + MINIMAL + "[recovery]\nlogs = 'none'\n"
    text += "[[recovery.service]]\ncontainer = 'shop'\ntimeout = '5m'\n"
    text += "[[recovery.service]]\nstop = ['/x', 'a b']\nstart = ['/y']\n"
    assert specification.load(put(tmp_path, "orders", text)).recovery.services == (
        Service(container="shop", timeout_s=300.0),
        Service(stop=("/x", "a b"), start=("/y",)),
    )


def test_hooks_are_written_short_or_with_a_deadline(tmp_path: Path) -> None:
    text = HOOKS + "pre_freeze = ['/x', 'a b']\npost_start = { command = ['/y'], timeout = '2m' }"
    hooks = specification.load(put(tmp_path, "orders", text)).plan_options.hooks
    assert hooks == Hooks(pre_freeze=Hook(("/x", "a b"), 60.0), post_start=Hook(("/y",), 120.0))
    assert specification.load(put(tmp_path, "orders", REPLICA)).plan_options.hooks == Hooks()


def test_the_defaults_are_those_of_the_design(tmp_path: Path) -> None:
    spec = specification.load(put(tmp_path, "orders", 'name = "orders"\n' + MINIMAL))
    assert (spec.replica.keep, spec.replica.min_redundancy) == (Keep(last=6), 1)
    assert (spec.replica.type, spec.replica.min_free) == ("snapshot", Share(10))
    assert spec.plan_options.limits == Limits(freeze_s=60, hold_s=10)
    assert (spec.options.configuration_check, spec.options.on_writer_failure) == ("strict", "fail")
    assert (spec.options.retries, spec.options.retry_after) == (0, 10.0)
    assert spec.handling == {REF: Handling()}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('name = "orders"\nkeep = 3\n' + MINIMAL, "unknown key keep; did you mean [replica] keep?"),
        ('name = "orders"\n' + MINIMAL + "kep = 3", "unknown key [[component]] 1 kep; did you mean [replica] keep?"),
        ('name = "orders"\n' + MINIMAL + 'usr = "a"', "[[component]] 1 usr; did you mean user? (valid here: writer, "),
        (
            'name = "orders"\n' + MINIMAL + "[replica]\nkeeep = 3",
            "did you mean keep? (valid here: keep, min_redundancy, type, to, verify, min_free)",
        ),
        (
            'name = "orders"\n' + MINIMAL + "[zzz]",
            "unknown key zzz (valid here: name, component, replica, options, hooks, verify, recovery)",
        ),
        (REPLICA + "keep = 0", "[replica] keep: must keep 1 or more"),
        (REPLICA + "keep = -1", "[replica] keep: must keep 1 or more"),
        (REPLICA + 'keep = ""', "[replica] keep: must keep 1 or more"),
        (REPLICA + "keep = {}", "[replica] keep: must keep 1 or more"),
        (REPLICA + 'keep = "6"', '[replica] keep: "6" is no number with a unit: write keep = 6'),
        (REPLICA + 'keep = "24h 3h"', '[replica] keep: "24h 3h" says hourly twice'),
        (REPLICA + 'keep = "5x"', '[replica] keep: "5x" is no number with a unit'),
        (REPLICA + "keep = true", "[replica] keep: is neither a number nor a line nor a table"),
        (REPLICA + "keep = { dayly = 3 }", "[replica] keep: unknown key dayly (valid here: last, hourly, daily"),
        (REPLICA + 'keep = { daily = "3" }', "[replica] keep: daily must be a whole number"),
        (REPLICA + "keep = { daily = -3, weekly = 4 }", "[replica] keep: must keep 1 or more"),
        (REPLICA + "min_redundancy = 0", "[replica] min_redundancy: input should be greater than or equal"),
        ('name = "orders"\n' + MINIMAL + '[replica]\ntype = "full"', 'type = "full" needs to = "/MOUNT/POINT"'),
        ('name = "orders"\n' + MINIMAL + '[replica]\nto = "/mnt"', 'to is for type = "full"'),
        (
            'name = "orders"\n' + MINIMAL + '[replica]\ntype = "x"',
            "[replica] type: input should be 'snapshot' or 'full'",
        ),
        (
            'name = "orders"\n' + MINIMAL + '[replica]\nmin_free = "a lot"',
            '[replica] min_free: "a lot" is not an amount',
        ),
        ('name = "orders"\n' + MINIMAL + "[options]\nfreeze_timeout = 60", 'freeze_timeout: "60" has no unit'),
        ('name = "orders"\n' + MINIMAL + "[options]\nretries = -1", "retries"),
        ('name = "orders"\n' + MINIMAL + '[options]\nretry_after = "2h"', "must be above 0 and at most 1h"),
        ('name = "orders"\n' + MINIMAL + '[options]\nfreeze_timeout = "61s"', "at most 1m; an application is not kept"),
        ('name = "orders"\n' + MINIMAL + '[options]\nhold_timeout = "11s"', "at most 10s"),
        ('name = "orders"\n' + MINIMAL + '[options]\nhold_timeout = "0s"', "must be above 0"),
        ('name = "orders"\n' + MINIMAL + MINIMAL, "postgresql:15/main is named twice"),
        ('name = "orders"', "component is missing"),
        ('name = "orders"\ncomponent = []', "component: must have at least one"),
        ('name = "orders"\ncomponent = [1]', "[[component]] 1: must be a table"),
        (MINIMAL.replace('"15/main"', '""'), "[[component]] 1 instance: must not be empty"),
        (HOOKS + "pre_freeze = 'sync'", "[hooks] pre_freeze: must be a table"),
        (SERVICE + "stop = ['/x']", "[recovery] service 0: stop and start belong together"),
        (SERVICE + "unit = 'a'\ncontainer = 'b'", "and one of them only"),
        (SERVICE + "unit = '-a'", "no name begins with a dash"),
        (SERVICE + "unit = 'web*'", '"*" is in no name of a unit or a container'),
        (SERVICE + "container = '/web'", '"/" is in no name of a unit or a container'),
        (SERVICE + "stop = ['x']\nstart = ['/y']", '[recovery] service 0 stop: "x" must be an absolute path'),
        (SERVICE + "unit = 'a'\n[[recovery.service]]\nunit = 'a'", "[recovery] service: one is named twice"),
        (SERVICE + "unit = 'a'\ntimeout = '2h'", "[recovery] service 0 timeout: must be above 0 and at most 1h"),
        (HOOKS + "pre_freeze = []", "[hooks] pre_freeze command: must have at least one"),
        (HOOKS + "pre_freeze = ['sync']", '[hooks] pre_freeze command: "sync" must be an absolute path'),
        (
            HOOKS + "post_thaw = { command = ['/x'], timeout = '0s' }",
            "post_thaw timeout: must be above 0 and at most 1h",
        ),
        (HOOKS + "post_freeze = ['/x']", "unknown key [hooks] post_freeze; did you mean p"),
        ("name = 3\n" + MINIMAL, "name: must be a text in quotes"),
        ('name = "other"\n' + MINIMAL, 'name is "other", but the file\'s stem is "orders"'),
        ('name = "orders"\nname = "orders"\n', "line 2"),
        ('name = "orders\n', "line 1"),
    ],
)
def test_what_is_wrong_is_said_with_file_and_place(tmp_path: Path, text: str, said: str) -> None:
    assert said in refusal(tmp_path, text)


def test_all_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    said = refusal(tmp_path, 'name = "orders"\n' + MINIMAL + '[replica]\nkeep = 0\n[options]\nhold_timeout = "1h"')
    assert "[replica] keep" in said
    assert "[options] hold_timeout" in said


@pytest.mark.parametrize(
    "text",
    [
        'password = "hunter2"\nname = "orders"\n' + MINIMAL,
        'name = "orders"\n' + MINIMAL + 'password = "hunter2"',
        'name = "orders"\n' + MINIMAL + 'PGPASSWORD = "hunter2"',
        'name = "orders"\n' + MINIMAL + '[options]\nhidden = [{ api_key = "hunter2" }]',
        'name = "orders"\n' + MINIMAL + '[vault]\ntoken = "hunter2"',
    ],
)
def test_a_secret_is_refused_wherever_it_stands_and_never_repeated(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError) as caught:
        specification.load(put(tmp_path, "orders", text))
    assert caught.value.reason == "secret-in-file"
    assert "password_file" in caught.value.hint
    assert "hunter2" not in caught.value.sentence + caught.value.hint


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "orders.toml").write_bytes(b'name = "\xff"')
    with pytest.raises(UsageError, match="is not UTF-8 text"):
        specification.load(str(tmp_path / "orders.toml"))


def test_a_new_specification_has_every_option_and_is_read_back_as_the_defaults(tmp_path: Path) -> None:
    other = ComponentRef("postgresql", "16/other")
    path = write_new(str(tmp_path / "specs.d"), "orders", [REF, other])
    text = Path(path).read_text()
    raw = tomllib.loads(text)
    assert set(raw) == set(Specification.model_fields) - {"hooks"}
    assert [set(each) for each in raw["component"]] == [set(ComponentEntry.model_fields)] * 2
    assert set(raw["replica"]) == set(ReplicaOptions.model_fields)
    assert set(raw["options"]) == set(BackupOptions.model_fields)
    assert set(raw["recovery"]) == set(RecoveryOptions.model_fields) - {"service"}
    assert set(raw["verify"]) == set(VerifyOptions.model_fields)
    options = [line for line in text.splitlines() if " = " in line and not line.startswith("#")]
    assert all(" # " in line and len(line) <= 120 for line in options)
    optional = (len(ComponentEntry.model_fields) - 2) * 2 + len(ReplicaOptions.model_fields)
    tables = (BackupOptions, RecoveryOptions, VerifyOptions)
    assert (
        sum("; default " in line for line in options) == optional + sum(len(each.model_fields) for each in tables) - 1
    )
    spec = specification.load(path)
    assert spec.components == (REF, other)
    assert (spec.replica, spec.options, spec.verify) == (ReplicaOptions(), BackupOptions(), VerifyOptions())
    with_hooks = re.sub(r"^# ([\[a-z_.]+(\]| = ))", r"\1", text, flags=re.MULTILINE)
    assert set(tomllib.loads(with_hooks)["hooks"]) == set(HookOptions.model_fields)
    assert check(Specification, tomllib.loads(with_hooks), "x").hooks.around.pre_stop == Hook(
        ("/etc/slackwater/hooks/pre_stop",), 60.0
    )
    assert check(Specification, tomllib.loads(with_hooks), "x").recovery.services == (Service("shop.service"),)


@given(st.text(st.characters(codec="utf-8"), min_size=1))
def test_any_component_name_survives_the_file(name: str) -> None:
    ref = ComponentRef("w", name)
    spec = check(Specification, tomllib.loads(text_of("orders", [ref])), "x")
    assert spec.components == (ref,)


def test_a_specification_is_never_overwritten(tmp_path: Path) -> None:
    path = put(tmp_path, "orders", "mine")
    with pytest.raises(UsageError, match="is there already"):
        write_new(str(tmp_path), "orders", [REF])
    assert Path(path).read_text() == "mine"
    assert os.listdir(tmp_path) == ["orders.toml"]


def test_what_a_killed_writer_left_is_used_up(tmp_path: Path) -> None:
    (tmp_path / ".orders.toml.new").write_text('name = "ord')
    assert specification.load_all(str(tmp_path)) == ([], [])
    write_new(str(tmp_path), "orders", [REF])
    assert os.listdir(tmp_path) == ["orders.toml"]


@pytest.mark.parametrize("name", ["", "a/b", "..", "-n", "latest", "a:b", "a b", "x" * 65, "Ü"])
def test_some_names_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="cannot name a specification"):
        write_new(str(tmp_path), name, [REF])
    assert os.listdir(tmp_path) == []


def test_a_folder_in_a_files_place_is_an_error_of_ours(tmp_path: Path) -> None:
    (tmp_path / "specs.d").write_text("")
    with pytest.raises(SlackwaterError, match="is not a folder"):
        write_new(str(tmp_path / "specs.d"), "orders", [REF])


def test_broken_files_do_not_hide_good_ones(tmp_path: Path) -> None:
    put(tmp_path, "good", 'name = "good"\n' + MINIMAL)
    put(tmp_path, "bad", "=")
    put(tmp_path, "readme.txt", "not ours")
    (tmp_path / "notes").write_text("not ours")
    (tmp_path / "folder.toml").mkdir()
    good, broken = specification.load_all(str(tmp_path))
    assert [each.name for each in good] == ["good"]
    assert [each.name for each in broken] == ["bad", "folder", "readme.txt"]
    assert isinstance(broken[0].error, UsageError)
    assert broken[0].path == str(tmp_path / "bad.toml")


def test_a_specification_is_found_by_its_name(tmp_path: Path) -> None:
    put(tmp_path, "orders", 'name = "orders"\n' + MINIMAL)
    assert specification.find(str(tmp_path), "orders").name == "orders"


@pytest.mark.parametrize("name", ["order", "ordres"])
def test_one_that_is_not_there_is_answered_with_those_that_come_close(tmp_path: Path, name: str) -> None:
    put(tmp_path, "orders", 'name = "orders"\n' + MINIMAL)
    with pytest.raises(NotFoundError) as caught:
        specification.find(str(tmp_path), name)
    assert caught.value.hint == "Did you mean orders?"


@pytest.mark.parametrize("name", ["../orders", "/etc/passwd", ""])
def test_a_name_is_never_taken_for_a_path(tmp_path: Path, name: str) -> None:
    put(tmp_path, "orders", 'name = "orders"\n' + MINIMAL)
    (tmp_path / "specs.d").mkdir()
    with pytest.raises(NotFoundError, match="There is no specification"):
        specification.find(str(tmp_path / "specs.d"), name)


def test_no_folder_is_an_empty_one(tmp_path: Path) -> None:
    missing = str(tmp_path / "none")
    assert specification.load_all(missing) == ([], [])
    with pytest.raises(NotFoundError) as caught:
        specification.find(missing, "orders")
    assert "slackwater spec create orders" in caught.value.hint
    assert not os.path.exists(missing)


def test_a_backup_without_a_specification_has_the_defaults() -> None:
    spec = specification.implicit(ComponentRef.parse("postgresql:15/main"))
    assert spec.name == "postgresql:15/main"
    assert spec.components == (REF,)
    assert (spec.replica, spec.options, spec.verify) == (ReplicaOptions(), BackupOptions(), VerifyOptions())


@pytest.mark.parametrize(
    ("verify", "why"),
    [
        ('query = "select 1"', "query and expect belong together"),
        ('expect = "1"', "query and expect belong together"),
        ('component = "files:/srv"', "component of [verify], files:/srv, is none of this specification"),
    ],
)
def test_half_a_question_and_one_to_a_stranger_are_refused(tmp_path: Path, verify: str, why: str) -> None:
    assert why in refusal(tmp_path, f'name = "orders"\n{MINIMAL}[verify]\n{verify}\n')


def test_a_question_may_name_its_component(tmp_path: Path) -> None:
    text = 'query = "select 1"\nexpect = "1"\ncomponent = "postgresql:15/main"\n'
    spec = specification.load(put(tmp_path, "orders", f'name = "orders"\n{MINIMAL}[verify]\n{text}'))
    assert spec.verify.component == str(REF)


def test_how_the_log_is_kept(tmp_path: Path) -> None:
    text = f'name = "orders"\n{MINIMAL}[recovery]\n'
    spec = specification.load(put(tmp_path, "orders", text + 'logs = "slot"\nlogs_max = "64MiB"\nundo_keep = "1d"\n'))
    assert spec.plan_options.log == LogKeeping("orders", 64 << 20)
    assert spec.recovery.undo_keep == 86400
    assert specification.load(put(tmp_path, "orders", text)).plan_options.log is None
    for archive in ("", "/srv/wal", "pgbackrest --stanza=main archive-get %f %p"):
        spec = specification.load(put(tmp_path, "orders", f'{text}logs = "archive"\narchive = "{archive}"\n'))
        assert spec.plan_options.log == LogKeeping("orders", 20 << 30, archive=archive)
        assert spec.recovery.asked == archive


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ('logs = "archive"\narchive = "srv/wal"', "neither an absolute directory nor a command"),
        ('logs = "archive"\narchive = "cp /wal/%f ."', "neither an absolute directory nor a command"),
        ('logs = "slot"\narchive = "/srv/wal"', "only asked with"),
        ('logs = "tape"', "logs"),
        ('logs_max = "10%"', "must be a number of bytes"),
        ('logs_max = "0B"', "must be a number of bytes"),
        ('undo_keep = "7"', "has no unit"),
    ],
)
def test_how_no_log_is_kept(tmp_path: Path, line: str, why: str) -> None:
    assert why in refusal(tmp_path, f'name = "orders"\n{MINIMAL}[recovery]\n{line}\n')
