"""Rules on proxies: the HTTP proxy that a client goes through, and the SOCKS proxy that a server is."""

from __future__ import annotations

import re

from culvert.config.derived import proxied_target, verify_policy
from culvert.config.draft import Draft
from culvert.config.findings import Findings
from culvert.config.protocols import CLIENT_CHOOSES_TARGET

_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+:.*")


def check_proxies(draft: Draft, findings: Findings) -> None:
    """Report what a proxy needs and does not have, and what it is open to."""
    protocol, client = draft.value("protocol"), draft.value("client")
    if protocol == "connect" and client:
        _through_http_proxy(draft, findings)
    if protocol == CLIENT_CHOOSES_TARGET and not client:
        _as_socks_proxy(draft, findings)
    elif draft.has_own("socksAllow"):
        findings.warning(
            f'"socksAllow" has no effect but in a server with "protocol = {CLIENT_CHOOSES_TARGET}"',
            draft.where("socksAllow"),
            draft.name,
        )


def _through_http_proxy(draft: Draft, findings: Findings) -> None:
    name = draft.name
    if not draft.entries("protocolHost"):
        findings.error(
            '"protocol = connect" needs "protocolHost = HOST:PORT": where the proxy is to lead',
            draft.where("protocol"),
            name,
        )
    elif proxied_target(draft) is None:
        findings.error(
            f'"protocolHost" of "protocol = connect" takes HOST:PORT, the port as a number, '
            f'not "{draft.value("protocolHost")}"',
            draft.where("protocolHost"),
            name,
        )
    for entry in draft.entries("protocolHeader"):
        if _HEADER.fullmatch(entry.value) is None:
            findings.error('"protocolHeader" takes NAME: VALUE, not this value', entry.location, name)
    _credentials(draft, findings)


def _credentials(draft: Draft, findings: Findings) -> None:
    name, username = draft.name, draft.value("protocolUsername")
    way = draft.value("protocolAuthentication")
    if way == "ntlm":
        for option in ("protocolUsername", "protocolPassword"):
            if not draft.mentions(option):
                findings.error(
                    f'"protocolAuthentication = ntlm" needs "{option}"',
                    draft.where("protocolAuthentication"),
                    name,
                )
        return
    if draft.entries("protocolDomain"):
        findings.warning(
            '"protocolDomain" has no effect without "protocolAuthentication = ntlm"',
            draft.where("protocolDomain"),
            name,
        )
    if username is not None and ":" in username:
        findings.error(
            '"protocolUsername" holds no colon in basic authentication (RFC 7617, 2)',
            draft.where("protocolUsername"),
            name,
        )
    if username is None and draft.entries("protocolPassword") and not draft.spoilt("protocolUsername"):
        findings.warning(
            '"protocolPassword" has no effect without "protocolUsername"',
            draft.where("protocolPassword"),
            name,
        )


def _as_socks_proxy(draft: Draft, findings: Findings) -> None:
    name = draft.name
    if draft.mentions("exec"):
        findings.error(
            '"exec" cannot go with "protocol = socks": each client names its own target',
            draft.where("exec"),
            name,
        )
    if draft.has_own("connect"):
        findings.warning(
            '"connect" has no effect beside "protocol = socks": each client names its own target',
            draft.where("connect"),
            name,
        )
    policy = verify_policy(draft)
    known = policy.chain or policy.peer or draft.mentions("PSKsecrets")
    if not known and not draft.entries("socksAllow"):
        findings.warning(
            f"Service [{name}] lets anybody connect to anywhere through it: "
            'verify its clients, or name their targets by "socksAllow"',
            draft.where("protocol"),
            name,
        )
