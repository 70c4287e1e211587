"""How the rules on identity (allowCN and its kin) are written.

Every value is brought into the one form in which it is compared. A value that no certificate could ever
match is refused: its operator would learn of it only from the peers that it locks out.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType

from culvert.config.addresses import MAX_HOST
from culvert.config.model import AllowKind, AllowRule
from culvert.config.networks import exact_network
from culvert.config.values import BadValue, Form

MAX_URI = 2048
"""Longest SPIFFE ID (SPIFFE-ID, 2.3); other URIs in certificates are shorter."""

MAX_PSK_IDENTITY = 256
"""Longest identity that OpenSSL takes (PSK_MAX_IDENTITY_LEN)."""

_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
_URI = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*):(?P<rest>[!-~]+)")
_MAILBOX = re.compile(r"[!-?A-~]+@[!-?A-~]+")
_HEX_DIGEST = re.compile(r"[0-9A-Fa-f]{64}")


def _subject_value(text: str) -> str:
    if not text or not (text.isascii() and text.isprintable()):
        raise BadValue()
    return text


def _dns(text: str) -> str:
    wildcard = text.startswith("*.")
    name = text.removeprefix("*.") if wildcard else text
    if "*" in name:
        raise BadValue('a name in which "*." stands for the first label alone')
    try:
        ascii_name = name if name.isascii() else name.encode("idna").decode("ascii")
    except UnicodeError:
        raise BadValue() from None
    labels = ascii_name.lower().split(".")
    if not all(_LABEL.fullmatch(label) for label in labels) or len(ascii_name) > MAX_HOST:
        raise BadValue()
    if labels[-1].isdigit():
        raise BadValue("a DNS name", "an IP address is a matter for allowIP")
    return ("*." if wildcard else "") + ".".join(labels)


def _uri(text: str) -> str:
    parts = _URI.fullmatch(text)
    if parts is None or len(text) > MAX_URI:
        raise BadValue()
    if "*" not in text:
        return text
    authority = re.fullmatch(r"//[^/?#*]+(?P<path>/[^?#]*)", parts["rest"])
    if authority is None or any("*" in s and s != "*" for s in authority["path"].split("/")):
        raise BadValue(
            'a URI in which "*" is a whole segment of the path, such as spiffe://example.org/*/web'
        )
    return text


def _email(text: str) -> str:
    if _MAILBOX.fullmatch(text) is None or "*" in text:
        raise BadValue()
    local, _, domain = text.rpartition("@")
    return f"{local}@{domain.lower()}"


def _ip(text: str) -> str:
    found = exact_network(text)
    return str(found) if "/" in text else str(found.network_address)


def _pin(text: str) -> str:
    digest = re.sub(r"(?i)\Asha256(?::|//?)", "", text)
    digits = digest.replace(":", "")
    if _HEX_DIGEST.fullmatch(digits):
        return digits.lower()
    padded = digest if digest.endswith("=") else digest + "="
    try:
        raw = binascii.a2b_base64(padded, strict_mode=True)
    except ValueError:
        raise BadValue() from None
    if len(raw) != 32:
        raise BadValue()
    return raw.hex()


def _psk(text: str) -> str:
    if not text or not text.isprintable() or len(text.encode()) > MAX_PSK_IDENTITY:
        raise BadValue()
    if ":" in text:
        raise BadValue("an identity without a colon, as PSKsecrets has it", "the key is not part of it")
    return text


def _form(kind: AllowKind, takes: str, canonical: Callable[[str], str], *, spaces: bool = False) -> Form:
    return Form(takes, lambda text: AllowRule(kind, canonical(text), text), spaces)


ALLOW_FORMS: Mapping[AllowKind, Form] = MappingProxyType(
    {
        kind: _form(kind, takes, canonical, spaces=spaces)
        for kind, takes, canonical, spaces in (
            (AllowKind.CN, "a name of printable ASCII characters", _subject_value, True),
            (AllowKind.OU, "a name of printable ASCII characters", _subject_value, True),
            (AllowKind.DNS, 'a DNS name, in front of which "*." may stand', _dns, False),
            (AllowKind.URI, "a URI of ASCII characters with its scheme", _uri, False),
            (AllowKind.EMAIL, "one e-mail address of ASCII characters, without a wildcard", _email, False),
            (AllowKind.IP, "an IP address, or ADDRESS/LENGTH", _ip, False),
            (AllowKind.SPKI, "a SHA-256 digest, 64 hexadecimal digits or 44 of base64", _pin, False),
            (AllowKind.PSK, "a printable identity", _psk, True),
        )
    }
)
