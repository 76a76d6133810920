# SPDX-License-Identifier: Apache-2.0
"""The cell: the hosts under one catalog. One host for now, with everything a session needs to find."""

from dataclasses import dataclass
from functools import cached_property

from slackwater.catalog.catalog import Catalog
from slackwater.config import specification as specs
from slackwater.config.places import Places
from slackwater.config.settings import Settings
from slackwater.config.settings import load as load_settings
from slackwater.hosts.contract import Host
from slackwater.hosts.local import LocalHost
from slackwater.model.component import Credentials
from slackwater.system.clock import SYSTEM_CLOCK, Clock


@dataclass
class Cell:
    """Places, settings, specifications, catalog and host of this installation; each read when it is first needed."""

    places: Places
    clock: Clock = SYSTEM_CLOCK
    writing: bool = False
    """False: nothing is created on the disk, not even an empty catalog (previews, lists)."""

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
        credentials: dict[str, dict[str, Credentials]] = {}
        for specification in self.specifications[0]:
            for ref, how in specification.credentials.items():
                if how == Credentials():
                    continue  # says nothing, and must not undo what another specification says of the same component
                credentials.setdefault(ref.writer, {})[ref.name] = how
        return LocalHost(
            owner=self.places.owner(create=self.writing),
            journal_file=self.places.journal_file,
            guard_dir=self.places.guard_dir,
            credentials=credentials,
            clock=self.clock,
        )

    def for_writing(self) -> "Cell":
        """The same cell, allowed to create its state."""
        return self if self.writing else Cell(self.places, self.clock, writing=True)
