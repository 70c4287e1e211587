"""A service, or the defaults of all services, while its file is being read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from culvert.config.options import Option, Scope, named
from culvert.errors import Location


@dataclass(frozen=True, slots=True)
class Entry:
    """One setting: its typed value, and its rank among all settings in the order of reading."""

    value: Any
    location: Location
    rank: int


class Draft:
    """The settings of one section by option; those of `defaults` stand under its own.

    Names are spelt as in the table.
    """

    def __init__(self, title: str, location: Location, defaults: Draft | None = None) -> None:
        self._title = title
        self.location = location
        self._defaults = defaults
        self._entries: dict[str, list[Entry]] = {}
        self._spoilt: set[str] = set()

    @property
    def name(self) -> str:
        """What the service is called: its own `service` option, else what stands in the brackets."""
        renamed = self._entries.get("service")
        return str(renamed[-1].value) if renamed else self._title

    def add(self, option: Option, entry: Entry) -> Entry | None:
        """Set an option; returns the entry that this one replaces, if there is one."""
        entries = self._entries.setdefault(option.name, [])
        replaced = entries.pop() if entries and not option.repeatable else None
        entries.append(entry)
        return replaced

    def spoil(self, option: Option) -> None:
        """The file set this option, but to no value: a rule must not say that it is missing."""
        self._spoilt.add(option.name)

    def entries(self, name: str) -> list[Entry]:
        """What the file set, defaults first; the last one counts where the option is not repeatable."""
        inherited = [] if self._defaults is None else self._defaults.entries(name)
        return inherited + self._entries.get(name, [])

    def spoilt(self, name: str) -> bool:
        """Whether a line of this option was refused, so that its value is not what the operator meant."""
        return name in self._spoilt or (self._defaults is not None and self._defaults.spoilt(name))

    def mentions(self, name: str) -> bool:
        """Whether the file set the option, be it to a faulty value."""
        return self.spoilt(name) or bool(self.entries(name))

    def has_own(self, name: str) -> bool:
        """Whether the option stands in this section itself, with a value."""
        return bool(self._entries.get(name))

    def own_value(self, name: str) -> Any:
        """The typed value that this section itself sets, or the default; of an option that stands once."""
        entries = self._entries.get(name)
        return entries[-1].value if entries else named(name).default

    def value(self, name: str) -> Any:
        """The typed value, or the default; a tuple of what the file set for a repeatable option."""
        option = named(name)
        entries = self.entries(name)
        if not entries:
            return option.default
        return tuple(entry.value for entry in entries) if option.repeatable else entries[-1].value

    def where(self, *names: str) -> Location:
        """Where the first of these options that the file set stands last; else where the section begins."""
        for name in names:
            entries = self.entries(name)
            if entries:
                return entries[-1].location
        return self.location

    def locations(self, other_scope: Scope = Scope.GLOBAL) -> Mapping[str, Location]:
        """Where each option that the file set stands last, but for those of `other_scope`."""
        inherited = {} if self._defaults is None else self._defaults.locations(other_scope)
        own = {
            name: entries[-1].location
            for name, entries in self._entries.items()
            if entries and named(name).scope is not other_scope
        }
        return {**inherited, **own}
