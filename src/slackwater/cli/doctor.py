# SPDX-License-Identifier: Apache-2.0
"""`slackwater doctor`: is this host able to do what is asked of it? Each check has a name and looks at one thing."""

import os
import platform
import sys
from collections.abc import Callable
from glob import glob
from typing import TYPE_CHECKING, Annotated

import typer

from slackwater.cli.app import verb
from slackwater.cli.frame import open_cell
from slackwater.cli.options import Json
from slackwater.cli.values import Check, Diagnosis, Health
from slackwater.cli.waiting import EXAMINING, waiting
from slackwater.errors import RightsError, SlackwaterError

if TYPE_CHECKING:
    from slackwater.sessions.cell import Cell

Found = tuple[Health, str, str]
_Bundle = Annotated[
    str, typer.Option("--bundle", metavar="FILE", help="Write what a bug report needs into a new file (.tar.gz).")
]


def join(app: typer.Typer) -> None:
    """Add the command to the application."""
    examples = ("slackwater doctor", "slackwater doctor --json", "slackwater doctor --bundle report.tar.gz")
    verb(app, "doctor", *examples, fails=(RightsError,))(doctor)


def doctor(bundle: _Bundle = "", json: Json = False) -> object:
    """Check what slackwater stands on here, and how to mend it.

    The exit status is 1 when something failed; notes are only worth knowing. With --bundle the answer is a file with
    all that a bug report needs, from which secrets are removed.
    """
    cell = open_cell()
    with waiting(EXAMINING, unless=json):
        diagnosis = Diagnosis(tuple(_look(name, look, cell) for name, look in CHECKS.items()))
    if not bundle:
        return diagnosis
    from slackwater.cli.bundle import make
    from slackwater.hosts.rights import require_root

    require_root()
    with waiting(EXAMINING, unless=json):
        return make(cell, bundle, diagnosis)


def _look(name: str, look: Callable[["Cell"], Found], cell: "Cell") -> Check:
    """One check; that one of them cannot be made is a finding too."""
    try:
        health, sentence, hint = look(cell)
    except SlackwaterError as e:
        health, sentence, hint = Health.FAILED, e.sentence, e.hint
    except Exception as e:  # noqa: BLE001  # whatever is broken here, the other checks are still wanted
        health, sentence, hint = Health.FAILED, f"{type(e).__name__}: {e}", ""
    return Check(name, health, sentence, hint)


def _ok(sentence: str) -> Found:
    return Health.OK, sentence, ""


def _root(cell: "Cell") -> Found:
    if os.geteuid() == 0:
        return _ok("We are root.")
    return Health.FAILED, f"We are user {os.geteuid()}, who can look but not back up or recover.", "Run it with sudo."


def _python(cell: "Cell") -> Found:
    return _ok(f"Python {platform.python_version()} ({sys.executable}).")


def _kernel(cell: "Cell") -> Found:
    with open("/proc/filesystems", encoding="ascii") as f:
        known = [line.split()[-1] for line in f]
    if "btrfs" in known:
        return _ok(f"Linux {platform.release()} knows Btrfs.")
    return Health.FAILED, f"Linux {platform.release()} does not know Btrfs now.", "modprobe btrfs"


def _freezer(cell: "Cell") -> Found:
    from slackwater.system import cgroups

    root = cgroups.root()
    if glob(f"{root}/*/cgroup.freeze"):
        return _ok(f"Processes can be frozen by cgroup version 2 ({root}).")
    if tuple(int(part) for part in platform.release().split(".")[:2]) >= (5, 2):
        return _ok(f"cgroup version 2 is at {root}; this kernel's can freeze.")
    return Health.FAILED, f"The kernel's cgroups ({root}) cannot freeze.", "Linux 5.2 and later can."


def _detached(cell: "Cell") -> Found:
    from slackwater.system import mounts

    try:
        with mounts.detached("tmpfs", "slackwater-doctor", {}, read_only=True):
            return _ok("Filesystems can be reached through mounts that nobody else sees.")
    except PermissionError:
        return Health.NOTE, "Only root may make detached mounts.", "Run it with sudo."
    except OSError as e:
        return Health.FAILED, f"Detached mounts cannot be made: {e.strerror}.", "Linux 5.2 and later can."


def _namespaces(cell: "Cell") -> Found:
    from slackwater.system import namespaces

    if why := namespaces.impossible():
        said = f"An engine cannot be kept apart on a clone, so replicas on Btrfs cannot be verified: {why}."
        return Health.NOTE, said, "Run it as root on the host itself, not in a container."
    return _ok("An engine on a clone can be kept apart, in namespaces of its own.")


def _postgresql(cell: "Cell") -> Found:
    try:
        import psycopg
    except ImportError as e:
        return Health.FAILED, f"psycopg cannot be loaded: {e}.", "pip install 'slackwater[postgresql]'"
    libpq = psycopg.pq.version()
    return _ok(f"psycopg {psycopg.__version__} ({psycopg.pq.__impl__}), libpq {libpq // 10000}.{libpq % 10000}.")


def _plugins(cell: "Cell") -> Found:
    from slackwater.hosts.plugins import load_providers, load_writers

    writers, broken_writers = load_writers({})
    providers, broken_providers = load_providers("")
    for each in (*broken_writers, *broken_providers):
        return Health.FAILED, each.sentence, each.hint
    if not (writers and providers):
        return (
            Health.FAILED,
            "No writer or no provider is installed.",
            "Install slackwater again: its entry points are lost.",
        )
    return _ok(f"Writers: {', '.join(sorted(writers))}. Providers: {', '.join(sorted(providers))}.")


def _settings(cell: "Cell") -> Found:
    where = cell.places.settings_file
    changed = [key for key, origin in cell.settings.origins(where).items() if origin != "default"]
    return _ok(f"{where}: {', '.join(changed)}." if changed else f"The defaults hold ({where} sets nothing).")


def _specifications(cell: "Cell") -> Found:
    good, broken = cell.specifications
    if broken:
        return (
            Health.FAILED,
            broken[0].error.sentence,
            broken[0].error.hint or f"slackwater spec check {broken[0].name}",
        )
    return _ok(f"{len(good)} can be read in {cell.places.specs_dir}.")


def _state(cell: "Cell") -> Found:
    path = cell.places.state_dir
    kind = _filesystem(path)
    if kind in ("tmpfs", "ramfs"):
        return Health.FAILED, f"{path} lies on {kind}, so the catalog ends with the boot.", "Set SLACKWATER_STATE_DIR."
    if not os.path.isdir(path):
        return Health.NOTE, f"{path} is not there yet (on {kind}); the first session makes it.", ""
    return _ok(f"{path} lies on {kind}.")


def _runtime(cell: "Cell") -> Found:
    path = cell.places.run_dir
    kind = _filesystem(path)
    if kind in ("tmpfs", "ramfs"):
        return _ok(f"{path} lies on {kind}.")
    return Health.NOTE, f"{path} lies on {kind}; what is frozen should be noted on tmpfs.", "Set SLACKWATER_RUN_DIR."


def _filesystem(path: str) -> str:
    """The type of the filesystem that carries a path, or will when it is made."""
    from slackwater.system import mounts

    while not os.path.exists(path):
        path = os.path.dirname(path)
    found = mounts.mount_of(path)
    return found.fstype if found else "an unknown filesystem"


def _catalog(cell: "Cell") -> Found:
    path = cell.places.catalog_file
    if not (os.path.exists(path) and os.path.getsize(path)):
        if os.path.exists(cell.places.owner_file):
            return Health.NOTE, f"There is no catalog at {path}.", "If there was one: slackwater catalog rebuild"
        return Health.NOTE, f"{path} is not there yet; the first session makes it.", ""
    damage = cell.catalog.check()
    if damage:
        return (
            Health.FAILED,
            f"{cell.places.catalog_file} is damaged: {damage[0]}.",
            "Move it away, then: slackwater catalog rebuild",
        )
    return _ok(f"Replicas: {len(cell.catalog.replicas.list())}. Sessions: {len(cell.catalog.sessions.list())}.")


def _journal(cell: "Cell") -> Found:
    if not os.path.exists(cell.places.journal_file):
        return Health.NOTE, f"{cell.places.journal_file} is not there yet; the first session makes it.", ""
    pending = cell.host.pending()
    if pending:
        return Health.FAILED, f"Sessions that were cut off: {', '.join(pending)}.", "slackwater reconcile"
    return _ok("No session was cut off.")


def _leftovers(cell: "Cell") -> Found:
    records = sorted(os.path.basename(each) for each in glob(f"{cell.places.guard_dir}/guard.*.json"))
    if not records:
        return _ok("No guard is at work, and none left anything frozen.")
    return Health.NOTE, f"Guards at work, or records they left: {', '.join(records)}.", "slackwater session list"


CHECKS: dict[str, Callable[["Cell"], Found]] = {
    "root": _root,
    "python": _python,
    "btrfs": _kernel,
    "freezer": _freezer,
    "detached mounts": _detached,
    "namespaces": _namespaces,
    "psycopg": _postgresql,
    "plug-ins": _plugins,
    "settings": _settings,
    "specifications": _specifications,
    "state folder": _state,
    "run folder": _runtime,
    "catalog": _catalog,
    "journal": _journal,
    "leftovers": _leftovers,
}
