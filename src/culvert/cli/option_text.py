"""What the table of options says, in the words of a configuration file: defaults, and what is not there."""

from __future__ import annotations

import enum

from culvert.config.model import Debug, SocketOption, TlsVersion, Transparent
from culvert.config.options import Availability, Option
from culvert.config.socket_options import SOCKET_OPTIONS, Kind
from culvert.config.tls_options import TlsOption
from culvert.config.values import FACILITIES, LEVELS, VERSIONS

_VERSION_NAMES = {version: name for name, version in VERSIONS.items()}
_FACILITY_NAMES = {number: name for name, number in FACILITIES.items()}


def availability_text(option: Option) -> str:
    """What is to be known before an option is used; empty where there is nothing."""
    match option.availability:
        case Availability.AVAILABLE:
            return ""
        case Availability.UNSUPPORTED:
            return f"not supported: {option.reason}"
        case Availability.OBSOLETE | Availability.NEEDLESS:
            return f"has no effect: {option.reason}"


def default_text(option: Option) -> str:
    """An option's default as a configuration would write it; empty where there is none."""
    return ", ".join(default_values(option))


def default_values(option: Option) -> list[str]:
    """The default of each time that a repeatable option stands in a file; at most one for any other."""
    if option.name == "workers":
        return ["auto"]
    values = option.default if isinstance(option.default, tuple) else (option.default,)
    return [_as_written(value) for value in values if value is not None]


def _as_written(value: object) -> str:
    match value:
        case bool():
            text = "yes" if value else "no"
        case Debug():
            text = f"{_FACILITY_NAMES[value.facility]}.{LEVELS[value.level]}"
        case SocketOption():
            text = f"{value.target}:{value.name}={_socket_value(value)}"
        case TlsOption():
            text = f"-{value.name}" if value.clear else value.name
        case TlsVersion():
            text = _VERSION_NAMES[value]
        case Transparent():
            text = str(value.name).lower()
        case enum.Enum():
            text = str(value.value)
        case float():
            text = f"{value:g}"
        case _:
            text = str(value)
    return text


def _socket_value(option: SocketOption) -> str:
    match option.value:
        case (first, second):
            return f"{first}:{second}"
        case int(number) if SOCKET_OPTIONS[option.name] is Kind.FLAG:
            return "yes" if number else "no"
        case value:
            return str(value)
