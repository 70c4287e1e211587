"""What goes together with `protocol`, and what does not."""

from __future__ import annotations

import re

from culvert.config.draft import Draft
from culvert.config.findings import Findings
from culvert.config.protocols import AUTHENTICATION, CLIENT, CONNECTING_FIRST, SERVER, SIDES, UNSUPPORTED

_NEEDED_BY = {
    "protocolAuthentication": frozenset({"connect", "smtp"}),
    "protocolDomain": frozenset({"connect"}),
    "protocolHeader": frozenset({"connect"}),
    "protocolHost": frozenset({"connect", "smtp"}),
    "protocolPassword": frozenset({"connect", "smtp"}),
    "protocolUsername": frozenset({"connect", "smtp"}),
}

_GREETING_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]*[A-Za-z0-9_])?|\[[A-Za-z0-9.:]+\]")
"""A domain or an address in brackets, as EHLO takes it (RFC 5321, 4.1.1.1)."""


def check_protocol(draft: Draft, findings: Findings) -> None:
    """Report a protocol that this end does not speak, and options that do not go with it."""
    protocol = draft.value("protocol")
    side = CLIENT if draft.value("client") else SERVER
    if protocol in UNSUPPORTED:
        findings.error(
            f'"protocol = {protocol}" is not supported: {UNSUPPORTED[protocol]}',
            draft.where("protocol"),
            draft.name,
        )
        return
    if protocol is not None and side not in SIDES[protocol]:
        findings.error(
            f'"protocol = {protocol}" is for a {next(iter(SIDES[protocol]))}, and this service is a {side}',
            draft.where("protocol"),
            draft.name,
        )
        return
    if protocol in CONNECTING_FIRST and draft.entries("redirect"):
        findings.error(
            f'"redirect" cannot go with "protocol = {protocol}": the client talks to the target before TLS',
            draft.where("redirect"),
            draft.name,
        )
    for option, protocols in _NEEDED_BY.items():
        if draft.has_own(option) and (protocol not in protocols or side is not CLIENT):
            names = " or ".join(f'"protocol = {name}"' for name in sorted(protocols))
            findings.warning(
                f'"{option}" has no effect but in a client with {names}', draft.where(option), draft.name
            )
    _check_authentication(protocol, draft, findings)
    if protocol == "smtp" and side == CLIENT:
        _check_smtp(draft, findings)


def _check_authentication(protocol: str | None, draft: Draft, findings: Findings) -> None:
    way = draft.value("protocolAuthentication")
    if protocol in AUTHENTICATION and way is not None and way not in AUTHENTICATION[protocol]:
        findings.error(
            f'"protocol = {protocol}" takes "protocolAuthentication = '
            f'{"|".join(AUTHENTICATION[protocol])}", not "{way}"',
            draft.where("protocolAuthentication"),
            draft.name,
        )


def _check_smtp(draft: Draft, findings: Findings) -> None:
    host = draft.value("protocolHost")
    if host is not None and _GREETING_NAME.fullmatch(host) is None:
        findings.error(
            '"protocolHost" is the name to greet an SMTP server with: a host name, or an address in '
            f'brackets, not "{host}"',
            draft.where("protocolHost"),
            draft.name,
        )
    given = [name for name in ("protocolUsername", "protocolPassword") if draft.mentions(name)]
    if len(given) == 1:
        findings.error(
            f'"{given[0]}" alone cannot log in: an SMTP server asks for "protocolUsername" and '
            '"protocolPassword"',
            draft.where(given[0]),
            draft.name,
        )
    if draft.has_own("protocolAuthentication") and not given:
        findings.warning(
            '"protocolAuthentication" has no effect without "protocolUsername" and "protocolPassword"',
            draft.where("protocolAuthentication"),
            draft.name,
        )
