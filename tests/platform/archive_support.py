# SPDX-License-Identifier: Apache-2.0
"""Archives of a server's log as their users have them: a directory, pgBackRest, Barman. All of them local."""

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from slackwater.writers._postgresql import history, segments
from tests.platform.postgresql_support import OWNER, as_owner

MIB = 1 << 20
SMALL_LOG = "archive_mode = on\nmax_wal_size = '2MB'\nmin_wal_size = '2MB'\ncheckpoint_timeout = '1h'\n"
_GOES_INTO_S = 60.0


class Server(Protocol):
    """What an archive has to know of the server that it is of."""

    @property
    def home(self) -> Path:
        """A folder of the server's owner, for the archive and all that belongs to it."""

    @property
    def data(self) -> Path: ...

    @property
    def sockets(self) -> Path: ...

    @property
    def port(self) -> int: ...

    def sql(self, query: str, /) -> list[tuple[object, ...]]: ...

    def value(self, query: str, /) -> object: ...


class Kept:
    """An archive in a directory, which refuses to take a name twice, as PostgreSQL's documentation advises."""

    def __init__(self, cluster: Server) -> None:
        self.cluster = cluster
        self.home = cluster.home / "archive"
        self.home.mkdir()
        os.chown(self.home, OWNER.pw_uid, OWNER.pw_gid)
        self.prepare()

    def prepare(self) -> None:
        """What has to be there before the server starts."""

    def begin(self) -> None:
        """What needs the server."""

    def take_in(self) -> None:
        """What has to be done from time to time."""

    @property
    def archive_command(self) -> str:
        return f'test ! -f "{self.home}/%f" && cp "%p" "{self.home}/%f"'

    @property
    def asked(self) -> str:
        return str(self.home)

    def checked(self) -> None:
        """Its own program finds nothing wrong."""
        names = sorted(each.name for each in self.home.iterdir())
        assert names

    def lacking(self, since: int) -> list[str]:
        """What it does not have of the server's present history: from the segment with a position to its newest one."""
        log = self.cluster.data / "pg_wal"
        number = max((int(each.stem, 16) for each in log.glob("*.history")), default=1)
        ancestors = history.parse((log / f"{number:08X}.history").read_text()) if number > 1 else ()
        names = {match[0] for each in self.home.rglob("*") if (match := segments.NAME.match(each.name))}
        position = since - since % MIB
        missing = []
        for timeline, end in [*ancestors, (number, segments.start_of(max(names), MIB))]:
            while position + MIB <= end - end % MIB:
                name = segments.name_of(timeline, position, MIB)
                missing += [name] if name not in names else []
                position += MIB
        assert position > since, "there is something to be looked at"
        return missing

    @contextlib.contextmanager
    def away(self) -> Iterator[None]:
        """It cannot be reached."""
        aside = self.home.with_name("away")
        self.home.rename(aside)
        try:
            yield
        finally:
            aside.rename(self.home)

    @contextlib.contextmanager
    def full(self) -> Iterator[None]:
        """It takes nothing any more."""
        os.chmod(self.home, 0o500)
        try:
            yield
        finally:
            os.chmod(self.home, 0o700)

    def file_of(self, name: str) -> Path:
        """Where it has a segment."""
        (found,) = [each for each in self.home.rglob(f"{name}*") if each.is_file()]
        return found

    @contextlib.contextmanager
    def without(self, name: str) -> Iterator[None]:
        """A segment is missing."""
        found, aside = self.file_of(name), self.cluster.home / "missing"
        found.rename(aside)
        try:
            yield
        finally:
            aside.rename(found)

    def idle(self) -> None:
        """Wait until all that is finished is archived, and nothing stands still."""
        self.cluster.sql("select pg_switch_wal()")
        wanted = str(self.cluster.value("select pg_walfile_name(pg_current_wal_lsn() - 1)"))
        status = self.cluster.data / "pg_wal" / "archive_status"
        ends = time.monotonic() + _GOES_INTO_S
        while any(each.suffix == ".ready" for each in status.iterdir()):
            assert time.monotonic() < ends, (wanted, sorted(status.iterdir()))
            time.sleep(0.02)
        self.take_in()


class PgBackRest(Kept):
    """The real pgBackRest with a repository here."""

    def prepare(self) -> None:
        self.config = self.cluster.home / "pgbackrest.conf"
        self.config.write_text(
            f"[global]\nrepo1-path={self.home}\nlog-level-file=off\nlock-path={self.cluster.home}/lock\n"
            f"spool-path={self.cluster.home}/spool\nstart-fast=y\ncompress-level=1\narchive-timeout=60\n"
            f"[main]\npg1-path={self.cluster.data}\npg1-socket-path={self.cluster.sockets}\npg1-port={self.cluster.port}\n"
        )

    def begin(self) -> None:
        as_owner(*self.words, "stanza-create")
        as_owner(*self.words, "backup")

    @property
    def words(self) -> tuple[str, ...]:
        return ("pgbackrest", f"--config={self.config}", "--stanza=main")

    @property
    def archive_command(self) -> str:
        return " ".join([*self.words, "archive-push", "%p"])

    @property
    def asked(self) -> str:
        return " ".join([*self.words, "archive-get", "%f", '"%p"'])

    def checked(self) -> None:
        as_owner(*self.words, "check")
        said = as_owner(*self.words, "--log-level-console=info", "verify").stdout
        assert "ERROR" not in said, said

    def restored(self, place: Path) -> None:
        """A restore of its own, of its backup and by its archive, along the newest timeline."""
        as_owner(*self.words, f"--pg1-path={place}", "--target-timeline=latest", "restore")


class Barman(Kept):
    """The real Barman, in the way it takes what others put into its `incoming`."""

    def prepare(self) -> None:
        self.config = self.cluster.home / "barman.conf"
        self.config.write_text(
            f"[barman]\nbarman_user = postgres\nbarman_home = {self.home}\nlog_file = {self.cluster.home}/barman.log\n"
            f"barman_lock_directory = {self.cluster.home}\n"
            f"[main]\nconninfo = host={self.cluster.sockets} port={self.cluster.port} user=postgres dbname=postgres\n"
            "backup_method = local-rsync\nreuse_backup = off\narchiver = on\nbackup_options = concurrent_backup\n"
        )
        for name in ("incoming", "errors", "wals", "base", "streaming"):
            (self.home / "main" / name).mkdir(parents=True)
        subprocess.run(["chown", "-R", f"{OWNER.pw_uid}:{OWNER.pw_gid}", str(self.home)], check=True)

    def begin(self) -> None:
        self.take_in()
        self.cluster.sql("select pg_switch_wal()")

    def take_in(self) -> None:
        as_owner(*self.words, "archive-wal", "main")

    @property
    def words(self) -> tuple[str, ...]:
        return ("barman", "-c", str(self.config))

    @property
    def archive_command(self) -> str:
        incoming = f"{self.home}/main/incoming"
        return f'test ! -f "{incoming}/%f" && cp "%p" "{incoming}/%f"'

    @property
    def asked(self) -> str:
        return f'{" ".join(self.words)} get-wal main %f > "%p"'

    def checked(self) -> None:
        self.take_in()
        assert not [each.name for each in (self.home / "main" / "errors").iterdir()]
        said = as_owner(*self.words, "check", "main", check=False).stdout
        assert "archiver errors: OK" in said, said
        assert "continuous archiving: OK" in said, said
        assert "WAL archive: FAILED" not in said, said


def remove(path: Path) -> None:
    """A data directory without its log."""
    for each in path.iterdir():
        if each.name != "pg_wal":
            shutil.rmtree(each) if each.is_dir() else each.unlink()
