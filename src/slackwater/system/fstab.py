# SPDX-License-Identifier: Apache-2.0
"""What init will mount at the next start: /etc/fstab and systemd's mount units. Read only."""

import glob
import os
from collections.abc import Sequence
from dataclasses import dataclass

from slackwater.system.mounts import unescape

FSTAB = "/etc/fstab"
#: Where systemd looks for units, first found wins (systemd.unit(5)); what its generator made of fstab is left out.
UNIT_DIRECTORIES: Sequence[str] = (
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
)


@dataclass(frozen=True, slots=True)
class Entry:
    """One mount that init is told to make."""

    origin: str
    """The file that says so."""
    source: str
    target: str
    kind: str
    options: tuple[str, ...]
    line: str
    """The line to change, as it stands: of fstab the whole, of a unit its `Options=`."""

    def option(self, name: str) -> str | None:
        """The value of `name=value`, the last one counts; None without one."""
        values = [o.partition("=")[2].strip('"') for o in self.options if o.startswith(f"{name}=")]
        return values[-1] if values else None

    @property
    def device(self) -> str:
        """The device that `source` means, links resolved; a tag without a device stays as it is (fstab(5))."""
        tag, equals, value = self.source.partition("=")
        if equals and not tag.startswith("/"):
            path = f"/dev/disk/by-{tag.lower()}/{value.strip(chr(34))}"
            return os.path.realpath(path) if os.path.exists(path) else self.source
        return os.path.realpath(self.source)


def entries() -> tuple[Entry, ...]:
    """Everything that fstab and the mount units name, fstab first."""
    return _fstab_entries() + _unit_entries()


def _fstab_entries() -> tuple[Entry, ...]:
    try:
        with open(FSTAB, encoding="utf-8", errors="surrogateescape") as f:
            lines = [line.strip() for line in f]
    except FileNotFoundError:
        return ()
    found = []
    for line in lines:
        fields = line.split()
        if len(fields) >= 3 and not line.startswith("#"):
            source, target, kind, options = (unescape(f) for f in [*fields, "defaults"][:4])
            found.append(Entry(FSTAB, source, target.rstrip("/") or "/", kind, tuple(options.split(",")), line))
    return tuple(found)


def _unit_entries() -> tuple[Entry, ...]:
    units: dict[str, str] = {}
    for directory in UNIT_DIRECTORIES:
        for path in glob.glob(f"{glob.escape(directory)}/*.mount"):
            units.setdefault(os.path.basename(path), path)
    return tuple(entry for name, path in sorted(units.items()) if (entry := _unit_entry(name, path)))


def _unit_entry(name: str, path: str) -> Entry | None:
    drop_ins: dict[str, str] = {}
    for directory in UNIT_DIRECTORIES:
        for extra in glob.glob(f"{glob.escape(directory)}/{glob.escape(name)}.d/*.conf"):
            drop_ins.setdefault(os.path.basename(extra), extra)
    values = {"What": "", "Where": "", "Type": "", "Options": ""}
    origin = path
    for file in (path, *(drop_ins[key] for key in sorted(drop_ins))):
        changed = _mount_section(file)
        origin = file if "Options" in changed else origin
        values |= changed
    if not (values["What"] and values["Where"]):
        return None
    options = tuple(values["Options"].split(",")) if values["Options"] else ()
    target = values["Where"].rstrip("/") or "/"
    return Entry(origin, values["What"], target, values["Type"], options, f"Options={values['Options']}")


def _mount_section(path: str) -> dict[str, str]:
    found: dict[str, str] = {}
    section = ""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as f:
            for line in (raw.strip() for raw in f):
                if line.startswith("["):
                    section = line
                key, equals, value = line.partition("=")
                if equals and section == "[Mount]" and key.strip() in ("What", "Where", "Type", "Options"):
                    found[key.strip()] = value.strip()
    except OSError:
        return {}  # masked, or a link that leads nowhere
    return found
