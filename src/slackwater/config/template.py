# SPDX-License-Identifier: Apache-2.0
"""Writing a new specification: every option there is, with its default and one line of explanation.

The lines come from the same tables that read the file, so none can be missing or out of date.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence

from slackwater.config.around import HookOptions
from slackwater.config.files import create_whole, refuse_untrusted
from slackwater.config.specification import (
    BackupOptions,
    ComponentEntry,
    RecoveryOptions,
    ReplicaOptions,
    VerifyOptions,
    check_name,
)
from slackwater.config.tables import Table
from slackwater.errors import RightsError, SlackwaterError, UsageError
from slackwater.model.component import ComponentRef


def write_new(specs_dir: str, name: str, components: Sequence[ComponentRef]) -> str:
    """Write the commented file of a new specification, whole or not at all, and return its path.

    Raises:
        UsageError: the name cannot be one, or a specification of that name is there.
        RightsError: the folder may not be written, or we are root and others may write it.
        SlackwaterError: the disk is full, or a file is in the folder's place.
    """
    check_name(name)
    path = os.path.join(specs_dir, f"{name}.toml")
    try:
        os.makedirs(specs_dir, mode=0o755, exist_ok=True)
        refuse_untrusted(os.stat(specs_dir), specs_dir)
        create_whole(path, text_of(name, components))
    except FileExistsError as e:
        if not os.path.isdir(specs_dir):
            raise SlackwaterError(f"{specs_dir} is not a folder.", data="Nothing was changed.") from e
        raise UsageError(
            f"{path} is there already.", data="Nothing was changed.", hint="Edit it, or choose another name."
        ) from e
    except PermissionError as e:
        raise RightsError(f"{path} may not be written.", data="Nothing was changed.", hint="Run this as root.") from e
    except UnicodeEncodeError as e:
        raise UsageError(f"{path} cannot be written: a name in it is not Unicode.", data="Nothing was changed.") from e
    except OSError as e:
        raise SlackwaterError(f"{path} cannot be written: {e.strerror}.", data="Nothing was changed.") from e
    return path


def text_of(name: str, components: Sequence[ComponentRef]) -> str:
    """The text of a new specification's file."""
    lines = [_line("name", name, "equals the file's stem")]
    for ref in components:
        lines += ["", "[[component]]", *_lines(ComponentEntry, {"writer": ref.writer, "instance": ref.name})]
    lines += ["", "[replica]", *_lines(ReplicaOptions, {})]
    lines += ["", "[options]", *_lines(BackupOptions, {})]
    lines += ["", "[recovery]", *_lines(RecoveryOptions, {})]
    lines += [
        "# What stops before the application and starts after it, in this order; unit, container, or stop and start:",
        "# [[recovery.service]]",
        '# unit = "shop.service"',
    ]
    lines += ["", "[verify]", *_lines(VerifyOptions, {})]
    lines += [
        "",
        "# Commands of yours, which root runs; they and the folders above them have to belong to root.",
        "# [hooks]",
    ]
    for key, field in HookOptions.model_fields.items():
        example = f'# {key} = {{ command = ["/etc/slackwater/hooks/{key}"], timeout = "60s" }}'
        lines.append(f"{example:<82} # {field.description}")
    return "\n".join(lines) + "\n"


def _lines(table: type[Table], values: Mapping[str, str]) -> Iterator[str]:
    for key, field in table.model_fields.items():
        if field.default == ():  # tables of their own
            continue
        comment = field.description or ""
        if field.is_required():
            yield _line(key, values[key], comment)
        else:
            yield _line(key, field.default, f"{comment}; default {_value(field.default)}")


def _line(key: str, value: str | int, comment: str) -> str:
    return f"{f'{key} = {_value(value)}':<37} # {comment}"


def _value(value: str | int) -> str:
    """Write a value in TOML: its basic strings are JSON's, but for DEL, which it wants escaped."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
