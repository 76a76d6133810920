# SPDX-License-Identifier: Apache-2.0
"""What every provider must do, as checks that anybody can run on scratch volumes of real storage.

A factory in, the whole suite out, as plain sentences, with no test framework:

    for verdict in examine(MyProvider, ["/srv/scratch/one", "/srv/scratch/two"]):
        print(verdict.demand, verdict.why_not or "kept")

The scratch volumes are empty directories on one filesystem, each a volume of its own to the provider, and nobody
else's: everything in them is written, switched and deleted again and again. What a check makes bears an owner's tag of
its own, and is gone afterwards.
"""

import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from slackwater.providers._conformance.checks import CHECKS
from slackwater.providers._conformance.ground import BrokenPromiseError, Ground
from slackwater.providers.contract import Provider


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one check found."""

    check: str
    """Its name."""
    demand: str
    """What the contract demands, as one sentence."""
    why_not: str
    """How the provider falls short of it; empty when it does not."""

    @property
    def kept(self) -> bool:
        """Whether the provider does what is demanded."""
        return not self.why_not


def examine(factory: Callable[[str], Provider], paths: Sequence[str], only: Sequence[str] = ()) -> Iterator[Verdict]:
    """Run the checks one by one; after each of them the volumes are empty again.

    Args:
        factory: makes the provider of an owner's id.
        paths: the scratch volumes; checks that need two are left out where there is one.
        only: names of checks; all when left out.

    Raises:
        ValueError: a path is no empty directory, or no volume of its own.
        BrokenPromiseError: what a check made could not be taken away again; no further check could be believed.
    """
    owner = f"conformance-{secrets.token_hex(8)}"
    Ground(factory, owner, paths).must_be_scratch()
    for name, check in CHECKS.items():
        ground = Ground(factory, owner, paths)
        if (not only or name in only) and ground.can(name):
            demand = (check.__doc__ or "").partition("\n")[0]
            found = _tried(check, ground)
            left = ground.clear()
            yield Verdict(name, demand, found or left)
            if ground.spoilt:
                raise BrokenPromiseError(ground.spoilt)


def _tried(check: Callable[[Ground], None], ground: Ground) -> str:
    try:
        check(ground)
    except BrokenPromiseError as e:
        return str(e)
    except Exception as e:  # noqa: BLE001  # a stranger's provider may raise anything, and that is the finding
        return f"it raised {type(e).__name__}: {e}"
    return ""
