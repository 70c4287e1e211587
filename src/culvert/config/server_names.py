"""`sni = SERVICE:PATTERN` in a server: services that take over clients of another by the name asked for."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

from culvert.config.derived import implied_protocols, server_name
from culvert.config.draft import Draft
from culvert.config.findings import Findings
from culvert.config.model import Service, Transparent
from culvert.config.protocols import CLIENT_CHOOSES_TARGET, CONNECTING_FIRST, INSIDE_TLS
from culvert.config.values import listed

_PATTERN = re.compile(r"(\*\.)?[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*")


def check_server_names(draft: Draft, findings: Findings) -> None:
    """Report what is wrong with a service's own `sni` lines."""
    for entry in draft.entries("sni"):
        if draft.value("client"):
            if ":" in entry.value:
                findings.error(
                    f'"sni" takes a host name or nothing in client mode, not "{entry.value}"',
                    entry.location,
                    draft.name,
                )
            continue
        name = server_name(entry.value)
        if not name.primary or _PATTERN.fullmatch(name.pattern) is None:
            findings.error(
                f'"sni" takes SERVICE:PATTERN in server mode, not "{entry.value}"',
                entry.location,
                draft.name,
                'the pattern is a host name, or "*." and the rest of one',
            )


def check_primaries(drafts: Sequence[Draft], findings: Findings) -> None:
    """Report `sni` lines whose SERVICE cannot hand its clients on, and patterns that stand twice."""
    by_name = {draft.name: draft for draft in drafts}
    seen: dict[tuple[str, str], Draft] = {}
    for draft in drafts:
        if draft.value("client") or draft.spoilt("client"):
            continue
        greeted: set[bool] = set()
        for entry in draft.entries("sni"):
            name = server_name(entry.value)
            if not name.primary:
                continue  # it has an error already
            primary = by_name.get(name.primary)
            first = seen.setdefault((name.primary, name.pattern), draft)
            if primary is None:
                reason = f'there is no service [{name.primary}] for "sni" to take clients from'
            elif primary.value("client") or not primary.mentions("accept"):
                reason = f'service [{name.primary}], which "sni" names, is no TLS server with an "accept"'
            elif primary is draft:
                reason = '"sni" names the service itself'
            elif primary.value("protocol") == CLIENT_CHOOSES_TARGET and not _has_target(draft):
                reason = (
                    f"service [{name.primary}] has no target to hand on, its clients name theirs: "
                    'set "connect", "exec" or "protocol = socks" here as well'
                )
            elif first is not draft:
                reason = f"service [{first.name}] has this pattern already"
            else:
                _check_protocols(draft, primary, findings)
                greeted.add(primary.value("protocol") in CONNECTING_FIRST)
                if len(greeted) == 1:
                    continue
                reason = (
                    '"sni" names services that connect to their target before TLS '
                    f"(protocol = {listed(sorted(CONNECTING_FIRST))}) and others that do not: "
                    "make two services of this one"
                )
            findings.error(reason, entry.location, draft.name)


def _check_protocols(draft: Draft, primary: Draft, findings: Findings) -> None:
    """What is said before TLS is said before the client names a server: the primary says it for both."""
    own, spoken = draft.value("protocol"), primary.value("protocol")
    if own is not None and own != spoken and (own not in INSIDE_TLS or spoken in CONNECTING_FIRST):
        said = f'speaks "protocol = {spoken}"' if spoken else "speaks none"
        findings.error(
            f'"protocol = {own}" cannot go with "sni": before TLS, service [{primary.name}] talks to the '
            f"client, and it {said}",
            draft.where("protocol"),
            draft.name,
        )
    if spoken not in CONNECTING_FIRST:
        return
    for option in ("connect", "exec", "redirect", "transparent"):
        if draft.has_own(option) and draft.value(option) is not Transparent.NONE:
            findings.error(
                f'"{option}" cannot go with "sni" here: service [{primary.name}] speaks '
                f'"protocol = {spoken}" and has connected to its target before the client names a server',
                draft.where(option),
                draft.name,
                f"leave it out to share the target of [{primary.name}]",
            )


def _has_target(draft: Draft) -> bool:
    own = any(draft.mentions(name) for name in ("connect", "exec"))
    return own or draft.spoilt("protocol") or draft.value("protocol") == CLIENT_CHOOSES_TARGET


def _asks_for_target(service: Service) -> bool:
    """Whether its clients name their targets: the primary's program or target, and the header that it
    expects, are none of theirs."""
    return service.protocol is not None and service.protocol.name == CLIENT_CHOOSES_TARGET


def with_inherited_ends(services: Sequence[Service]) -> tuple[Service, ...]:
    """The services, those without a target of their own with that of the service they take clients from."""
    by_name = {service.name: service for service in services}

    def complete(service: Service) -> Service:
        if not service.server_names:
            return service
        primary = by_name[service.server_names[0].primary]
        if service.protocol is None and primary.protocol and primary.protocol.name not in INSIDE_TLS:
            service = dataclasses.replace(
                service,
                protocol=primary.protocol,
                alpn=service.alpn or implied_protocols(primary.protocol.name),
            )
        leads_on = service.connect or Transparent.DESTINATION in service.transparent
        if leads_on or service.exec is not None or _asks_for_target(service):
            return service
        header = service.proxy.send or primary.proxy.send  # which the target expects, or not
        return dataclasses.replace(
            service,
            connect=primary.connect,
            transparent=service.transparent | (primary.transparent & Transparent.DESTINATION),
            exec=primary.exec,
            exec_args=primary.exec_args,
            pty=primary.pty,
            proxy=dataclasses.replace(service.proxy, send=header),
        )

    return tuple(complete(service) for service in services)
