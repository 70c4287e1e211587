"""Options of the protocols spoken in clear before TLS, and of OCSP."""

from __future__ import annotations

from culvert.config.options.option import Option, Scope
from culvert.config.protocols import AUTHENTICATION, SIDES, UNSUPPORTED
from culvert.config.socks_rules import SOCKS_RULE
from culvert.config.values import NAME, OCSP_FLAG, SECONDS, TEXT, URL, YES_NO, Form, listed, one_of

_SPOKEN = tuple(name for name in SIDES if name not in UNSUPPORTED)
# Those that are not spoken are read all the same, for an error of their own that gives the reason.
_PROTOCOLS = Form(listed(_SPOKEN), one_of(*SIDES).parse)
_AUTHENTICATION = one_of(*sorted({way for ways in AUTHENTICATION.values() for way in ways}))

_OCSP_SIGNING_FLAGS = frozenset({"NOCERTS", "NOTIME", "RESPID_KEY"})
"""Flags for those who make answers: for those who verify them they mean nothing, in OpenSSL either."""


def _without_effect(flag: str) -> str | None:
    return (
        f'the flag "{flag}" is for responders and does nothing here' if flag in _OCSP_SIGNING_FLAGS else None
    )


NEGOTIATION = (
    Option(
        "protocol",
        Scope.SERVICE,
        _PROTOCOLS,
        f"{'|'.join(_SPOKEN)} to speak around the handshake",
        service_fields=("protocol",),
    ),
    Option(
        "protocolAuthentication",
        Scope.SERVICE,
        _AUTHENTICATION,
        "basic|ntlm (connect) or plain|login (smtp)",
        service_fields=("protocol",),
    ),
    Option(
        "protocolDomain",
        Scope.SERVICE,
        NAME,
        "domain for the protocol's authentication",
        service_fields=("protocol",),
    ),
    Option(
        "protocolHeader",
        Scope.SERVICE,
        TEXT,
        "header line to add to the protocol's request",
        repeatable=True,
        default=(),
        service_fields=("protocol",),
        secret=True,
    ),
    Option(
        "protocolHost",
        Scope.SERVICE,
        NAME,
        "host:port to ask the proxy for, or the name to greet with",
        service_fields=("protocol",),
    ),
    Option(
        "protocolPassword",
        Scope.SERVICE,
        TEXT,
        "password for the protocol's authentication",
        service_fields=("protocol",),
        secret=True,
    ),
    Option(
        "protocolUsername",
        Scope.SERVICE,
        NAME,
        "user for the protocol's authentication",
        service_fields=("protocol",),
    ),
    Option(
        "socksAllow",
        Scope.SERVICE,
        SOCKS_RULE,
        "HOST|*.SUFFIX|NETWORK|*[:PORT[-PORT]] that the clients of protocol = socks may have",
        repeatable=True,
        default=(),
        service_fields=("socks_allow",),
    ),
    Option(
        "OCSP",
        Scope.SERVICE,
        URL,
        "URL of an OCSP responder",
        service_fields=("ocsp",),
    ),
    Option(
        "OCSPaia",
        Scope.SERVICE,
        YES_NO,
        "yes|no ask the OCSP responders that certificates name",
        default=False,
        service_fields=("ocsp",),
    ),
    Option(
        "OCSPflag",
        Scope.SERVICE,
        OCSP_FLAG,
        "flag for the verification of OCSP answers",
        repeatable=True,
        default=(),
        service_fields=("ocsp",),
        remark=_without_effect,
    ),
    Option(
        "OCSPnonce",
        Scope.SERVICE,
        YES_NO,
        "yes|no send and check the OCSP nonce",
        default=False,
        service_fields=("ocsp",),
    ),
    Option(
        "OCSPrequire",
        Scope.SERVICE,
        YES_NO,
        "yes|no refuse a peer whose OCSP status stays unknown",
        default=True,
        service_fields=("ocsp",),
    ),
    Option(
        "TIMEOUTocsp",
        Scope.SERVICE,
        SECONDS,
        "seconds to wait for an OCSP responder",
        default=5.0,
        service_fields=("ocsp",),
    ),
)
