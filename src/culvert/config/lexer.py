"""stunnel's dialect: from the bytes of a file, and of the folders it includes, to sections and settings.

A line is empty, a comment (`;` or `#` first), `name = value`, or `[service]`. Files are UTF-8, with or
without a byte-order mark, and lines end in LF or CRLF. `include = DIR` is resolved here, so that nothing
behind the lexer knows how many files there are. What a value means is not known here; whether it may carry
a comment behind it depends on the option, so `without_comment` is left to the caller.

A faulty line is reported and skipped: the lines behind it are still read.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from culvert.config.findings import Findings
from culvert.errors import ConfigurationError, Location

MAX_LINE = 16_384
"""Bytes in a line, as in stunnel."""

MAX_BYTES = 16 * 1024 * 1024
"""Bytes in all files of a configuration together: a device or a wrong file must not fill the memory."""

MAX_DEPTH = 8
"""Folders that include folders."""

MAX_SHOWN = 200
"""Characters of a line that a message repeats."""

BLANK = " \t\v\f\r"
"""White space inside a line. str.strip() would take Unicode's spaces too, which can be part of a name."""

_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f]")
_SECTION = re.compile(r"\[(?P<name>.*)\]\Z")
_COMMENTED_SECTION = re.compile(r"(?P<section>\[[^\]]*\])[ \t]*[;#].*\Z")
_COMMENT = re.compile(r"(?:\A|[ \t])[;#]")


@dataclass(frozen=True, slots=True)
class Section:
    """`[name]`: a service begins. One that is `faulty` has its error already, and perhaps another name."""

    name: str
    location: Location
    faulty: bool = False


@dataclass(frozen=True, slots=True)
class Setting:
    """`name = value`, both without the white space around them."""

    name: str
    value: str
    location: Location


Item = Section | Setting


def without_comment(value: str) -> str:
    """The value of an option that can hold no space, without the comment that old files carry behind it."""
    comment = _COMMENT.search(value)
    return value if comment is None else value[: comment.start()].rstrip(BLANK)


def read_file(path: str, limit: int = MAX_BYTES) -> bytes:
    """The bytes of a configuration file.

    Raises ConfigurationError with one sentence if it cannot be read or has more than `limit` bytes.
    """
    try:
        with Path(path).open("rb") as file:
            content = file.read(limit + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigurationError.single(f"cannot read the configuration file {path}: {reason}") from error
    if len(content) > limit:
        raise ConfigurationError.single(
            f"cannot read the configuration file {path}: a configuration has at most 16 MB"
        )
    return content


class Lexer:
    """Splits one configuration, with all that it includes, into items; reports what is no item.

    `hides` says of an option's name whether its value must not be shown in a message.
    """

    def __init__(self, findings: Findings, hides: Callable[[str], bool]) -> None:
        self._findings = findings
        self._hides = hides
        self._budget = MAX_BYTES
        self._open_folders: list[str] = []

    def items(self, content: bytes, path: str) -> Iterator[Item]:
        """The items of `content`, in order; `path` is what messages call it."""
        self._budget = max(0, self._budget - len(content))
        lines = content.removeprefix(b"\xef\xbb\xbf").split(b"\n")
        for number, line in enumerate(lines, start=1):
            if self._findings.hopeless:
                return
            yield from self._line(line.strip(BLANK.encode()), path, number)

    def _line(self, line: bytes, path: str, number: int) -> Iterator[Item]:
        if not line or line.startswith((b";", b"#")):
            return
        text = line[:MAX_LINE].decode("utf-8", "backslashreplace")
        location = Location(path, number, self._shown(text))
        self._findings.place(location)
        fault = _fault(line, text)
        if fault is not None:
            self._findings.error(fault, location)
            # The settings below a faulty section must not be taken for those of the section above it.
            if text.startswith("["):
                yield Section(location.text, location, faulty=True)
        elif text.startswith("["):
            yield self._section(text, location)
        else:
            yield from self._setting(text, location)

    def _setting(self, text: str, location: Location) -> Iterator[Item]:
        name, equals, value = text.partition("=")
        name, value = name.rstrip(BLANK), value.lstrip(BLANK)
        if not equals:
            self._findings.error('this is neither "name = value" nor "[service]": there is no "="', location)
        elif not name:
            self._findings.error('there is no option name in front of "="', location)
        elif name.lower() == "include":
            yield from self._include(value, location)
        else:
            yield Setting(name, value, location)

    def _shown(self, text: str) -> str:
        """The line as messages and logs may repeat it."""
        name, equals, _ = text.partition("=")
        if equals and self._hides(name.rstrip(BLANK)):
            return f"{_CONTROL.sub('.', name.rstrip(BLANK))} = (hidden)"
        text = _CONTROL.sub(".", text)
        return text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + "..."

    def _section(self, text: str, location: Location) -> Section:
        commented = _COMMENTED_SECTION.match(text)
        match = _SECTION.match(text if commented is None else commented["section"])
        if match is None:
            self._findings.error('the name of a service ends with "]"', location)
            return Section(text, location, faulty=True)
        name = match["name"].strip(BLANK)
        if not name:
            self._findings.error("a service needs a name between the brackets", location)
        return Section(name, location, faulty=not name)

    def _include(self, folder: str, location: Location) -> Iterator[Item]:
        try:
            real, files = os.path.realpath(folder), _files(folder)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            self._findings.error(f'"include" cannot read the folder "{folder}": {reason}', location)
            return
        if real in self._open_folders:
            self._findings.error(f'"include" goes round in a circle: "{folder}" is being read', location)
        elif len(self._open_folders) >= MAX_DEPTH:
            self._findings.error(f'"include" goes deeper than {MAX_DEPTH} folders', location)
        else:
            self._open_folders.append(real)
            for path in files:
                yield from self._included_file(path, location)
            self._open_folders.pop()

    def _included_file(self, path: str, location: Location) -> Iterator[Item]:
        shown = os.fsencode(path).decode("utf-8", "backslashreplace")
        try:
            content = read_file(path, self._budget)
        except ConfigurationError as error:
            self._findings.error(error.diagnostics[0].message, location)
            return
        yield from self.items(content, shown)


def _files(folder: str) -> list[str]:
    """The regular files of a folder by name; a dangling link is one too, so that reading it complains."""
    if not folder:
        raise ValueError("the value is empty")
    with os.scandir(folder) as entries:
        return sorted(entry.path for entry in entries if entry.is_file() or not Path(entry.path).exists())


def _fault(line: bytes, text: str) -> str | None:
    """What makes a line unreadable, whatever it says."""
    if len(line) > MAX_LINE:
        return f"the line has {len(line)} bytes; at most {MAX_LINE} are read"
    try:
        line.decode("utf-8")
    except UnicodeDecodeError as error:
        return f"byte 0x{line[error.start]:02x} is not UTF-8; save the file as UTF-8"
    control = _CONTROL.search(text)
    if control is not None:
        return f"the line holds the control character 0x{ord(control[0]):02x}"
    return None
