"""The names that a certificate is made for: which kind each is by its form, and how it is shown.

A name is an IP address, an e-mail address, a URI (a SPIFFE identity among them) or a DNS name, also with a
wildcard as its leftmost label.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
from urllib.parse import urlsplit

from cryptography import x509

from culvert.errors import ConfigurationError

_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
_DNS_LIMIT = 253
_MAILBOX = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]{1,64}")
_URI = re.compile(
    r"(?:[A-Za-z][A-Za-z0-9+.-]*://[A-Za-z0-9\[]|urn:)[A-Za-z0-9:/?#\[\]@!$&'()*+,;=._~%-]*", re.ASCII
)
_URI_LIMIT = 2048
_SPIFFE = re.compile(r"spiffe://[a-z0-9._-]{1,255}(?:/(?!\.{1,2}(?:/|$))[A-Za-z0-9._-]+)*")
"""SPIFFE-ID, sections 2.1 to 2.3: a trust domain in lower case, and segments that are never empty or dots."""

_UNFIT_FOR_FILES = re.compile(r"[^A-Za-z0-9._@+=-]+")
_STEM_LIMIT = 120
"""Far enough below the 255 bytes of a file's name to leave room for suffixes."""

_EXPECTED = (
    "expected a DNS name as db.example.com or *.example.com, an IP address, an e-mail address, "
    "or a URI as spiffe://example.com/db"
)


def parse(text: str) -> x509.GeneralName:
    """The name that `text` is by its form. Raises ConfigurationError."""
    if (address := _address(text)) is not None:
        return x509.IPAddress(address)
    if "://" in text or text.startswith("urn:"):
        return x509.UniformResourceIdentifier(_uri(text))
    if "@" in text:
        return x509.RFC822Name(mailbox(text))
    return x509.DNSName(dns_name(text, wildcard=True))


def show(name: x509.GeneralName) -> str:
    """A name as `parse` takes it, or a constraint on names."""
    return str(name.value)


def describe(name: x509.GeneralName) -> str:
    """A name with its kind, in OpenSSL's words: `DNS:db.example.com`."""
    kinds = {x509.DNSName: "DNS", x509.IPAddress: "IP", x509.RFC822Name: "email"}
    return f"{kinds.get(type(name), 'URI')}:{show(name)}"


def file_stem(name: x509.GeneralName) -> str:
    """How the files of a certificate are named: never hidden, an option, or a path to somewhere else."""
    text = re.sub(r"^\*", "_wildcard", show(name))
    stem = re.sub(r"^[.-]", "_", _UNFIT_FOR_FILES.sub("_", text))
    if len(stem) <= _STEM_LIMIT:
        return stem
    return f"{stem[:_STEM_LIMIT]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def dns_name(text: str, *, wildcard: bool = False) -> str:
    """A DNS name in lower case and in its ASCII form. Raises ConfigurationError."""
    try:
        name = (text if text.isascii() else text.encode("idna").decode("ascii")).lower()
    except UnicodeError:
        raise refusal(text) from None
    bare = name.removeprefix("*.") if wildcard else name
    labels = bare.split(".")
    if len(name) > _DNS_LIMIT or not all(_LABEL.fullmatch(label) for label in labels):
        raise refusal(text)
    if labels[-1].isdigit():
        raise refusal(text, "it looks like an IP address, and is none")
    if bare != name and len(labels) < 2:
        raise refusal(text, "a wildcard must not cover a whole top-level domain")
    return name


def mailbox(text: str) -> str:
    """An e-mail address with its host in lower case. Raises ConfigurationError."""
    local, _, host = text.rpartition("@")
    if not _MAILBOX.fullmatch(local) or local.startswith(".") or local.endswith(".") or ".." in local:
        raise refusal(text)
    try:
        return f"{local}@{dns_name(host)}"
    except ConfigurationError:
        raise refusal(text) from None


def refusal(text: str, reason: str = _EXPECTED) -> ConfigurationError:
    """The error on what was given as a name."""
    return ConfigurationError.single(f'"{text}" cannot be the name in a certificate: {reason}')


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.scope_id is not None:
        raise refusal(text, "an address with a zone is known on one host only")
    return address


def _uri(text: str) -> str:
    if len(text) > _URI_LIMIT or not _URI.fullmatch(text) or not _has_readable_host(text):
        raise refusal(text)
    if text.lower().startswith("spiffe:") and not _SPIFFE.fullmatch(text):
        raise refusal(
            text, "a SPIFFE identity is spiffe://DOMAIN/SEGMENT/..., the domain in lower case, without a port"
        )
    return text


def _has_readable_host(uri: str) -> bool:
    try:
        parts = urlsplit(uri)
        return parts.port is None or bool(parts.hostname)
    except ValueError:
        return False
