"""What a log line looks like: stunnel's text, or one JSON object. Whatever a peer sent, it stays one line."""

from __future__ import annotations

import enum
import json
import re
import time
from collections.abc import Mapping
from typing import NamedTuple

TEXT_LIMIT = 1024
"""Longest text of a line in bytes, as stunnel has it: a peer must not be able to flood a log by one line."""

FIELD_LIMIT = 240
"""Longest string beside the text in a JSON object, in bytes. The summary of a connection, which has seven of
them, then fits into one atomic write to a pipe (PIPE_BUF, 4096), even if each byte has to be escaped."""

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""The last ones turn the direction of writing: what follows them in a line would be read in another order."""

Fields = Mapping[str, str | int | float | bool | None]


class Level(enum.IntEnum):
    """Syslog's levels (RFC 5424, 6.2.1)."""

    EMERG = 0
    ALERT = 1
    CRIT = 2
    ERR = 3
    WARNING = 4
    NOTICE = 5
    INFO = 6
    DEBUG = 7


_LEVEL_NAMES = tuple(level.name.lower() for level in Level)


class Entry(NamedTuple):
    """One thing to be logged. `ident` stands in brackets; it is a connection's where `connection` says so.

    `fields` are for JSON alone; None as a value is left out.
    """

    level: int
    facility: int
    ident: str
    text: str
    service: str | None = None
    connection: bool = False
    fields: Fields | None = None


def clean(text: str, limit: int = TEXT_LIMIT) -> bytes:
    """Any text as bytes that are safe in a line: control characters become dots, the length is bounded."""
    if not text.isprintable():
        text = _CONTROL.sub(".", text)
    data = text.encode("utf-8", "backslashreplace")
    if len(data) > limit:
        data = data[:limit].decode("utf-8", "ignore").encode()
    return data


class TextLines:
    """stunnel's lines: `2026.11.23 06:05:04 LOG5[ID]: text`, in local time."""

    structured = False

    def __init__(self) -> None:
        self._second = -1
        self._stamp = b""

    def line(self, entry: Entry) -> bytes:
        """A line without its time and its end."""
        return b"LOG%d[%b]: %b" % (entry.level, clean(entry.ident), clean(entry.text))

    def stamp(self) -> bytes:
        """What stands in front of a line where its reader does not add the time."""
        second = int(time.time())
        if second != self._second:
            self._second = second
            self._stamp = time.strftime("%Y.%m.%d %H:%M:%S ", time.localtime(second)).encode("ascii")
        return self._stamp


class JsonLines:
    """One JSON object a line, with the time in it (RFC 3339, with the offset of local time)."""

    structured = True

    def __init__(self) -> None:
        self._second = -1
        self._date = self._offset = ""

    def line(self, entry: Entry) -> bytes:
        """The object, without the end of a line."""
        members: dict[str, object] = {"time": self._now(), "level": _LEVEL_NAMES[entry.level]}
        if entry.service is not None:
            members["service"] = _string(entry.service, FIELD_LIMIT)
        if entry.connection:
            members["connection"] = _string(entry.ident, FIELD_LIMIT)
        members["message"] = _string(entry.text, TEXT_LIMIT)
        for name, value in entry.fields.items() if entry.fields is not None else ():
            if value is not None:
                members[name] = _string(value, FIELD_LIMIT) if isinstance(value, str) else value
        return json.dumps(members, ensure_ascii=False, separators=(",", ":")).encode()

    def stamp(self) -> bytes:
        """Nothing: the time is in the object."""
        return b""

    def _now(self) -> str:
        second, millisecond = divmod(time.time_ns() // 1_000_000, 1000)
        if second != self._second:
            self._second = second
            local = time.localtime(second)
            self._date = time.strftime("%Y-%m-%dT%H:%M:%S", local)
            minutes = local.tm_gmtoff // 60
            self._offset = f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02}:{abs(minutes) % 60:02}"
        return f"{self._date}.{millisecond:03}{self._offset}"


Lines = TextLines | JsonLines


def _string(text: str, limit: int) -> str:
    return clean(text, limit).decode()
