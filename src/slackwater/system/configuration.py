# SPDX-License-Identifier: Apache-2.0
"""Putting configuration files back as a replica recorded them, and forgetting what they replaced.

All of it is done with the rights of the user as whom the engine runs (`owned`): the folders are his, as a rule, so he
could lay links in them that lead root where he may not go.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import ClassVar

from slackwater.errors import SlackwaterError
from slackwater.model.component import Component
from slackwater.model.facts import Facts
from slackwater.system.files import exchange
from slackwater.system.owned import LIMIT_BYTES, Folder, Found, Owner, digest, opened

_MODE = 0o640
"""Of a file that was gone."""
ABSENT = ""
"""The digest of a file that is not there."""


@dataclass(frozen=True, slots=True)
class _Names:
    """The names that a session uses beside a file. An engine that includes whole folders leaves hidden files out."""

    file: str
    spare: str
    """Whole, or not there: what is to be put; after the exchange, what was replaced."""
    part: str
    kept: str
    """What somebody has written meanwhile; to be seen, and without the ending by which a folder's files are included.
    """

    @classmethod
    def of(cls, name: str, session: str) -> "_Names":
        hidden = f".{name}.slackwater-{session}"
        return cls(name, hidden, f"{hidden}.new", f"{name}.slackwater-{session}")


@dataclass(frozen=True, slots=True)
class PutConfiguration:
    """Write a file anew, with the mode that it has; what it replaces stays beside it, under a hidden name.

    Undone by putting that back. What somebody else has written meanwhile is never lost: it makes `make` fail, or is
    kept beside the file as `NAME.slackwater-SESSION`.
    """

    kind: ClassVar[str] = "configuration.put"
    session: str
    path: str
    text: str
    present: str
    """The digest of what it replaces; `ABSENT` for a file that is gone."""
    uid: int
    gid: int

    def describe(self) -> str:
        """Say what making it does."""
        return f"put {self.path} back as it was at the backup"

    def make(self) -> Facts:
        """Write it.

        Raises:
            SlackwaterError: it is not what it was when the recovery was planned, or cannot be written.
        """
        with _at(self.path, self.uid, self.gid, self.session) as (folder, names):
            if self.present == ABSENT:
                self._place(folder, names)
            else:
                self._replace(folder, names)
            folder.sync()
        return {}

    def _place(self, folder: Folder, names: _Names) -> None:
        spare, found = folder.find(names.spare), folder.find(names.file)
        if found is not None:
            if spare is not None and _same(spare, found):
                return  # made already
            raise _changed(self.path)
        self._stage(folder, names, _MODE, self.gid)
        try:
            folder.link(names.spare, names.file)
        except FileExistsError:
            raise _changed(self.path) from None

    def _replace(self, folder: Folder, names: _Names) -> None:
        spare, found = folder.find(names.spare), folder.find(names.file)
        if spare is None or spare.digest == self._wanted:
            if found is None or found.digest != self.present:
                raise _changed(self.path)
            self._stage(folder, names, found.status.st_mode, found.status.st_gid)
            exchange(folder.fd, names.spare, names.file)
            spare = folder.find(names.spare)
        if spare is None or spare.digest != self.present:  # of the last instant before the exchange
            exchange(folder.fd, names.spare, names.file)
            raise _changed(self.path)

    def _stage(self, folder: Folder, names: _Names, mode: int, gid: int) -> None:
        folder.write(names.part, self.text.encode(), mode, gid)
        folder.rename(names.part, names.spare)

    @property
    def _wanted(self) -> str:
        return digest(self.text.encode())

    def undo(self) -> None:
        """Put back what was there.

        Raises:
            SlackwaterError: its folder cannot be written.
        """
        with suppress(_FolderGoneError), _at(self.path, self.uid, self.gid, self.session) as (folder, names):
            folder.remove(names.part)
            if (spare := folder.find(names.spare)) is None:
                return
            found = folder.find(names.file)
            if self.present == ABSENT:
                self._withdraw(folder, names, spare, found)
            elif spare.digest != self._wanted and not _same(spare, folder.find(names.kept)):
                self._return(folder, names, found)
            folder.remove(names.spare)
            folder.sync()

    def _withdraw(self, folder: Folder, names: _Names, spare: Found, found: Found | None) -> None:
        """Remove the file, if it is the one that was placed: a second name of the spare."""
        if _same(spare, found) and spare.digest == self._wanted:
            folder.remove(names.file)
        elif _same(spare, found):
            folder.rename(names.file, names.kept)

    def _return(self, folder: Folder, names: _Names, found: Found | None) -> None:
        """Put the replaced file, which is the spare, in its place again."""
        if found is None:
            folder.link(names.spare, names.file)
            return
        if found.digest != self._wanted:
            _keep(folder, names.file, names)
        exchange(folder.fd, names.spare, names.file)


@dataclass(frozen=True, slots=True)
class RemoveConfiguration:
    """Remove a file that a recovery had put where there was none, if it is still what was put. Undone by its return."""

    kind: ClassVar[str] = "configuration.remove"
    session: str
    path: str
    put: str
    """The digest of what was put."""
    uid: int
    gid: int

    def describe(self) -> str:
        """Say what making it does."""
        return f"remove {self.path}, which was not there before"

    def make(self) -> Facts:
        """Remove it. Gone already: nothing.

        Raises:
            SlackwaterError: it is not what it was when the recovery was planned, or cannot be removed.
        """
        with _at(self.path, self.uid, self.gid, self.session) as (folder, names):
            if folder.find(names.spare) is None:
                if (found := folder.find(names.file)) is None:
                    return {}
                if found.digest != self.put:
                    raise _changed(self.path)
                folder.rename(names.file, names.spare)
            spare = folder.find(names.spare)
            if spare is None or spare.digest != self.put:  # of the last instant before
                raise _changed(self.path)
            folder.sync()
        return {}

    def undo(self) -> None:
        """Let it return, unless there is one again.

        Raises:
            SlackwaterError: its folder cannot be written.
        """
        with suppress(_FolderGoneError), _at(self.path, self.uid, self.gid, self.session) as (folder, names):
            if (spare := folder.find(names.spare)) is None:
                return
            try:
                folder.link(names.spare, names.file)
            except FileExistsError:
                if not _same(spare, folder.find(names.file)) and spare.digest != self.put:
                    _keep(folder, names.spare, names)
            folder.remove(names.spare)
            folder.sync()


@dataclass(frozen=True, slots=True)
class ForgetConfiguration:
    """Remove what a file replaced: the undo replica's document has it. Nothing to undo: the application is proven.

    What is not as the document has it was written during the recovery, and is kept as `NAME.slackwater-SESSION`.
    """

    kind: ClassVar[str] = "configuration.forget"
    session: str
    path: str
    known: tuple[str, ...]
    """Digests of what may go."""
    uid: int
    gid: int

    def describe(self) -> str:
        """Say what making it does."""
        return f"forget what {self.path} was; the undo replica's document has it"

    def make(self) -> Facts:
        """Remove it. Gone already: nothing.

        Raises:
            SlackwaterError: its folder cannot be written.
        """
        with suppress(_FolderGoneError), _at(self.path, self.uid, self.gid, self.session) as (folder, names):
            spare = folder.find(names.spare)
            if spare is not None and spare.digest not in self.known and not _same(spare, folder.find(names.file)):
                _keep(folder, names.spare, names)
            folder.remove(names.spare)
            folder.sync()
        return {}

    def undo(self) -> None:
        """Nothing."""


Change = PutConfiguration | RemoveConfiguration


def owner_of(component: Component) -> Owner:
    """As whom the engine runs, by its writer's facts `uid` and `gid`; root, as whom nothing is done, when unknown."""
    uid, gid = component.facts.get("uid"), component.facts.get("gid")
    return Owner(uid, gid) if isinstance(uid, int) and isinstance(gid, int) else Owner(0, 0)


def read_text(path: str, owner: Owner) -> str | None:
    """The text of a configuration file, as the engine can read it; None for a link, or what it cannot read."""
    try:
        with opened(path, owner) as (folder, name):
            found = folder.find(name)
    except OSError:
        return None
    return None if found is None else found.data.decode(errors="replace")


def exact(text: str) -> bool:
    """Whether what was read of a file is all of it, to the byte: what was no UTF-8 was replaced, what was long cut."""
    return "\ufffd" not in text and len(text.encode()) < LIMIT_BYTES


def plan(
    texts: Mapping[str, str], absent: Mapping[str, str], now: Mapping[str, str], owner: Owner, session: str
) -> list[Change]:
    """One effect for each file that is not as it was recorded. Looks at nothing.

    Args:
        texts: by path, as the replica has them.
        absent: by path, the digest of what a recovery had put where no file was.
        now: by path, as they are; the undo replica's document gets these, and no others are replaced.
        owner: as whom the engine runs.
        session: of the recovery.
    """
    is_now = {path: digest(text.encode()) for path, text in now.items()}
    put: list[Change] = [
        PutConfiguration(session, path, text, is_now.get(path, ABSENT), owner.uid, owner.gid)
        for path, text in texts.items()
        if now.get(path) != text
    ]
    put += [
        RemoveConfiguration(session, path, was, owner.uid, owner.gid)
        for path, was in absent.items()
        if is_now.get(path) == was
    ]
    return put


def forget(change: Change) -> ForgetConfiguration:
    """What ends a change, once the application is proven."""
    known = (change.present, digest(change.text.encode())) if isinstance(change, PutConfiguration) else (change.put,)
    return ForgetConfiguration(change.session, change.path, known, change.uid, change.gid)


class _FolderGoneError(SlackwaterError):
    """Nothing can be there to be undone."""

    code = "configuration"


@contextmanager
def _at(path: str, uid: int, gid: int, session: str) -> Iterator[tuple[Folder, _Names]]:
    """Work beside a file; what the kernel refuses becomes an error for people."""
    there = False
    try:
        with opened(path, Owner(uid, gid)) as (folder, name):
            there = True
            yield folder, _Names.of(name, session)
    except OSError as e:
        error = _FolderGoneError if isinstance(e, FileNotFoundError) and not there else SlackwaterError
        raise error(f"{path} cannot be written: {e.strerror}.", code="configuration") from e


def _changed(path: str) -> SlackwaterError:
    return SlackwaterError(
        f"{path} was changed while the recovery ran.",
        data="What stands in it now is kept.",
        hint="Recover again, when nobody edits it.",
        code="configuration",
    )


def _same(one: Found, other: Found | None) -> bool:
    """Whether both are names of one file."""
    return other is not None and one.status.st_ino == other.status.st_ino


def _keep(folder: Folder, name: str, names: _Names) -> None:
    """Give a file the name under which people find it."""
    folder.remove(names.kept)
    folder.link(name, names.kept)
