# SPDX-License-Identifier: Apache-2.0
"""The plain commands that recover a replica without us, as they lie beside it."""

from slackwater.model.replica import BackupComponents
from slackwater.model.storage import ShadowCopy


def manual(document: BackupComponents, filesystem: str) -> str:
    """Write RECOVER.txt for the copies of a document that lie on one filesystem."""
    components = ", ".join(str(record.component.ref) for record in document.components) or "no component"
    copies = [copy for copy in document.copies if copy.volume.facts["filesystem"] == filesystem]
    steps = "\n".join(_step(copy, document.session) for copy in copies)
    return f"""This is the replica {document.session} of {components}, of {document.created.isoformat()}.
To recover it by hand, without Slackwater, as root:

  1. Stop the application, and unmount the volumes named below where they are mounted by themselves.
  2. mkdir -p /run/top && mount -t btrfs -o subvolid=5 UUID={filesystem} /run/top && cd /run/top
{steps}
  3. cd / && umount /run/top, mount the volumes again by subvol=PATH, and start the application.

The old data then lies at PATH.before-{document.session}; the replica itself is unchanged and can be used again.
"""


def _step(copy: ShadowCopy, session: str) -> str:
    path = f"/run/top/{copy.volume.facts['subvolume']}"
    return f"     mv -T {path} {path}.before-{session}\n     btrfs subvolume snapshot /run/top/{copy.place} {path}"
