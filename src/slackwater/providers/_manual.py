# SPDX-License-Identifier: Apache-2.0
"""The page of plain commands that recover a replica without us, as it lies beside the copies."""

from collections.abc import Sequence

from slackwater.model.replica import BackupComponents
from slackwater.model.storage import ShadowCopy


def beside(document: BackupComponents, copies: Sequence[ShadowCopy], lines: Sequence[str]) -> str:
    """Write RECOVER.txt where copies lie beside their volumes.

    Args:
        document: of the replica.
        copies: those of it that lie there.
        lines: the commands, one after the other.
    """
    components = ", ".join(str(record.component.ref) for record in document.components) or "no component"
    others = len(document.copies) - len(copies)
    elsewhere = f"\nIt has {others} more on other filesystems, with commands of their own beside them: run all.\n"
    commands = "\n".join(f"    {line}" for line in lines)
    return f"""This is the replica {document.session} of {components}, of {document.created.isoformat()}.
{elsewhere if others else ""}
To recover it by hand, without Slackwater: stop the application, run these commands as root, one after the other,
and start the application. If one fails, stop there and see why.

{commands}

What was there before then lies beside, as PATH.before-{document.session}; the replica itself is unchanged and can be
used again.
"""
