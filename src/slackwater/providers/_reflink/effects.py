# SPDX-License-Identifier: Apache-2.0
"""What the provider `reflink` makes, by the names that journals know it by; see `_trees/effects`."""

from dataclasses import dataclass
from typing import ClassVar

from slackwater.providers._bars import BarEffect, UnbarEffect
from slackwater.providers._trees import effects
from slackwater.providers._trees.bars import Volumes


@dataclass(frozen=True, slots=True)
class MakePlace(effects.MakePlace):
    """The place of a session's copies."""

    kind: ClassVar[str] = "reflink.place"


@dataclass(frozen=True, slots=True)
class Snapshot(effects.Snapshot):
    """The copy of a live directory."""

    kind: ClassVar[str] = "reflink.snapshot"
    shares: ClassVar[bool] = True


@dataclass(frozen=True, slots=True)
class Fill(effects.Fill):
    """A full copy that is brought back."""

    kind: ClassVar[str] = "reflink.fill"


@dataclass(frozen=True, slots=True)
class Clone(effects.Clone):
    """The clone of a copy."""

    kind: ClassVar[str] = "reflink.clone"
    shares: ClassVar[bool] = True


@dataclass(frozen=True, slots=True)
class Exchange(effects.Exchange):
    """The exchange of a clone and the live directory."""

    kind: ClassVar[str] = "reflink.exchange"


@dataclass(frozen=True, slots=True)
class Seal(effects.Seal):
    """What was set aside, as a replica."""

    kind: ClassVar[str] = "reflink.seal"


@dataclass(frozen=True, slots=True)
class Delete(effects.Delete):
    """The end of a session's copies."""

    kind: ClassVar[str] = "reflink.delete"


@dataclass(frozen=True, slots=True)
class Bar(Volumes, BarEffect):
    """The bar over half a switch."""

    kind: ClassVar[str] = "reflink.bar"


@dataclass(frozen=True, slots=True)
class Unbar(Volumes, UnbarEffect):
    """Its end."""

    kind: ClassVar[str] = "reflink.unbar"
