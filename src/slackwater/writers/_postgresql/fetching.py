# SPDX-License-Identifier: Apache-2.0
"""An archive of the log that the administrator keeps: a directory, or a command that fetches one file.

The command is PostgreSQL's own `restore_command` ("Archive Recovery Settings"): `%f` is wanted, at `%p`; a status other
than 0 means that it is not there, or that it could not be had; above 125, or a signal, that nothing can be said. Which
of the first two it is, only something tells that must be there: so that is asked for, too.

pgBackRest needs the control file of the cluster to know which archive is its own, and takes each of its settings from
the environment, too ("Environment" in its documentation): so where the server's is lost it is shown the replica's.
"""

import contextlib
import os
import re
import shlex
import stat
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from slackwater.errors import RefusedError, SlackwaterError
from slackwater.model.component import Component
from slackwater.model.quantities import format_bytes
from slackwater.model.target import LogSource
from slackwater.system.command import CommandError, run
from slackwater.writers._postgresql import history, segments
from slackwater.writers._postgresql.chain import Chain, Log, Source
from slackwater.writers._postgresql.control import Control, as_owner, control_fields
from slackwater.writers._postgresql.controlfile import ControlFile, parse_lsn, read_control_file
from slackwater.writers._postgresql.directory import fill, opened, read

#: How long an archive may take for one file.
DEADLINE_S = 60.0
_KILL_S = 5.0
_HANGS, _ABORT, _NOTHING = 124, 125, 126
_SAID = 300
#: So many numbers of timelines in a row that nobody has are the end of them.
_UNUSED = 4
#: How far behind the end something is looked for: a hole that is longer is found when what follows is longer, too.
_BEYOND = (1, 2, 3, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
_PLACE = re.compile(r"%([fpr%])")
_MISSING = ".none"
#: The note why nothing can be had at all.
_TROUBLE = "trouble"
#: The share of a filesystem, in hundredths, that what was fetched leaves free.
_LEFT_FREE = 5


class Archive(Source):
    """An archive as a source of the log. What it does not give is a trouble, once it is known that it has it."""

    archived = True

    def __init__(self, caption: str, folder: int, witness: str) -> None:
        """Take a folder by descriptor, see `Source`.

        Args:
            caption: see `Source`.
            folder: see `Source`.
            witness: a file that the archive must have, since a server was told so; empty where none is known.
        """
        super().__init__(caption, folder)
        self.witness = witness
        self.trouble = ""
        """Why it cannot be asked, as the end of a sentence; empty when it can."""

    def fetch(self, name: str) -> bool:
        """Whether it gives a file."""
        return name in self.names

    def settle(self) -> None:
        """Ask for what must be there, once all was asked for: what it did not give before may be there nevertheless."""
        if self.witness and self.witness not in self.names:
            self.trouble = f"it lacks {self.witness}, which was archived"

    def lacks(self, name: str) -> str:
        """Why it does not give a file that it must have; empty when it does, or when that is none of the log's."""
        self.witness = name if history.OF_TIMELINE.fullmatch(name) else ""
        if not self.trouble and self.witness and not self.fetch(name):
            self.settle()
        return self.trouble

    def find_histories(self, timeline: int) -> int:
        """Ask for the histories of timelines above one; returns the highest that there is, or that one."""
        highest, number = timeline, timeline + 1
        while number <= highest + _UNUSED:
            if self.fetch(history.name_of(number)):
                highest = number
            number += 1
        return highest

    def fetch_histories(self, timeline: int, live: Sequence[int], known: Collection[int]) -> None:
        """Fetch those of the timelines that the application may be on; where it does not tell, all above one.

        Not those that others show, and none of the one that a replica is on: it is not needed.
        """
        for each in live:
            if each != timeline and each not in known:
                self.fetch(history.name_of(each))
        if not live:
            self.find_histories(timeline)

    def beyond(self, chain: Chain, log: Log, *, sure: bool) -> list[str]:
        """Tell what it has behind the end of a chain, where nothing else tells how far the log went."""
        found = ""
        if not (sure or chain.hole):
            begin = log.begin_of(chain.stop)
            names = (log.name_at(chain.timeline, begin + each * log.segment_bytes) for each in _BEYOND)
            found = next((name for name in names if self.fetch(name)), "")
        self.settle()
        return [f"{self.caption} has {found}"] if found else []


@dataclass(frozen=True, slots=True)
class Asking:
    """How a command is asked."""

    command: str
    """With %f, %p and %r."""
    place: str
    """The path of the archive's folder, as the owner of the files reaches it."""
    as_owner: tuple[str, ...]
    """The words before a command that run it as that owner."""
    first: str
    """The segment that a recovery from the replica begins in (%r)."""
    segment_bytes: int
    control: str = ""
    """Where a copy of the control file lies as in a data directory; empty where the server's own is whole."""

    def words(self, name: str, path: str) -> tuple[str, ...]:
        """What is run to have one file at a path. It ends at its deadline also when nobody waits for it any more."""
        put = {"f": name, "p": path, "r": self.first, "%": "%"}
        command = _PLACE.sub(lambda match: put[match[1]], self.command)
        # Its asynchronous ways would wait for the archiving that goes on, and leave files for nobody.
        settings = ["PGBACKREST_ARCHIVE_ASYNC=n", *([f"PGBACKREST_PG1_PATH={self.control}"] if self.control else [])]
        ends = ("timeout", f"--kill-after={_KILL_S:g}", f"{DEADLINE_S:g}")
        return (*self.as_owner, "env", f"--chdir={self.place}", *settings, *ends, "sh", "-c", command)


class Command(Archive):
    """One that is asked by a command. What it gave stays in the folder, and what it did not have is noted beside it.

    The folder is its owner's, who may put links there: so nothing of ours is written in it.
    """

    fetches = True

    def __init__(self, caption: str, folder: int, witness: str, asking: Asking, notes: int) -> None:
        """Take an empty folder of the owner's by descriptor, or one that an earlier object has used.

        Args:
            caption: see `Source`.
            folder: where the command puts what it gives.
            witness: see `Archive`.
            asking: how it is asked.
            notes: a folder of ours, by descriptor.
        """
        super().__init__(caption, folder, witness)
        self._asking, self._notes = asking, notes
        self._missing = {each.removesuffix(_MISSING) for each in os.listdir(notes) if each.endswith(_MISSING)}
        self.names = frozenset(name for name in self.names if history.OF_TIMELINE.fullmatch(name))
        self._doubt = self._proven = self._guessed = False
        self._said = ""
        self.trouble = read(notes, _TROUBLE)

    @contextlib.contextmanager
    def opened(self, name: str) -> Iterator[int | None]:
        """See `Source`."""
        if not self.fetch(name):
            yield None
            return
        with super().opened(name) as fd:
            yield fd

    def fetch(self, name: str) -> bool:
        """Have a file in the folder; nothing is asked for twice. False when it is not to be had."""
        if name in self.names or name in self._missing or self.trouble or not history.OF_TIMELINE.fullmatch(name):
            return name in self.names
        if self._ask(name, name):
            self.names |= {name}
            return True
        if not self.trouble:
            self._doubt = True
            self._missing.add(name)
            if not self._proven:
                self._prove()
        if not self.trouble:
            self._note(f"{name}{_MISSING}")
        return False

    def settle(self) -> None:
        """See `Archive`."""
        if self._doubt and not self.trouble:
            self._prove()
        if self._doubt and not self.trouble and not self._proven:
            self.trouble = f"it gave nothing{self._said}"

    def _note(self, name: str, text: str = "") -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(name, flags, 0o600, dir_fd=self._notes), "w", encoding="utf-8") as f:
            f.write(text)

    def _prove(self) -> None:
        """Ask for what it must have: one that does not give that cannot be asked for anything.

        Where nothing is known that it must have (the server forgets what it archived), what it may have will do.
        """
        known = self.witness or min(self.names, default="")
        if known:
            self._proven = self._ask(known, "again")
            if not self._proven and not self.trouble:
                self.trouble = f"it does not give {known}, which was archived{self._said}"
            self._doubt = False
        elif not self._guessed:
            self._guessed = True
            self.witness = next((each for each in self._likely if not self.trouble and self._ask(each, "again")), "")
            self._proven = bool(self.witness)

    @property
    def _likely(self) -> tuple[str, ...]:
        """The segment that a recovery from the replica begins in, and the one before that."""
        size, first = self._asking.segment_bytes, self._asking.first
        before = segments.start_of(first, size) - size
        return (first, *([segments.name_of(int(first[:8], 16), before, size)] if before > 0 else []))

    def _ask(self, name: str, as_name: str) -> bool:
        """Run the command; False when there is no such file, or when there is trouble: then nothing of it is left."""
        given = self._run(name, as_name) and _is_file(as_name, self.folder)
        if self.trouble:
            self._note(_TROUBLE, self.trouble)  # the next replica of a list need not wait for it
        if not given:
            with contextlib.suppress(OSError):
                os.unlink(as_name, dir_fd=self.folder)
        return given

    def _run(self, name: str, as_name: str) -> bool:
        room = os.fstatvfs(self.folder)
        if (
            room.f_bavail * room.f_frsize
            < room.f_blocks * room.f_frsize * _LEFT_FREE // 100 + self._asking.segment_bytes
        ):
            self.trouble = f"there is no room for what it gives in {self._asking.place} (TMPDIR says where)"
            return False
        with contextlib.suppress(OSError):
            os.unlink(as_name, dir_fd=self.folder)
        words = self._asking.words(name, f"{self._asking.place}/{as_name}")
        try:
            done = run(*words, check=False, fold_output=True, timeout_s=DEADLINE_S + 4 * _KILL_S)
        except CommandError as e:
            self.trouble = e.sentence.rstrip(".")
            return False
        said = " ".join(done.complaint.split())[-_SAID:]
        self._said = f", and said: {said}" if said else f" (status {done.status})"
        if done.status == _HANGS:
            self.trouble = f"its command did not end within {DEADLINE_S:g} s"
        elif not 0 <= done.status <= _ABORT:
            self.trouble = f"its command failed{self._said}"
        return done.status == 0


def among(
    stack: contextlib.ExitStack, sources: Sequence[LogSource], component: Component, data: int, image: ControlFile,
    shown: Sequence[Source], first: str = "",
) -> Archive | None:  # fmt: skip
    """The archive among the sources of a log; None where there is none. Asked for nothing yet.

    Args:
        stack: holds it open.
        sources: all of them.
        component: as the replica's document recorded it.
        data: the replica's data directory, by descriptor.
        image: its control file.
        shown: what the other sources show, but for a clone, in which not all is archived that says so.
        first: the segment that a recovery from the replica begins in; empty for that of its checkpoint.

    Raises:
        RefusedError: nobody said how it is asked.
    """
    source = next((each for each in sources if each.archive is not None), None)
    if source is None:
        return None
    command = source.archive or str(component.facts.get("restore_command") or "").strip()
    if not command:
        raise RefusedError(
            f"{component.ref} has an archive of its log, and nobody said how it is asked.",
            data="Nothing was changed.",
            hint='Say it in [recovery]: archive = "…", a directory or a command as restore_command has it.',
            code="no-archive",
        )
    control = Control(**control_fields(component.ref.name, component.facts))
    if source.archive and "%" not in source.archive:
        command = command_for(command)
    place = f"{source.folder}/in"
    with contextlib.suppress(FileExistsError):
        os.mkdir(place, 0o700)
        os.chown(place, control.uid, control.gid)
    folder, notes = stack.enter_context(opened(place)), stack.enter_context(opened(source.folder))
    shows = _shows_control(component, data, image, source.folder, control)
    first = first or Log.of(image).name_at(image.timeline, parse_lsn(image.redo_lsn))
    asking = Asking(command, place, as_owner(control), first, image.segment_bytes, shows)
    return Command(source.caption, folder, witness(shown), asking, notes)


def command_for(directory: str) -> str:
    """How a directory is asked: as a command, since a filesystem that does not answer would hold us for ever."""
    path = shlex.quote(directory)
    there = f"ls -d -- {path}/. > /dev/null || exit {_NOTHING}; test -e {path}/%f || exit 1"
    return f'{there}; cp -- {path}/%f "%p" || exit {_NOTHING}'


def _shows_control(component: Component, data: int, image: ControlFile, folder: str, control: Control) -> str:
    """A directory with the replica's control file; empty where the server's own tells the same cluster."""
    with contextlib.suppress(SlackwaterError):
        live = read_control_file(control.data_directory)
        if live.intact and live.system_identifier == image.system_identifier:
            return ""
    place = f"{folder}/cluster"
    for each in (place, f"{place}/global"):
        os.makedirs(each, exist_ok=True)
        os.chmod(each, 0o755)  # noqa: S103  # whatever our umask is, its owner reads it
    with contextlib.suppress(FileExistsError):
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(f"{place}/global/pg_control", flags, 0o600)
        found = os.open("global/pg_control", os.O_RDONLY | os.O_CLOEXEC, dir_fd=data)
        try:
            fill(found, fd, os.fstat(found).st_size)
            os.fchown(fd, control.uid, control.gid)
        finally:
            os.close(found)
            os.close(fd)
    return place


def must_have_room(data: int, count: int, segment_bytes: int) -> None:
    """See that so many segments fit beside a clone.

    Raises:
        RefusedError: they would fill its filesystem, and with it the live one's.
    """
    room = os.fstatvfs(data)
    needed = count * segment_bytes + room.f_blocks * room.f_frsize * _LEFT_FREE // 100
    if count and room.f_bavail * room.f_frsize < needed:
        raise RefusedError(
            f"There is no room for {format_bytes(count * segment_bytes)} of log beside the clone.",
            data="Nothing was switched.",
            hint="Make room, or recover from a later replica.",
            code="log-room",
        )


def _is_file(name: str, folder: int) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return stat.S_ISREG(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
    return False


def highest(archive: Archive | None, component: Component, timeline: int, shown: Sequence[Source]) -> int:
    """The highest number of a timeline that these and an archive know.

    Raises:
        SlackwaterError: the archive does not answer.
    """
    names = (name[:8] for each in shown for name in each.names if history.OF_TIMELINE.fullmatch(name))
    known = max([timeline, *(int(each, 16) for each in names)])
    if archive is None:
        return known
    known = archive.find_histories(known)
    archive.settle()
    if archive.trouble:
        raise SlackwaterError(
            f"{archive.caption.capitalize()} of {component.ref} cannot be asked: {archive.trouble}.",
            data="Nothing was changed.",
            hint="See whether it can be reached. A history that only it knows of could get the same number again.",
            code="archive-unreachable",
        )
    return known


def witness(sources: Sequence[Source]) -> str:
    """The newest file that a server knows to be archived; empty where none tells. Sources in order of age.

    Only of the timeline that a server is on: what was before, it may have got by a recovery, and not have archived.
    """
    for source in reversed(sources):
        if "archive_status" not in source.names:
            continue
        timeline = history.newest(source.names)
        with contextlib.suppress(OSError), opened("archive_status", source.folder) as status:
            done = [name.removesuffix(".done") for name in os.listdir(status) if name.endswith(".done")]
            mine = [name for name in done if history.OF_TIMELINE.fullmatch(name) and name.startswith(timeline)]
            if mine:
                return max(mine)
    return ""
