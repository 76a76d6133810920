# SPDX-License-Identifier: Apache-2.0
"""Seeing for ourselves what providers say they have made, before a session relies on it: a plug-in may lie."""

import os
from collections.abc import Iterator
from contextlib import ExitStack

from slackwater.errors import SlackwaterError
from slackwater.model.replica import BackupComponents
from slackwater.recovery.order import Hands, trees_of


def must_be_there(document: BackupComponents, hands: Hands) -> None:
    """Look at a set that was just taken: each copy as it was made, the files in it, the document beside it.

    Raises:
        SlackwaterError: something is not as its provider said.
    """
    for why in _missing(document, hands):
        raise SlackwaterError(
            f"A copy is not what its provider says: {why}.",
            data="The application goes on, and nothing was kept.",
            hint="Tell the authors of the provider; `slackwater provider test` shows which promise it breaks.",
            code="not-as-said",
        )


def _missing(document: BackupComponents, hands: Hands) -> Iterator[str]:
    for copy in document.copies:
        if why := hands.providers[copy.provider].altered(copy):
            yield f"{copy.place}: {why}"
    with ExitStack() as reached:
        pairs = [(copy.volume.path, copy) for copy in document.copies]
        for trees in trees_of([each.component for each in document.components], pairs, hands, reached).values():
            for path, tree in trees.items():
                if not os.path.isdir(tree):
                    yield f"{path} is not in it"
                elif os.path.samefile(path, tree):
                    yield f"it is {path} itself"
    for name in sorted({copy.provider for copy in document.copies}):
        found = [each for each in hands.providers[name].find() if each.session == document.session]
        if not any(each.document for each in found):
            yield f"the document that {name} should have written does not lie beside it"
