"""From what a program asks `culvert.connect` for to the client service that does it.

The service is made of the lines that a configuration would have, so that each value is read, and each
combination judged, by the one table of options.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from culvert import config
from culvert.address import HostPort
from culvert.client.trust import trusted
from culvert.config.model import Service
from culvert.errors import ConfigurationError

USABLE_OPTIONS = frozenset(
    {
        "allowCN",
        "allowDNS",
        "allowEmail",
        "allowIP",
        "allowOU",
        "allowPSK",
        "allowSPKI",
        "allowURI",
        "CApath",
        "checkEmail",
        "checkHost",
        "checkIP",
        "ciphers",
        "ciphersuites",
        "CRLfile",
        "CRLpath",
        "curves",
        "keylog",
        "local",
        "OCSP",
        "OCSPaia",
        "OCSPflag",
        "OCSPnonce",
        "OCSPrequire",
        "options",
        "protocol",
        "protocolAuthentication",
        "protocolDomain",
        "protocolHeader",
        "protocolHost",
        "protocolPassword",
        "protocolUsername",
        "PSKidentity",
        "PSKsecrets",
        "renegotiation",
        "requireCert",
        "securityLevel",
        "sni",
        "socket",
        "sslVersion",
        "sslVersionMax",
        "sslVersionMin",
        "TIMEOUTbusy",
        "TIMEOUTclose",
        "TIMEOUTconnect",
        "TIMEOUTocsp",
        "verify",
        "verifyChain",
        "verifyPeer",
    }
)
"""What `options` may hold: the options of a client service that have a meaning without a tunnel."""

PROTOCOLS = frozenset({"cifs", "connect", "imap", "ldap", "nntp", "pop3", "smtp"})
"""What can be spoken before TLS on behalf of a program that has said nothing yet."""

NAME = "client"
"""The service's name, in the log."""

_SOURCE = "culvert.connect"
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_USABLE = {name.lower() for name in USABLE_OPTIONS}

Options = Mapping[str, str | Sequence[str]]


@dataclass(frozen=True, slots=True)
class Arguments:
    """The arguments of `culvert.connect` that make the service; it says what each is for."""

    host: str
    port: int
    cafile: str | None
    cert: str | None
    key: str | None
    alpn: Sequence[str]
    server_name: str | None
    verify: bool
    options: Options

    def service(self) -> Service:
        """The service. Raises ConfigurationError."""
        self._check()
        lines = [f"[{NAME}]", *(_line(name, value) for name, value in self._settings())]
        service = config.loads("\n".join(lines), _SOURCE).services[0]
        return replace(service, accept=None, connect=(HostPort(self.host, self.port),))

    def _check(self) -> None:
        """What the table of options cannot know."""
        for name in self.options:
            if name.lower() not in _USABLE:
                raise _unusable(f'there is no option "{name}" for a connection without a tunnel')
        if not self.host or re.search(r"\s", self.host):
            raise _unusable(f"the host is a name or an address, not {self.host!r}")
        protocol = self._option("protocol")
        if protocol is None:
            return
        if not isinstance(protocol, str) or protocol.lower() not in PROTOCOLS:
            raise _unusable(
                f'"protocol" takes one of {", ".join(sorted(PROTOCOLS))} here, not {protocol!r}: '
                "the others begin with what a client says, and are for culvert.Server"
            )
        if protocol.lower() == "connect" and self.server_name is None:
            raise _unusable("the host is a proxy here: give the server's name as 'server_name'")

    def _settings(self) -> Iterator[tuple[str, str]]:
        # What a section must have, and nothing listens at; names are looked up by the connection itself.
        yield from (
            ("accept", "127.0.0.1:1"),
            ("connect", "127.0.0.1:1"),
            ("client", "yes"),
            ("delay", "yes"),
        )
        yield "debug", "debug"  # the logger decides
        yield from self._verification()
        if self.server_name is not None and self._option("sni") is None and not _is_address(self.server_name):
            yield "sni", self.server_name
        if self.cert is not None:
            yield "cert", self.cert
        if self.key is not None:
            yield "key", self.key
        if self.alpn:
            yield "alpn", ", ".join(self.alpn)
        for name, value in self.options.items():
            yield from ((name, one) for one in ((value,) if isinstance(value, str) else value))

    def _verification(self) -> Iterator[tuple[str, str]]:
        if self.cafile is not None:
            yield "CAfile", self.cafile
        elif self.verify and self._option("CApath") is None:
            yield trusted()
        if not self.verify:
            return
        yield "verifyChain", "yes"
        if self._option("checkHost") is None and self._option("checkIP") is None:
            name = self.server_name or self.host
            yield ("checkIP" if _is_address(name) else "checkHost"), name

    def _option(self, name: str) -> str | Sequence[str] | None:
        return next((value for key, value in self.options.items() if key.lower() == name.lower()), None)


def _line(name: str, value: str) -> str:
    if _CONTROL.search(value):
        raise _unusable(f'"{name}" holds a control character')
    return f"{name} = {value}"


def _unusable(message: str) -> ConfigurationError:
    return ConfigurationError.single(f"{_SOURCE}: {message}")


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    return True
