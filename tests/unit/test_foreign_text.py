# SPDX-License-Identifier: Apache-2.0
"""Whatever text of others we read, it is understood, left out, or refused in a sentence: never a traceback.

Each test says what may be raised: an error of ours with a sentence, or nothing. Thirty seconds in all.
"""

import ctypes
import dataclasses
import json
import os
import secrets
import struct
import tempfile
import tomllib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from slackwater.config import files
from slackwater.config.quantities import parse_amount, parse_duration
from slackwater.config.secrets import redact
from slackwater.config.settings import Settings
from slackwater.config.specification import Specification
from slackwater.config.tables import check
from slackwater.errors import SlackwaterError
from slackwater.guard.leftovers import release_leftovers
from slackwater.model.retention import Keep
from slackwater.providers import _document
from slackwater.sessions import transfer
from slackwater.system import companions, fstab, mounts, processes, services, timers
from slackwater.system.command import Finished
from slackwater.writers._postgresql import autoconf, debian, find, losses, lossnames, managed, rewrite, segments
from slackwater.writers._postgresql.archive import mark_archived
from slackwater.writers._postgresql.controlfile import parse as parse_control_file
from slackwater.writers._postgresql.controlfile import parse_lsn
from slackwater.writers._postgresql.lossnames import Catalog, Table
from slackwater.writers._postgresql.segments import Stretch
from tests.unit.catalog.samples import replica

bounded = settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
BYTES = st.binary(max_size=200)
#: What the kernel shows: any bytes but NUL, decoded as we decode them.
KERNEL = BYTES.map(lambda raw: raw.replace(b"\0", b"").decode(errors="surrogateescape"))
FIELD = st.one_of(
    st.sampled_from(["0", "-1", "36", "0:32", "/", "shared:1", "master:x", "-", "rw", "\\040", "\\777"]), KERNEL
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
DEEP = "[" * 20_000


def only_ours(read: Callable[[], Any]) -> Any:
    """What reading gives; None where it was refused in a sentence."""
    refused = ""
    try:
        return read()
    except SlackwaterError as e:
        refused = e.sentence
    assert refused.endswith(".")
    return None


# -- files that people edit --------------------------------------------------------------------------------------------


@bounded
@given(st.text(max_size=200))
@example(DEEP)
@example("name = 1979-05-27T07:32:00Z")
@example('name = "a"\n[[component]]\nwriter = 1\ninstance = [[[]]]')
def test_specifications_and_settings(text: str) -> None:
    folder = Path(tempfile.gettempdir()) / f"slackwater-foreign-{secrets.token_hex(4)}"
    folder.mkdir(mode=0o755, exist_ok=True)
    path = folder / "x.toml"
    path.write_text(text, encoding="utf-8", errors="surrogateescape")
    try:
        for table in (Specification, Settings):
            only_ours(lambda table=table: check(table, files.read_toml(str(path)), str(path)))  # type: ignore[misc]
    finally:
        path.unlink()
        folder.rmdir()


VALUES = st.sampled_from(
    ['""', "0", "-1", "1e999", '"1y"', '"9999999999999999999y"', '"10%"', "[]", "{}", "true", '"x"', "nan"]
)
KEYS = st.sampled_from(
    [f"{table}.{key}" for table in ("replica", "options", "catalog", "limits", "plugins")
     for key in ("keep", "min_free", "freeze_timeout", "hold", "url", "keep_sessions", "wait", "writers", "x", "pwd")]
)  # fmt: skip


@bounded
@given(st.dictionaries(KEYS, VALUES, max_size=5))
def test_tables_with_the_wrong_values(pairs: dict[str, str]) -> None:
    text = 'name = "x"\n' + "".join(f"{key} = {value}\n" for key, value in pairs.items())
    with suppress(tomllib.TOMLDecodeError):
        data = tomllib.loads(text)
        only_ours(lambda: check(Settings, {k: v for k, v in data.items() if k != "name"}, "x.toml"))
        found = only_ours(lambda: check(Specification, data, "x.toml"))
        assert found is None or isinstance(found.replica.keep, Keep)


@bounded
@given(st.text(alphabet="0123456789.ydhms% GiBk\u0663-", max_size=24))
@example("9" * 400 + "y")
def test_quantities(text: str) -> None:
    with suppress(ValueError):
        assert 0 <= parse_duration(text) < 1e12
    with suppress(ValueError):
        assert parse_amount(text).of(1 << 40) >= 0


@bounded
@given(st.text(max_size=300), st.lists(st.text(max_size=10), max_size=3))
def test_redaction(text: str, known: list[str]) -> None:
    said = redact(text, known)
    assert not [each for each in known if len(each) >= 4 and each in said.replace("[removed]", "")]


# -- the kernel's tables -----------------------------------------------------------------------------------------------


@bounded
@given(st.lists(st.lists(FIELD, max_size=12).map(" ".join), max_size=4).map("\n".join))
@example("x 25 0:32 / /srv rw shared:1 - btrfs /dev/sda rw")
@example("36 25 0:32 / /s\udcffrv rw master:x - btrfs /dev/sda rw,subvol=/\\777")
def test_mountinfo(text: str) -> None:
    for mount in mounts.parse(text):
        assert isinstance(mount.id, int)
        assert isinstance(mount.target, str)


def test_a_mount_with_any_name_is_found_among_others() -> None:
    """The kernel shows bytes as they are: a name that is no UTF-8 must not hide what else is mounted."""
    line = b"36 25 0:32 / /srv/\xff\\040x rw shared:1 - btrfs /dev/sda rw".decode(errors="surrogateescape")
    (first, second) = mounts.parse(f"{line}\n37 25 0:33 / /b rw - ext4 /dev/sdb rw\n")
    assert os.fsencode(first.target) == b"/srv/\xff x"
    assert second.target == "/b"


@bounded
@given(st.binary(min_size=1, max_size=15).filter(lambda name: b"\0" not in name))
@example(b") S 1 1 1 1 1")
@example(b"x\rUid:\t0")
@example(b"x\nUid:\t0\n")
def test_a_process_may_have_any_name(name: bytes) -> None:
    libc = ctypes.CDLL(None)
    with open("/proc/self/comm", "rb") as f:
        mine = f.read().rstrip(b"\n")
    before, status = processes.stat_of(os.getpid()), find._status(os.getpid())
    assert before is not None
    try:
        assert libc.prctl(15, ctypes.c_char_p(name), 0, 0, 0) == 0
        found, told = processes.stat_of(os.getpid()), find._status(os.getpid())
    finally:
        libc.prctl(15, ctypes.c_char_p(mine), 0, 0, 0)
    assert found is not None
    assert (found.parent, found.start) == (before.parent, before.start)
    assert {told[key] for key in ("Uid", "NSpid", "PPid")} == {status[key] for key in ("Uid", "NSpid", "PPid")}


@bounded
@given(KERNEL)
def test_identities(text: str) -> None:
    assert not processes.alive(text)


@bounded
@given(st.lists(FIELD, max_size=6).map("\t".join))
def test_fstab(text: str) -> None:
    with tempfile.NamedTemporaryFile() as f, pytest.MonkeyPatch.context() as patched:
        f.write(text.encode(errors="surrogateescape"))
        f.flush()
        patched.setattr(fstab, "FSTAB", f.name)
        assert isinstance(fstab._fstab_entries(), tuple)
        assert set(fstab._mount_section(f.name)) <= {"What", "Where", "Type", "Options"}


# -- what programs say -------------------------------------------------------------------------------------------------


@bounded
@given(KERNEL)
def test_lines_of_programs(text: str) -> None:
    assert isinstance(services.unit_in(text), str)
    assert isinstance(timers.unescape(text.encode(errors="replace").decode()), str)
    assert timers._moment(text) is None
    assert isinstance(debian.setting(text, "port"), str)
    assert find.read_pid_file(text) is None or text
    assert isinstance(find.option(tuple(text.split()), "port"), str)
    with suppress(ValueError):
        parse_lsn(text)


@bounded
@given(KERNEL, KERNEL)
def test_what_we_put_into_a_configuration_comes_out_again(text: str, command: str) -> None:
    added = autoconf.with_recovery(text, command)
    assert autoconf.without_recovery(added).rstrip("\n") == autoconf.without_recovery(text).rstrip("\n")
    assert autoconf.with_recovery(added, command) == added


@bounded
@given(st.binary(max_size=300))
def test_control_files(image: bytes) -> None:
    only_ours(lambda: parse_control_file(image, "x"))


# -- names of log files ------------------------------------------------------------------------------------------------

NAME = st.one_of(
    st.from_regex(r"[0-9A-F]{24}(\.partial|\.ready|\.done|\.[0-9A-F]{8}\.backup)?", fullmatch=True),
    st.from_regex(r"[0-9A-F]{8}\.history(\.ready|\.done)?", fullmatch=True),
    st.binary(min_size=1, max_size=40)
    .filter(lambda raw: not set(raw) & set(b"/\0") and raw not in (b".", b".."))
    .map(os.fsdecode),
)


@settings(bounded, max_examples=30)
@given(st.lists(NAME, max_size=5), st.lists(NAME, max_size=5), st.sampled_from([0, 1 << 20, 1 << 24, 0xFFFFFFFF]))
def test_names_of_log_files(segments: list[str], marked: list[str], segment_bytes: int) -> None:
    assert all(0 <= each < 1 << 32 for each in rewrite._timelines([*segments, *marked]))
    with tempfile.TemporaryDirectory() as wal:
        os.mkdir(f"{wal}/archive_status")
        for name in segments:
            with open(f"{wal}/{name}", "wb") as f:
                f.write(b"\x10\xd1" + name.encode(errors="replace")[:30])
        for name in marked:
            with open(f"{wal}/archive_status/{name}", "wb"):
                pass
        fd = os.open(wal, os.O_RDONLY)
        try:
            with suppress(OSError):  # its caller says it in a sentence
                done = mark_archived(fd, wal, 1, segment_bytes)
                assert set(os.listdir(f"{wal}/archive_status")) >= {f"{each}.done" for each in done}
            assert sorted(os.listdir(wal)) == sorted({*segments, "archive_status"})
        finally:
            os.close(fd)


MIB = 1 << 20
STRETCH = Stretch(timeline=1, start=0, stop=MIB, segment_bytes=MIB, system_identifier="7")
HEADER = st.tuples(
    st.sampled_from([0xD116, 0xD1FF, 0]), st.sampled_from([0, 2, 0xFFFF]), st.integers(0, 2), st.sampled_from([0, MIB]),
    st.sampled_from([7, 8]), st.sampled_from([MIB, 0]), st.sampled_from([0, 1, 8192, 0xFFFFFFFF]),
).map(lambda fields: struct.pack("=HHIQ8xQII", *fields))  # fmt: skip


DESCRIBED = st.sampled_from([
    "COMMIT 2026-11-30 05:44:38.467879 UTC; rels: base/5/16384 base/5/16400; subxacts: 8 9; dropped stats: 2/5/16384",
    "COMMIT_PREPARED 7: 2026-11-30 05:44:38 UTC; dropped stats: 1/16474/0; inval msgs: catcache 21; sync",
    "COMMIT 2026-99-30 05:44:38 UTC; rels: global/1262 pg_tblspc/9/PG_15_202209061/5/16400 base/x", "COMMIT 2026",
    "ABORT 2026-11-30 05:44:38.5 UTC; subxacts: 9", "PREPARE gid g: 2026-11-30 05:44:38.554005 UTC",
    "CREATE base/5/16400", "CREATE base/5/16400_init", "CREATE 5", "TRUNCATE base/5/2604 to 0 blocks flags 7",
    "LOCK xid 7 db 5 rel 16400 ", "LOCK xid 7 db 5 rel 16400 xid 8 db 5 rel 1", "LOG rel 1663/5/16401",
    "DELETE off 48 flags 0x10 , blkref #0: rel 1663/5/16384 blk 3",
    "UPDATE+INIT off: 4, blkref #0: rel 1663/5/16400 blk",
    "INSERT+INIT off 1 flags 0x00, blkref #0: rel 1663/5/16400 blk 0",
    "INPLACE off 4, blkref #0: rel 1664/0/1262 blk 0",
])  # fmt: skip
MANAGER = st.sampled_from(["Transaction", "Storage", "Standby", "Heap", "Heap2", "Sequence", "XLOG", "x"])
LOGGED = st.tuples(MANAGER, st.sampled_from(["0", "7", "8", "9", "4294967295", "x"]), st.one_of(DESCRIBED, KERNEL)).map(
    lambda parts: (
        f"rmgr: {parts[0]:<11} len (rec/tot):     34/    34, tx: {parts[1]:>10}, lsn: 0/0158ABB0, "
        f"prev 0/0158AB38, desc: {parts[2]}\n".encode(errors="surrogateescape")
    )
)


@settings(bounded, max_examples=100)
@given(st.lists(st.one_of(LOGGED, BYTES), max_size=40))
def test_records_of_the_log(lines: list[bytes]) -> None:
    reading = losses.Reading()
    reading.begin(1 << 62)
    for line in lines:
        assert reading.take(line)
    told = losses.kept(reading.changes, reading.filled)
    assert losses.stored(told) == (reading.changes, reading.filled)
    table = Table("public.orders", 16384, 16384)
    for loss in lossnames.name(told, Catalog({5: "shop"}, {(5, 16384): table})):
        assert loss.target.value.isdecimal()
        assert all(loss.what)


@settings(bounded, max_examples=30)
@given(st.one_of(HEADER, BYTES), BYTES, st.sampled_from([0, 8192, MIB - 8192]), st.sampled_from([MIB, 100, 0]))
@example(struct.pack("=HHIQ8xQII", 0xD116, 2, 1, 0, 7, MIB, 0xFFFFFFFF), b"", 0, MIB)
def test_pages_of_the_log(head: bytes, page: bytes, at: int, size: int) -> None:
    """Whatever stands in it: a segment that the engine did not write whole has a hole, and that is said."""
    with tempfile.TemporaryDirectory() as log:
        with open(f"{log}/{STRETCH.names[0]}", "wb") as f:
            f.seek(at)
            f.write(page)
            f.seek(0)
            f.write(head)
            f.truncate(size)
        fd = os.open(log, os.O_RDONLY)
        try:
            assert segments.hole(fd, STRETCH).startswith(STRETCH.names[0])
        finally:
            os.close(fd)


# -- documents ---------------------------------------------------------------------------------------------------------

SEALED = _document.seal(replica().document)
EXPORTED = transfer.write(
    transfer.CatalogDocument(replica().document.owner, "0", replica().document.created, {}, (), (replica(),))
).encode()


@settings(bounded, max_examples=300)
@given(st.integers(0, len(SEALED) * 8 - 1))
def test_no_flipped_bit_of_a_document_is_accepted(bit: int) -> None:
    altered = bytearray(SEALED)
    altered[bit // 8] ^= 1 << bit % 8
    found = _document.unseal(bytes(altered))
    assert found in (None, replica().document)  # a blank between two words means nothing
    assert found is None or altered.decode().split() == SEALED.decode().split()


def test_the_twin_whose_seal_was_made_again_is_another_document() -> None:
    """What the test above relies on: an altered document can be told from the right one."""
    other = dataclasses.replace(replica().document, specification="other")
    assert _document.unseal(_document.seal(other)) == other != replica().document


@bounded
@given(
    st.one_of(
        JSON.map(lambda each: json.dumps(each).encode()), BYTES, st.integers(0, len(SEALED)).map(lambda n: SEALED[:n])
    )
)
@example(DEEP.encode())
@example(b'{"seal": "sha256:", "document": {}}')
def test_documents(text: bytes) -> None:
    found = _document.unseal(text)
    assert found is None or text == SEALED


@bounded
@given(
    st.one_of(
        JSON.map(lambda each: json.dumps({"schema_version": each, "seal": each, "catalog": each}).encode()),
        BYTES,
        st.integers(0, len(EXPORTED) * 8 - 1).map(lambda bit: _flipped(EXPORTED, bit)),
    )
)
@example(DEEP.encode())
@example(b'{"schema_version": Infinity}')
@example(b'{"schema_version": -1, "catalog": null, "seal": null}')
def test_exports(text: bytes) -> None:
    found = only_ours(lambda: transfer.parse(text, "x"))
    assert found is None or found.replicas == (replica(),)


def _flipped(text: bytes, bit: int) -> bytes:
    return text[: bit // 8] + bytes([text[bit // 8] ^ 1 << bit % 8]) + text[bit // 8 + 1 :]


@bounded
@given(st.one_of(JSON.map(json.dumps), JSON.map(lambda each: json.dumps({"pause": each})), st.text(max_size=40)))
@example(DEEP)
@example('{"pause": true}')
def test_what_a_manager_leaves_in_a_data_directory(text: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, managed._PATRONI_CACHE).write_bytes(text.encode(errors="surrogatepass"))
        assert managed.paused("Patroni", folder) is (_pause_in(text) is True)


def _pause_in(text: str) -> object:
    with suppress(ValueError, RecursionError):
        found = json.loads(text)
        return found.get("pause") if isinstance(found, dict) else None
    return None


INSPECTED = st.fixed_dictionaries(
    {},
    optional={
        "State": JSON | st.fixed_dictionaries({}, optional={"Running": JSON, "Restarting": JSON, "Pid": JSON}),
        "HostConfig": JSON | st.just({"AutoRemove": True}),
        "Config": JSON | st.fixed_dictionaries({}, optional={"StopTimeout": JSON}),
    },
)


@bounded
@given(st.one_of(st.lists(INSPECTED, max_size=2).map(json.dumps), JSON.map(json.dumps), st.text(max_size=40)))
@example(DEEP)
@example('[{"State": {"Running": true, "Pid": 1}, "HostConfig": {}, "Config": {"StopTimeout": "x"}}]')
@example('[{"State": {"Running": true, "Pid": Infinity}, "HostConfig": {}}]')
def test_what_is_said_of_a_container(text: str) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(companions, "run", lambda *_, **__: Finished((), 0, text, ""))
        only_ours(lambda: companions._container("web", ["docker"]))


RECORD = st.fixed_dictionaries(
    {},
    optional={
        key: JSON | st.just("1:1:no-boot")
        for key in ("guard", "coordinator", "deadline_s", "cgroups", "keepers", "session")
    },
)


@bounded
@given(
    st.one_of(
        RECORD.map(lambda each: json.dumps(each).encode()), JSON.map(lambda each: json.dumps(each).encode()), BYTES
    )
)
@example(DEEP.encode())
@example(b'{"guard": 1}')
@example(b"null")
def test_guard_records(text: bytes) -> None:
    """One that is none keeps nobody else from being released."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patched:
        patched.setattr("slackwater.guard.leftovers.HOME", "no-home-of-a-guard")
        path = f"{folder}/guard.1.json"
        with open(path, "wb") as f:
            f.write(text)
        said = release_leftovers(folder)
        # None of these names a guard that lives: it is forgotten, or is none, and is then left and named.
        assert said or not os.path.exists(path)
