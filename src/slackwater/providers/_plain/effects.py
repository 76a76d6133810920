# SPDX-License-Identifier: Apache-2.0
"""What the provider `plain` makes, by the names that journals know it by; see `_trees/effects`."""

from dataclasses import dataclass
from typing import ClassVar

from slackwater.providers._bars import BarEffect, UnbarEffect
from slackwater.providers._trees import effects
from slackwater.providers._trees.bars import Volumes


@dataclass(frozen=True, slots=True)
class MakePlace(effects.MakePlace):
    """The place of a session's copies."""

    kind: ClassVar[str] = "plain.place"


@dataclass(frozen=True, slots=True)
class Snapshot(effects.Snapshot):
    """The copy of a live directory."""

    kind: ClassVar[str] = "plain.snapshot"
    shares: ClassVar[bool] = False


@dataclass(frozen=True, slots=True)
class Fill(effects.Fill):
    """A full copy that is brought back."""

    kind: ClassVar[str] = "plain.fill"


@dataclass(frozen=True, slots=True)
class Clone(effects.Clone):
    """The clone of a copy."""

    kind: ClassVar[str] = "plain.clone"
    shares: ClassVar[bool] = False


@dataclass(frozen=True, slots=True)
class Exchange(effects.Exchange):
    """The exchange of a clone and the live directory."""

    kind: ClassVar[str] = "plain.exchange"


@dataclass(frozen=True, slots=True)
class Seal(effects.Seal):
    """What was set aside, as a replica."""

    kind: ClassVar[str] = "plain.seal"


@dataclass(frozen=True, slots=True)
class Delete(effects.Delete):
    """The end of a session's copies."""

    kind: ClassVar[str] = "plain.delete"


@dataclass(frozen=True, slots=True)
class Bar(Volumes, BarEffect):
    """The bar over half a switch."""

    kind: ClassVar[str] = "plain.bar"


@dataclass(frozen=True, slots=True)
class Unbar(Volumes, UnbarEffect):
    """Its end."""

    kind: ClassVar[str] = "plain.unbar"
