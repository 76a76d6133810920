# SPDX-License-Identifier: Apache-2.0
"""The plain commands that recover a full replica without us, as they lie beside it."""

from shlex import quote

from slackwater.model.replica import BackupComponents
from slackwater.model.storage import ShadowCopy
from slackwater.providers import _document


def manual(document: BackupComponents, copies: list[ShadowCopy]) -> str:
    """Write RECOVER.txt; the commands are run in the folder it lies in."""
    components = ", ".join(str(record.component.ref) for record in document.components) or "no component"
    lines = [*(line for copy in copies for line in _commands(copy)), *_document.by_hand(document, copies)]
    commands = "\n".join(f"    {line}" for line in lines)
    return f"""This is the full replica {document.session} of {components}, of {document.created.isoformat()}.

To recover it by hand, without Slackwater: stop the application, make or mount an empty volume at each path below (or
move away what lies there), and run these commands as root, in this folder, one after the other; then start the
application. If one fails, stop there and see why.

{commands}

The replica itself is unchanged and can be used again.
"""


def _commands(copy: ShadowCopy) -> list[str]:
    name, path = quote(copy.place.rpartition("/")[2]), quote(copy.volume.path)
    return [
        f"(cd {name} && sha256sum --quiet --check ../{name}.sha256)",
        f'test -d {path} && test -z "$(ls -A {path})"',
        f"cp -a --sparse=always -T {name} {path}",
    ]
