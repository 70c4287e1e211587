"""What the table says of each option."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from culvert.config.values import Form


class Scope(enum.Enum):
    """Where an option may stand. A service option in front of the first `[section]` is a default."""

    GLOBAL = "global"
    SERVICE = "service"
    BOTH = "both"


class Availability(enum.Enum):
    """What this version does with an option.

    UNSUPPORTED ones are checked like any other option, and refused unless they are set to their default,
    which asks for nothing. OBSOLETE is accepted with a warning, NEEDLESS with a note.
    """

    AVAILABLE = "available"
    OBSOLETE = "obsolete"
    NEEDLESS = "needless"
    UNSUPPORTED = "unsupported"


@dataclass(frozen=True, slots=True)
class Option:
    """One option.

    `default` is the typed value where the file does not set the option; a repeatable option's value is a
    tuple of what its form gives. `global_field` and `service_fields` name what it fills in the model.
    `reason` completes the message about an option that is obsolete, needless or unsupported. The value of
    a `secret` option is never shown. `remark` may say something of a value that is worth a note.
    """

    name: str
    scope: Scope
    form: Form
    help: str
    default: Any = None
    repeatable: bool = False
    aliases: tuple[str, ...] = ()
    global_field: str | None = None
    service_fields: tuple[str, ...] = ()
    availability: Availability = Availability.AVAILABLE
    reason: str = ""
    since: str = "0.1"
    secret: bool = False
    remark: Callable[[Any], str | None] | None = None
