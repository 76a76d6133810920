# SPDX-License-Identifier: Apache-2.0
"""The cell: the hosts under one catalog. One host for now, with everything a session needs to find."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from slackwater.catalog.catalog import Catalog
from slackwater.config import specification as specs
from slackwater.config.places import Places
from slackwater.config.settings import Settings
from slackwater.config.settings import load as load_settings
from slackwater.hosts.contract import Host
from slackwater.hosts.local import LocalHost
from slackwater.model.component import ComponentRef, Credentials, Handling
from slackwater.system.clock import SYSTEM_CLOCK, Clock


@dataclass
class Cell:
    """Places, settings, specifications, catalog and host of this installation; each read when it is first needed."""

    places: Places
    clock: Clock = SYSTEM_CLOCK
    writing: bool = False
    """False: nothing is created on the disk, not even an empty catalog (previews, lists)."""
    speaking_for: str = ""
    """The specification whose word counts where several say something of one component."""

    @cached_property
    def settings(self) -> Settings:
        """The host's settings."""
        return load_settings(self.places.settings_file)

    @cached_property
    def specifications(self) -> tuple[list[specs.Specification], list[specs.Broken]]:
        """All specifications: the good ones, and those that cannot be read, with why."""
        return specs.load_all(self.places.specs_dir)

    @cached_property
    def catalog(self) -> Catalog:
        """The internal database."""
        if self.writing:
            self.places.ensure()
        return Catalog.open(self.places.catalog_file, create=self.writing, clock=self.clock)

    @cached_property
    def host(self) -> Host:
        """The host we run on, knowing how to log in wherever a specification says."""
        if self.writing:
            self.places.ensure()
        return LocalHost(
            owner=self.places.owner(create=self.writing),
            journal_file=self.places.journal_file,
            guard_dir=self.places.guard_dir,
            handling=said_of(self.specifications[0], self.speaking_for),
            disabled_writers=self.settings.writers.disable,
            denied_paths=self.settings.volumes.deny,
            clock=self.clock,
        )

    def for_writing(self) -> "Cell":
        """The same cell, allowed to create its state."""
        return self if self.writing else Cell(self.places, self.clock, writing=True, speaking_for=self.speaking_for)

    def speaking(self, specification: str) -> "Cell":
        """The same cell, with this specification's word before that of others."""
        if specification == self.speaking_for:
            return self
        return Cell(self.places, self.clock, writing=self.writing, speaking_for=specification)


def said_of(specifications: Sequence[specs.Specification], first: str) -> dict[str, dict[str, Handling]]:
    """What specifications say of components, by writer and name.

    Who says nothing does not undo what another says of the same component. But how a component is held, stopped and
    started is for the one called `first` alone to say, where it names that component; only a login may be another's.
    """
    said: dict[ComponentRef, Handling] = {}
    for specification in sorted(specifications, key=lambda each: each.name == first):
        for ref, how in specification.handling.items():
            before = said.get(ref, Handling())
            if specification.name == first and how.credentials == Credentials():
                said[ref] = replace(how, credentials=before.credentials)
            elif specification.name == first or how != Handling():
                said[ref] = how
    found: dict[str, dict[str, Handling]] = {}
    for ref, how in said.items():
        found.setdefault(ref.writer, {})[ref.name] = how
    return found
