"""Options of the protocols spoken in clear before TLS, and of OCSP."""

from __future__ import annotations

from culvert.config.options.option import Availability, Option, Scope
from culvert.config.values import NAME, SECONDS, TEXT, URL, YES_NO, one_of

_PROTOCOLS = one_of(
    "capwin",
    "capwinctrl",
    "cifs",
    "connect",
    "imap",
    "ldap",
    "nntp",
    "pgsql",
    "pop3",
    "proxy",
    "smtp",
    "socks",
)

_OCSP_FLAGS = one_of(
    "NOCERTS",
    "NOINTERN",
    "NOSIGS",
    "NOCHAIN",
    "NOVERIFY",
    "NOEXPLICIT",
    "NOCASIGN",
    "NODELEGATED",
    "NOCHECKS",
    "TRUSTOTHER",
    "RESPID_KEY",
    "NOTIME",
)

NEGOTIATION = (
    Option(
        "protocol",
        Scope.SERVICE,
        _PROTOCOLS,
        "protocol to speak before TLS",
        availability=Availability.LATER,
    ),
    Option(
        "protocolAuthentication",
        Scope.SERVICE,
        one_of("basic", "ntlm", "plain", "login"),
        "basic|ntlm (connect) or plain|login (smtp)",
        availability=Availability.LATER,
    ),
    Option(
        "protocolDomain",
        Scope.SERVICE,
        NAME,
        "domain for the protocol's authentication",
        availability=Availability.LATER,
    ),
    Option(
        "protocolHeader",
        Scope.SERVICE,
        TEXT,
        "header line to add to the protocol's request",
        repeatable=True,
        default=(),
        availability=Availability.LATER,
        secret=True,
    ),
    Option(
        "protocolHost",
        Scope.SERVICE,
        NAME,
        "host:port to ask the proxy for, or the name to greet with",
        availability=Availability.LATER,
    ),
    Option(
        "protocolPassword",
        Scope.SERVICE,
        TEXT,
        "password for the protocol's authentication",
        availability=Availability.LATER,
        secret=True,
    ),
    Option(
        "protocolUsername",
        Scope.SERVICE,
        NAME,
        "user for the protocol's authentication",
        availability=Availability.LATER,
    ),
    Option(
        "OCSP",
        Scope.SERVICE,
        URL,
        "URL of an OCSP responder",
        availability=Availability.LATER,
    ),
    Option(
        "OCSPaia",
        Scope.SERVICE,
        YES_NO,
        "yes|no ask the OCSP responders that certificates name",
        default=False,
        availability=Availability.LATER,
    ),
    Option(
        "OCSPflag",
        Scope.SERVICE,
        _OCSP_FLAGS,
        "flag for the verification of OCSP answers",
        repeatable=True,
        default=(),
        availability=Availability.LATER,
    ),
    Option(
        "OCSPnonce",
        Scope.SERVICE,
        YES_NO,
        "yes|no send and check the OCSP nonce",
        default=False,
        availability=Availability.LATER,
    ),
    Option(
        "OCSPrequire",
        Scope.SERVICE,
        YES_NO,
        "yes|no refuse a peer whose OCSP status stays unknown",
        default=True,
        availability=Availability.LATER,
    ),
    Option(
        "TIMEOUTocsp",
        Scope.SERVICE,
        SECONDS,
        "seconds to wait for an OCSP responder",
        default=5.0,
        availability=Availability.LATER,
    ),
)
