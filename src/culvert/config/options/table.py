"""The whole table, and how a name is looked up in it."""

from __future__ import annotations

from culvert.config.options.access import ACCESS
from culvert.config.options.admin import ADMINISTRATION
from culvert.config.options.daemon import DAEMON
from culvert.config.options.endpoints import ENDPOINTS
from culvert.config.options.identity import IDENTITY
from culvert.config.options.limits import LIMITS
from culvert.config.options.negotiation import NEGOTIATION
from culvert.config.options.option import Option, Scope
from culvert.config.options.tls import TLS
from culvert.config.options.vpn import VPN
from culvert.config.values import nearest


def _sorted(*parts: tuple[Option, ...]) -> tuple[Option, ...]:
    every = [option for part in parts for option in part]
    return tuple(sorted(every, key=lambda option: (option.scope is Scope.SERVICE, option.name.lower())))


OPTIONS = _sorted(DAEMON, ADMINISTRATION, ENDPOINTS, ACCESS, LIMITS, TLS, IDENTITY, NEGOTIATION, VPN)
"""Every option: those of the daemon first, then those of services, each part by name."""

_BY_NAME = {name.lower(): option for option in OPTIONS for name in (option.name, *option.aliases)}


def find(name: str) -> Option | None:
    """The option of that name, in whatever case it is written."""
    return _BY_NAME.get(name.lower())


def named(name: str) -> Option:
    """The option that the table spells so; KeyError if there is none."""
    return _BY_NAME[name.lower()]


def names() -> list[str]:
    """Every name that an option has, for hints."""
    return [name for option in OPTIONS for name in (option.name, *option.aliases)]


def hides(name: str) -> bool:
    """Whether the value behind this name, which may be misspelt, must not be shown."""
    option = find(name)
    if option is None:
        meant = nearest(name, names())
        option = None if meant is None else find(meant)
    return option is not None and option.secret
