# SPDX-License-Identifier: Apache-2.0
"""A replica rolled forward through an archive: a directory, pgBackRest's, Barman's; and the archive after it."""

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from slackwater.errors import RefusedError, SlackwaterError
from slackwater.model.plan import LogKeeping
from slackwater.model.replica import ComponentRecord
from slackwater.model.target import LogSource, Reach
from slackwater.writers._postgresql import fetching, ground, roll, segments
from slackwater.writers._postgresql.controlfile import parse_lsn
from tests.platform.archive_support import MIB, SMALL_LOG, Barman, Kept, PgBackRest, remove
from tests.platform.postgresql_support import Cluster, as_owner, new_cluster
from tests.platform.test_postgresql_roll import WRITER, Rolling

pytestmark = [pytest.mark.root, pytest.mark.postgresql]


class Archived(Rolling):
    """The same with an archive, on a server that recycles what it has archived."""

    def __init__(self, cluster: Cluster, kept: Kept) -> None:
        super().__init__(cluster)
        self.kept = kept
        self.asked = kept.asked
        self.later: tuple[Path, ...] = ()

    def sources(self, replica: Path, *more: Path) -> list[LogSource]:
        *others, live = super().sources(replica, *self.later, *more)
        if type(self.kept) is Kept:
            folder = self.place("scratch")
        else:  # these take their time: what one gave stays what it was, and only what it did not have is forgotten
            folder = self.cluster.home / "scratch"
            for note in (*folder.glob("*.none"), folder / "trouble"):
                note.unlink(missing_ok=True)
        folder.mkdir(mode=0o711, exist_ok=True)
        return [*others, LogSource("the archive", {}, archive=self.asked, folder=str(folder)), live]

    def horizon(self, replica: Path, record: ComponentRecord) -> Reach:
        return roll.horizon(record, self.sources(replica))

    def churn(self, mib: int = 24) -> None:
        """More log than the server keeps by itself ten times over, with commits in it; all of it is archived."""
        for number in range(100, 100 + mib):
            self.commit(number)
            self.cluster.sql("select pg_logical_emit_message(false, 'x', repeat('x', 1000000))")
        self.cluster.sql("checkpoint")
        self.kept.idle()
        self.cluster.sql("checkpoint")

    def mistake(self) -> str:
        return str(self.cluster.value("with gone as (delete from t returning 1) select pg_current_xact_id()::text"))


@contextmanager
def archived(kind: type[Kept]) -> Iterator[Archived]:
    with new_cluster() as cluster:
        as_owner(
            str(cluster.programs / "initdb"), "-D", str(cluster.data), "--auth=peer", "-N", "-U", "postgres",
            "--wal-segsize=1",
        )  # fmt: skip
        kept = kind(cluster)
        quoted = kept.archive_command.replace("'", "''")
        cluster.configure(
            f"listen_addresses = ''\nport = 5432\nshared_buffers = 16MB\nunix_socket_directories = '{cluster.home}'\n"
            f"{SMALL_LOG}archive_command = '{quoted}'\n"
        )
        cluster.start()
        cluster.sql("create table t (i int)")
        kept.begin()
        yield Archived(cluster, kept)


@pytest.fixture(params=[Kept, PgBackRest, Barman], ids=["directory", "pgbackrest", "barman"])
def any_archive(request: pytest.FixtureRequest) -> Iterator[Archived]:
    if request.param is not Kept and shutil.which(request.param.__name__.lower()) is None:
        pytest.skip(f"{request.param.__name__} is not installed: make system")
    with archived(request.param) as made:
        yield made


@pytest.fixture
def one() -> Iterator[Archived]:
    with archived(Kept) as made:
        yield made


def test_three_recoveries_and_a_continuous_archive(any_archive: Archived) -> None:
    one = any_archive
    one.commit(1)
    replica, record = one.replica()
    one.commit(2)
    one.churn()
    one.commit(3)
    wanted = one.numbers
    with_five = [*wanted[:3], 5, *wanted[3:]]
    xid = one.mistake()
    one.commit(4)
    # The log that goes on from the replica is in the archive alone.
    if not isinstance(one.kept, Barman):  # each file takes it half a second
        asked, one.asked = one.asked, "/var/empty"
        assert one.reach(replica, record, "latest").against
        one.asked = asked
        assert one.reach(replica, record, "latest").against == ""
        assert one.horizon(replica, record).against == ""

    first = one.recover(replica, record, f"before:{xid}")
    assert one.numbers == wanted
    one.commit(5)
    one.kept.idle()
    if isinstance(one.kept, Barman):
        one.kept.checked()
        continuous(one, record)
        return
    second = one.recover(replica, record, "latest")
    assert one.numbers == with_five
    one.cluster.stop("immediate")
    remove(one.cluster.data)
    third = one.recover(replica, record, "latest")
    assert one.numbers == with_five
    assert len({each["timeline"] for each in (first, second, third)}) == 3
    one.commit(6)
    one.kept.idle()
    one.kept.checked()
    continuous(one, record)
    if isinstance(one.kept, PgBackRest):
        assert restored(one, one.kept) == one.numbers


def continuous(one: Archived, record: ComponentRecord) -> None:
    """Nothing is missing in the archive; and of a twin that lacks something that is seen."""
    assert one.kept.lacking(begin_of(record)) == []
    middle = segments.name_of(1, begin_of(record) + 2 * MIB, MIB)
    with one.kept.without(middle):
        assert one.kept.lacking(begin_of(record)) == [middle]


def restored(one: Archived, kept: PgBackRest) -> list[object]:
    """What a restore of pgBackRest's own has, of the backup that was there before, along the newest timeline."""
    other = Cluster(15, one.cluster.home, port=5433)
    other.data = one.place("restored")
    kept.restored(other.data)
    other.configure("port = 5433\narchive_mode = off\n")
    other.start()
    ends = time.monotonic() + 60
    while other.value("select pg_is_in_recovery()"):
        assert time.monotonic() < ends
    found = [row[0] for row in other.sql("select i from t order by i")]
    other.stop()
    return found


# -- an archive that does not do what it should ------------------------------------------------------------------------


def by_command(one: Archived) -> None:
    one.asked = f'cp "{one.kept.home}/%f" "%p"'


def behind_a_gap(one: Archived) -> tuple[Path, ComponentRecord, object, str]:
    """A replica that a later one leads on from, the server's pid, and a segment that only the archive has."""
    replica, record = one.replica()
    one.commit(2)
    one.later = one.replica()[:1]
    one.cluster.sql("select pg_switch_wal()")
    middle = str(one.cluster.value("select pg_walfile_name(pg_current_wal_lsn())"))
    one.commit(3)
    one.churn(8)
    one.commit(4)
    assert not (one.cluster.data / "pg_wal" / middle).exists()
    return replica, record, one.cluster.pid, middle


def test_an_archive_that_does_not_answer_is_not_an_empty_one(one: Archived, monkeypatch: pytest.MonkeyPatch) -> None:
    replica, record, pid, middle = behind_a_gap(one)
    monkeypatch.setattr(fetching, "DEADLINE_S", 1.0)
    began = time.monotonic()
    for asked, why in {
        "sleep 300 # %f %p": "did not end within 1 s",
        "exit 200 # %f %p": "its command failed (status 200)",
        "/does/not/exist %f %p": "its command failed",
        "echo no network; exit 1 # %f %p": ", and said: no network",
        "/does/not/exist": "'/does/not/exist/.': No such file",
    }.items():
        one.asked = asked
        found = one.reach(replica, record, "latest")
        assert "cannot be asked" in found.against, asked
        assert why in found.against, found.against
        assert found.at is not None
        assert "cannot be asked" in one.horizon(replica, record).against
    assert time.monotonic() - began < 120
    by_command(one)
    assert one.reach(replica, record, "latest").against == ""
    with one.kept.away(), pytest.raises(RefusedError, match="cannot be asked"):
        one.recover(replica, record, "latest")
    with one.kept.without(middle):
        found = one.reach(replica, record, "latest")
        assert middle in found.against
        assert "cannot be asked" not in found.against
        assert found.at is not None
        assert one.reach(replica, record, found.at.isoformat()).against == ""
        assert middle in WRITER.losses(record, one.sources(replica), "").against
        with pytest.raises(RefusedError, match=middle):
            one.recover(replica, record, "latest")
    one.asked = str(one.kept.home)
    with one.kept.without(middle):
        assert middle in one.reach(replica, record, "latest").against
    assert one.cluster.pid == pid  # nobody was stopped


def test_lost_rows_are_looked_for_in_it_up_to_the_next_replica(one: Archived) -> None:
    one.cluster.sql("create table gone as select 1")
    replica, record = one.replica()
    one.cluster.sql("drop table gone")
    one.churn(6)
    later, next_one = one.replica()
    one.churn(6)
    until = WRITER.losses(next_one, one.sources(later), "").since
    asked = one.kept.home / "asked"
    one.asked = f'echo %f >> {asked}; cp "{one.kept.home}/%f" "%p"'
    for timeline in (1, 2):  # where a later one leaves that says nothing of what is looked for
        found = WRITER.losses(record, one.sources(replica), until)
        assert found.against == ""
        assert [each.what[0].partition(" of ")[0].rstrip("0123456789") for each in found.found] == ["removed file "]
        log = [each for each in asked.read_text().split() if len(each) == 24 and each.startswith("00000001")]
        assert max(log) == segments.name_of(1, parse_lsn(until) - 1, MIB)
        if timeline == 1:
            assert one.recover(later, next_one, "latest")["timeline"] == 2
            one.commit(7)
            one.kept.idle()
            asked.unlink()
    assert "missing" in WRITER.losses(record, Rolling.sources(one, replica), until).against  # the twin


def test_the_end_of_the_log_is_looked_for_behind_a_hole(one: Archived, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is left of the server but its log, of which the end is gone: the archive alone knows that it went on."""
    replica, record, _, middle = behind_a_gap(one)
    by_command(one)
    one.cluster.stop("immediate")
    remove(one.cluster.data)
    for each in (one.cluster.data / "pg_wal").glob("0*"):
        each.unlink()
    begun = segments.name_of(1, parse_lsn(str(record.expected["log_from"])), MIB)
    as_owner("cp", str(replica / "pg_wal" / begun), str(one.cluster.data / "pg_wal"))
    with one.kept.without(middle):
        found = one.reach(replica, record, "latest")
        assert "the archive has" in found.against
        monkeypatch.setattr(fetching, "_BEYOND", ())
        assert "the archive has" not in one.reach(replica, record, "latest").against  # the twin


def begin_of(record: ComponentRecord) -> int:
    return parse_lsn(str(record.expected["log_from"]))


def test_what_was_not_archived_yet_is_archived_after_it(one: Archived, monkeypatch: pytest.MonkeyPatch) -> None:
    """Segments that only the live log had are laid for the recovery; the engine takes them for archived."""
    replica, record = one.replica()
    for twin in (True, False):
        before = one.numbers
        with one.kept.full():
            for number in range(3):
                one.commit(1000 + number)
                one.cluster.sql("select pg_switch_wal()")
            one.commit(1003)
            one.cluster.stop("immediate")
        remove(one.cluster.data)
        with monkeypatch.context() as patch:
            if twin:
                patch.setattr("slackwater.writers._postgresql.pending.owed", lambda *_: [])
            one.recover(replica, record, "latest")
        assert one.numbers == [*before, 1000, 1001, 1002, 1003]
        one.kept.idle()
        assert bool(one.kept.lacking(begin_of(record))) is twin
        if twin:
            one.cluster.sql("truncate t")
            replica, record = one.replica()


def test_an_archive_is_not_asked_for_what_the_live_server_has(one: Archived, monkeypatch: pytest.MonkeyPatch) -> None:
    one.commit(1)
    one.kept.idle()
    one.cluster.sql("checkpoint")  # what is written from here on begins no other one, which would recycle some of it
    replica, record = one.replica()
    one.commit(2)
    asked = one.kept.home / "asked"
    one.asked = f"echo %f >> {asked}; exit 200"
    assert one.reach(replica, record, "latest").against == ""
    assert one.horizon(replica, record).against == ""
    assert not asked.exists()
    monkeypatch.setattr(ground, "_ends_live", lambda *_: False)
    one.reach(replica, record, "latest")
    assert asked.exists()  # the twin


def test_what_is_archived_since_a_replica_is_not_archived_again_by_a_recovery_to_it(one: Archived) -> None:
    """Its server stands still else; nothing but the archive tells."""
    one.commit(1)
    one.kept.idle()
    one.commit(2)
    with one.kept.full():
        one.cluster.sql("select pg_switch_wal()")
        one.commit(3)
        replica, record = one.replica()
    one.kept.idle()
    one.cluster.stop("immediate")
    shutil.rmtree(one.cluster.data)
    waiting = replica / "pg_wal" / "archive_status"
    (segment,) = [each.stem for each in waiting.glob("*.ready")]
    for asked, marked in ("/does/not/exist", False), (str(one.kept.home), True):
        one.asked = asked
        WRITER.forgive(record, {one.path: str(replica)}, one.sources(replica))
        assert (waiting / f"{segment}.done").exists() is marked
        assert (waiting / f"{segment}.ready").exists() is not marked


def test_an_archive_is_known_by_what_it_may_have_where_the_server_forgot_what_it_archived(one: Archived) -> None:
    """A server forgets that when it recycles what it archived: a fresh one knows of nothing that must be there."""
    one.commit(1)
    one.kept.idle()
    one.cluster.sql("checkpoint")
    for each in (one.cluster.data / "pg_wal" / "archive_status").glob("*.done"):
        each.unlink()
    replica, record = one.replica()
    by_command(one)
    assert roll.taken(record, one.sources(replica)) == {"timeline": 1}
    with one.kept.away(), pytest.raises(SlackwaterError, match="gave nothing"):  # and an empty one is told from it
        roll.taken(record, one.sources(replica))


def test_a_number_that_only_the_archive_knows_is_not_used(one: Archived) -> None:
    """Another server has recovered from the same backups, and archives to the same place."""
    replica, record = one.replica()
    one.commit(1)
    for number in (2, 4):
        (one.kept.home / f"{number:08X}.history").write_text("1\t0/1000000\tno recovery target specified\n")
    for asked in (by_command, lambda each: setattr(each, "asked", str(each.kept.home))):
        asked(one)
        assert roll.taken(record, one.sources(replica)) == {"timeline": 4}
    one.known.append(roll.taken(record, one.sources(replica)))
    assert one.recover(replica, record, "latest")["timeline"] == 5
    one.kept.idle()


def test_an_archive_is_checked_at_a_backup(one: Archived) -> None:
    def codes(archive: str) -> list[str]:
        return [each.code for each in WRITER.check_log(one.component, LogKeeping("orders", 0, archive=archive))]

    one.commit(1)
    one.kept.idle()
    assert codes(str(one.kept.home)) == []
    (refused,) = WRITER.check_log(one.component, LogKeeping("orders", 0, archive=""))
    assert refused.code == "no-archive"
    assert f'archive = "{one.kept.home}"' in refused.hint
    assert codes("false # %f %p") == ["archive-unreachable"]
    assert codes(f'test -f "{one.cluster.data}/pg_wal/%r" && cp "{one.kept.home}/%f" "%p"') == []
    with one.kept.full():
        one.cluster.sql("select pg_switch_wal()")
        one.commit(2)
        one.cluster.sql("select pg_switch_wal()")
        ends = time.monotonic() + 60
        while "archive-behind" not in codes(str(one.kept.home)):
            assert time.monotonic() < ends
    assert WRITER.keep_log_effect(one.component, LogKeeping("orders", 0, archive="")) is None
    one.cluster.stop()
    one.cluster.configure("archive_mode = always\n")
    one.cluster.start()
    assert codes(str(one.kept.home)) == ["archive-always"]
    found = WRITER.check_log(one.component, LogKeeping("orders", 1 << 40))
    assert "archive-always" in [each.code for each in found]
