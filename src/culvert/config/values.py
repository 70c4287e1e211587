"""How options are written: one `Form` for each kind of value, with the parser that gives it its type.

A parser raises BadValue with what was expected, and knows neither the option's name nor its line: the
loader adds both. Two kinds with tables of their own stand beside this module, in `tls_options` and
`socket_options`.
"""

from __future__ import annotations

import difflib
import enum
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from culvert.address import HttpUrl
from culvert.config.model import AcceptRate, Debug, TlsVersion

E = TypeVar("E", bound=enum.Enum)

MAX_NUMBER = 2**31 - 1
"""The largest number of an option: a C int, as stunnel reads it."""

MAX_WORKERS = 1024
"""More than any machine of today has processors: a typing error must not fork without end."""

TOKEN_LENGTH = 16
"""Characters of a token from which on it cannot be guessed."""

LEVELS = ("emerg", "alert", "crit", "err", "warning", "notice", "info", "debug")
"""syslog's levels; the index is the number (RFC 5424, 6.2.1)."""

FACILITIES = {
    "kern": 0,
    "user": 1,
    "mail": 2,
    "daemon": 3,
    "auth": 4,
    "syslog": 5,
    "lpr": 6,
    "news": 7,
    "uucp": 8,
    "cron": 9,
    "authpriv": 10,
    "ftp": 11,
    **{f"local{number}": 16 + number for number in range(8)},
}

OCSP_FLAGS = (
    "NOCASIGN",
    "NOCERTS",
    "NOCHAIN",
    "NODELEGATED",
    "NOEXPLICIT",
    "NOINTERN",
    "NOTIME",
    "RESPID_KEY",
    "TRUSTOTHER",
)
"""OpenSSL's flags for OCSP answers that can be honoured (OCSP_basic_verify(3))."""

_UNSAFE_OCSP_FLAGS = frozenset({"NOCHECKS", "NOSIGS", "NOVERIFY"})

VERSIONS: dict[str, TlsVersion | None] = {
    "all": None,
    "SSLv3": TlsVersion.SSL3,
    "TLSv1": TlsVersion.TLS1,
    "TLSv1.1": TlsVersion.TLS1_1,
    "TLSv1.2": TlsVersion.TLS1_2,
    "TLSv1.3": TlsVersion.TLS1_3,
}
"""What a version is called. SSLv3 is read because old files have it; it left OpenSSL and is not offered."""


class BadValue(ValueError):  # noqa: N818 - it names the value, and its reader is the loader alone
    """A value that its option does not take.

    `expected` completes the sentence "NAME takes ..."; without it the form's own words do. `hint` says
    what was probably meant.
    """

    def __init__(self, expected: str | None = None, hint: str | None = None) -> None:
        super().__init__(expected)
        self.expected = expected
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Form:
    """One way to write a value: `takes` completes "NAME takes ...", `parse` gives the typed value.

    `spaces` says that a value may hold a space, and so that nothing behind it is a comment.
    """

    takes: str
    parse: Callable[[str], Any]
    spaces: bool = False


def nearest(word: str, known: Iterable[str]) -> str | None:
    """What was probably meant by a misspelt word, or None."""
    spelt = {name.lower(): name for name in known}
    close = difflib.get_close_matches(word.lower()[:64], spelt, n=1, cutoff=0.65)
    return spelt[close[0]] if close else None


def meant(word: str, known: Iterable[str]) -> str | None:
    """The hint for a misspelt word, or None."""
    name = nearest(word, known)
    return None if name is None else f'did you mean "{name}"?'


def listed(words: Iterable[str]) -> str:
    """Words as a sentence lists its alternatives: "a, b or c"."""
    *first, last = words
    return f"{', '.join(first)} or {last}" if first else last


def choice(words: dict[str, Any]) -> Form:
    """One of these words, in either case; each stands for its value."""
    by_lower = {word.lower(): value for word, value in words.items()}

    def parse(text: str) -> Any:
        if text.lower() not in by_lower:
            raise BadValue(hint=meant(text, words))
        return by_lower[text.lower()]

    return Form(listed(words), parse)


def enumeration(kind: type[E]) -> Form:
    """One of the members of an enumeration, by its value."""
    return choice({str(member.value): member for member in kind})


def one_of(*words: str) -> Form:
    """One of these words, which stands for itself."""
    return choice({word: word for word in words})


def number(text: str) -> int:
    """A number without sign, of ASCII digits."""
    if not (text.isascii() and text.isdigit()) or len(text) > 10 or int(text) > MAX_NUMBER:
        raise BadValue()
    return int(text)


def whole(lowest: int, highest: int, what: str) -> Form:
    """A number from `lowest` to `highest`; `what` says of what."""

    def parse(text: str) -> int:
        value = number(text)
        if not lowest <= value <= highest:
            raise BadValue()
        return value

    return Form(f"{what} from {lowest} to {highest}", parse)


def _seconds(text: str) -> float:
    if re.fullmatch(r"[0-9]{1,10}(\.[0-9]{1,6})?", text) is None or float(text) > MAX_NUMBER:
        raise BadValue()
    return float(text)


def _interval(text: str) -> float | None:
    if text.lower() == "no":
        return None
    seconds = _seconds(text)
    if seconds < 1:
        raise BadValue()
    return seconds


def _seconds_or_none(text: str) -> float | None:
    return None if text.lower() == "none" else _seconds(text)


def _retry(text: str) -> float | None:
    if text.lower() in ("yes", "no"):
        return 1.0 if text.lower() == "yes" else None
    milliseconds = number(text)
    if milliseconds == 0:
        raise BadValue()
    return milliseconds / 1000


def _workers(text: str) -> int | None:
    if text.lower() == "auto":
        return None
    value = number(text)
    if value > MAX_WORKERS:
        raise BadValue()
    return value


def _accept_rate(text: str) -> AcceptRate:
    rate, colon, burst = text.partition(":")
    found = AcceptRate(number(rate), number(burst) if colon else number(rate))
    if not (found.per_second and found.burst):
        raise BadValue()
    return found


def _version(text: str) -> TlsVersion | None:
    for name, version in VERSIONS.items():
        if text.lower() == name.lower():
            return version
    raise BadValue(hint=meant(text, (name for name in VERSIONS if name != "SSLv3")))


def _debug(text: str) -> Debug:
    facility, dot, level = text.lower().rpartition(".")
    if dot and facility not in FACILITIES:
        hint = meant(facility, FACILITIES)
        raise BadValue('a syslog facility such as daemon or local0 in front of "."', hint)
    if level in LEVELS:
        rank = LEVELS.index(level)
    elif len(level) == 1 and level in "01234567":
        rank = int(level)
    else:
        raise BadValue(hint=meant(level, LEVELS))
    return Debug(rank, FACILITIES[facility] if dot else FACILITIES["daemon"])


def _text(text: str) -> str:
    if not text:
        raise BadValue()
    return text


def _path_or_none(text: str) -> str | None:
    return text or None


def _words(text: str) -> tuple[str, ...]:
    if not text:
        raise BadValue()
    return tuple(re.split(r"[ \t]+", text))


def _assignment(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name or re.search(r"[ \t]", name):
        raise BadValue()
    return name, value


def _identity(text: str) -> str | int:
    if text.isascii() and text.isdigit():
        # (uid_t)-1 means "no change" to chown and setresuid.
        if len(text) > 10 or int(text) >= 2**32 - 1:
            raise BadValue()
        return int(text)
    if re.fullmatch(r"[^\s:/]+", text) is None:
        raise BadValue()
    return text


def _key_source(text: str) -> str:
    if text.lower().startswith(("pkcs11:", "engine:")):
        raise BadValue("the path of a file (OpenSSL 4 has no engines for hardware tokens)")
    return _text(text)


def _url(text: str) -> HttpUrl:
    try:
        return HttpUrl.parse(text)
    except ValueError:
        raise BadValue() from None


def _ocsp_flag(text: str) -> str:
    flag = text.upper()
    if flag in _UNSAFE_OCSP_FLAGS:
        raise BadValue(
            "a flag that leaves answers verified (an answer that is not proves nothing)",
            'set "OCSPrequire = no" to go on without a conclusive answer',
        )
    if flag not in OCSP_FLAGS:
        raise BadValue(hint=meant(flag, OCSP_FLAGS))
    return flag


def _email(text: str) -> str:
    if re.fullmatch(r"[^\s@]+@[^\s@]+", text) is None:
        raise BadValue()
    return text


def _server_name(text: str) -> str:
    if re.search(r"[ \t/]", text):
        raise BadValue()
    return text


def _token(text: str) -> str:
    if not text or not all("!" <= character <= "~" for character in text):
        raise BadValue()
    return text


def _hex_key(text: str) -> bytes:
    digits = text.replace(":", "")
    if re.fullmatch(r"(?:[0-9A-Fa-f]{32}){1,2}", digits) is None:
        raise BadValue()
    return bytes.fromhex(digits)


YES_NO = choice({"yes": True, "no": False})
SECONDS = Form(f"seconds from 0 to {MAX_NUMBER}", _seconds)
INTERVAL = Form(f"no, or seconds from 1 to {MAX_NUMBER}", _interval)
SECONDS_OR_NONE = Form(f"none, or seconds from 0 to {MAX_NUMBER}", _seconds_or_none)
RETRY = Form("yes, no, or the milliseconds to wait, 1 or more", _retry)
WORKERS = Form(f"auto, or a number of processes up to {MAX_WORKERS}", _workers)
ACCEPT_RATE = Form("RATE or RATE:BURST, numbers of connections, 1 or more", _accept_rate)
DEBUG = Form(f"[facility.]level, the level being 0 to 7 or {listed(LEVELS)}", _debug)
VERSION = Form(listed(name for name in VERSIONS if name != "SSLv3"), _version)
TEXT = Form("a text", _text, spaces=True)
WORD = Form("a word", _text)
NAME = Form("a name", _text, spaces=True)
PATH = Form("a path", _text, spaces=True)
FOLDER = Form("a folder", _text, spaces=True)
PATH_OR_NONE = Form("a path, or nothing", _path_or_none, spaces=True)
KEY_SOURCE = Form("the path of a file", _key_source, spaces=True)
WORDS = Form("words, separated by white space", _words, spaces=True)
CIPHERS = Form("an OpenSSL cipher list", _text, spaces=True)
NAMES = Form("names separated by colons", _text)
ASSIGNMENT = Form("NAME=VALUE", _assignment, spaces=True)
IDENTITY = Form("a name, or a number up to 4294967294", _identity)
URL = Form("a URL of the form http://HOST[:PORT][/PATH]", _url)
OCSP_FLAG = Form(listed(OCSP_FLAGS), _ocsp_flag)
EMAIL = Form("an e-mail address", _email)
SNI = Form("a host name or nothing in client mode, SERVICE:PATTERN in server mode", _server_name)
TOKEN = Form("visible ASCII characters", _token)
HEX_KEY = Form("32 or 64 hexadecimal digits", _hex_key)
