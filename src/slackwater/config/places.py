# SPDX-License-Identifier: Apache-2.0
"""Where things lie on this host, and the id of the installation."""

import os
import stat
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from slackwater.config.files import create_whole
from slackwater.errors import RightsError, SlackwaterError


@dataclass(frozen=True, slots=True)
class Places:
    """The three folders of an installation and what lies in them."""

    config_dir: str = "/etc/slackwater"
    state_dir: str = "/var/lib/slackwater"
    run_dir: str = "/run/slackwater"

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Self:
        """The defaults, moved by SLACKWATER_CONFIG_DIR, SLACKWATER_STATE_DIR and SLACKWATER_RUN_DIR."""
        given = os.environ if environment is None else environment
        moved = {key: given.get(f"SLACKWATER_{key.upper()}", "") for key in ("config_dir", "state_dir", "run_dir")}
        return cls(**{key: os.path.abspath(path) for key, path in moved.items() if path})

    @property
    def settings_file(self) -> str:
        """The host's settings."""
        return os.path.join(self.config_dir, "slackwater.toml")

    @property
    def specs_dir(self) -> str:
        """One TOML file for each specification."""
        return os.path.join(self.config_dir, "specs.d")

    @property
    def catalog_file(self) -> str:
        """Sessions and replicas."""
        return os.path.join(self.state_dir, "catalog.sqlite")

    @property
    def journal_file(self) -> str:
        """Effects made on this host."""
        return os.path.join(self.state_dir, "journal.sqlite")

    @property
    def owner_file(self) -> str:
        """The installation's id."""
        return os.path.join(self.state_dir, "owner")

    @property
    def session_lock(self) -> str:
        """One session at a time."""
        return os.path.join(self.run_dir, "session.lock")

    @property
    def guard_dir(self) -> str:
        """What is frozen or about to be; on tmpfs, so that it ends with the boot."""
        return os.path.join(self.run_dir, "guard")

    def clone_folder(self, session: str) -> str:
        """For the sockets and logs of a clone: beside the run folder, which nobody but root can pass."""
        return os.path.join(f"{self.run_dir}-clones", session)

    def ensure(self) -> None:
        """Make the state and run folders, for their owner only. Idempotent; never changes a folder that is there.

        Raises:
            RightsError: they may not be made, or one that is there belongs to another user or may be written by one.
            SlackwaterError: they cannot be made for another reason (a file is in the way, the disk is full).
        """
        folders = (
            (self.state_dir, "SLACKWATER_STATE_DIR"),
            (self.run_dir, "SLACKWATER_RUN_DIR"),
            (self.guard_dir, "SLACKWATER_RUN_DIR"),
        )
        for path, variable in folders:
            _ensure(path, variable)

    def owner(self, *, create: bool = True) -> str:
        """The installation's id, which tags everything it makes on storage; made once, then for ever the same.

        Without `create` nothing is written: where there is no id yet, a new one is returned and forgotten, which is
        right for previews, since no storage can bear it.

        Raises:
            RightsError: the file may not be read or made.
            SlackwaterError: what lies there is not an id. No new one is made, since what bears the old one would
                then belong to nobody.
        """
        try:
            return self._read_owner()
        except FileNotFoundError:
            made = str(uuid.uuid4())
        except PermissionError as e:
            raise _not_allowed(self.owner_file, "SLACKWATER_STATE_DIR", "read") from e
        if not create:
            return made
        self.ensure()
        try:
            create_whole(self.owner_file, made + "\n", mode=0o600)
        except FileExistsError:
            return self._read_owner()
        except PermissionError as e:
            raise _not_allowed(self.owner_file, "SLACKWATER_STATE_DIR", "made") from e
        except OSError as e:
            raise SlackwaterError(f"{self.owner_file} cannot be made: {e.strerror}.") from e
        return made

    def take_owner(self, owner: str) -> bool:
        """Become the installation of this id, where there is none yet; whether we are it now. Idempotent.

        Raises:
            RightsError, SlackwaterError: as `owner`.
        """
        try:
            return self._read_owner() == owner
        except FileNotFoundError:
            self.ensure()
        try:
            create_whole(self.owner_file, owner + "\n", mode=0o600)
        except OSError as e:
            raise SlackwaterError(f"{self.owner_file} cannot be made: {e.strerror}.") from e
        return True

    def _read_owner(self) -> str:
        with open(self.owner_file, encoding="ascii", errors="replace") as f:
            text = f.read().strip()
        try:
            return str(uuid.UUID(text))
        except ValueError as e:
            raise SlackwaterError(
                f"{self.owner_file} holds no installation id.",
                data="Nothing was changed; replicas on the storage are untouched.",
                hint="Put the file back from a backup; each replica's components.json names the id as `owner`.",
            ) from e


def _ensure(path: str, variable: str) -> None:
    try:
        os.makedirs(path, mode=0o700, exist_ok=True)
        status = os.stat(path)
    except PermissionError as e:
        raise _not_allowed(path, variable, "made") from e
    except OSError as e:
        raise SlackwaterError(
            f"The folder {path} cannot be made: {e.strerror}.",
            data="Nothing was changed.",
            hint=f"Put right what is in the way, or name another folder with {variable}.",
        ) from e
    if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o022:
        raise RightsError(
            f"The folder {path} belongs to another user, or others may write it.",
            data="Nothing was changed.",
            hint=f"Name a folder of your own with {variable}, or: chown {os.geteuid()} {path}; chmod 0700 {path}",
        )


def _not_allowed(path: str, variable: str, verb: str) -> RightsError:
    return RightsError(
        f"{path} may not be {verb} by user {os.geteuid()}.",
        data="Nothing was changed.",
        hint=f"Run this as root, or name a folder of your own with {variable}.",
    )
