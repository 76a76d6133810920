# SPDX-License-Identifier: Apache-2.0
"""Where no namespaces can be had: every link out of a clone made to lead into it, and looked at again.

A data directory holds absolute links to its tablespaces and its log. A clone that is started with one of them left
writes into the live database, without one line in any log.
"""

import os

from slackwater.errors import RefusedError
from slackwater.writers._postgresql.files import links
from slackwater.writers.contract import Clone


def lead_inside(clone: Clone) -> None:
    """Rewrite the links of the clone's data directory; the same links for one that was rewritten before.

    Raises:
        RefusedError: a link still leads out of the clone.
    """
    data = clone.trees[str(clone.component.facts["data_directory"])]
    for files in clone.component.files:
        link = os.path.join(data, files.via)
        if files.via and os.path.islink(link):
            draft = f"{link}.slackwater"
            os.symlink(clone.trees[files.path], draft)
            os.replace(draft, link)
    refuse_outside(clone)


def refuse_outside(clone: Clone) -> None:
    """Look at every link that an engine follows.

    Raises:
        RefusedError: one leads out of the clone.
    """
    data = clone.trees[str(clone.component.facts["data_directory"])]
    inside = [os.path.realpath(tree) for tree in clone.trees.values()]
    for via, target in links(data):
        if not os.path.isfile(target) and not any(target == tree or target.startswith(f"{tree}/") for tree in inside):
            raise RefusedError(
                f"{via} in the clone of {clone.component.ref} leads to {target}, out of the clone.",
                data="Nothing was started: it would have written there.",
                hint="Run it as root, where the clone gets namespaces of its own.",
                code="link-outside",
            )
