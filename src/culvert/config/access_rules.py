"""What goes together with PROXY headers and with checks of where a client comes from, and what does not."""

from __future__ import annotations

from collections.abc import Sequence

from culvert.address import UnixPath
from culvert.config.derived import proxy_headers, server_name, sources
from culvert.config.draft import Draft
from culvert.config.findings import Findings
from culvert.config.protocols import CONNECTING_FIRST, PROXY

ACCESS_OPTIONS = (
    "accept",
    "acceptProxy",
    "allowFrom",
    "client",
    "denyFrom",
    "ident",
    "libwrap",
    "protocol",
    "proxyProtocol",
    "trustProxy",
)

_OF_CLIENTS = ("acceptProxy", "trustProxy", "allowFrom", "denyFrom", "ident", "libwrap")

_PROGRAM = (
    'a PROXY header is for what "connect" leads to: a program has no use for one, '
    "and finds its client in REMOTE_HOST and REMOTE_PORT"
)


def check_access(draft: Draft, findings: Findings) -> None:
    """Report checks of clients that cannot work, or that would let nobody in, or everybody."""
    if draft.mentions("exec") and draft.mentions("connect"):
        for option in _OF_CLIENTS:
            if draft.has_own(option):
                findings.warning(
                    f'"{option}" has no effect here: the client is the program of "exec"',
                    draft.where(option),
                    draft.name,
                )
        return
    _check_incoming(draft, findings)
    _check_ident(draft, findings)
    if _on_unix_socket(draft) and not draft.value("acceptProxy"):
        _check_unix(draft, findings)


def _on_unix_socket(draft: Draft) -> bool:
    return isinstance(draft.value("accept"), UnixPath)


def _check_incoming(draft: Draft, findings: Findings) -> None:
    """PROXY headers from clients."""
    by_name = not draft.mentions("accept") and draft.mentions("sni")
    for option in ("acceptProxy", "trustProxy"):
        if by_name and draft.has_own(option):
            findings.warning(
                f'"{option}" has no effect here: clients come by their server name, '
                "through the service that accepts them",
                draft.where(option),
                draft.name,
            )
    if not draft.value("acceptProxy"):
        if draft.has_own("trustProxy"):
            findings.warning(
                '"trustProxy" has no effect without "acceptProxy = yes"',
                draft.where("trustProxy"),
                draft.name,
            )
    elif _on_unix_socket(draft):
        if draft.has_own("trustProxy"):
            findings.warning(
                '"trustProxy" has no effect on a Unix socket: whoever may connect to it is believed',
                draft.where("trustProxy"),
                draft.name,
            )
    elif not draft.entries("trustProxy") and not by_name:
        findings.error(
            '"acceptProxy = yes" needs "trustProxy": anybody could claim any address',
            draft.where("acceptProxy"),
            draft.name,
            "name the addresses of the proxies",
        )


def _check_ident(draft: Draft, findings: Findings) -> None:
    if draft.value("ident") is None:
        return
    if draft.value("acceptProxy"):
        findings.error(
            '"ident" cannot go with "acceptProxy": the client has no connection with this machine '
            "that its ident server could know of",
            draft.where("ident"),
            draft.name,
        )
    elif _on_unix_socket(draft):
        findings.error(
            '"ident" needs clients of TCP: those of a Unix socket have no ident server',
            draft.where("ident"),
            draft.name,
        )


def _check_unix(draft: Draft, findings: Findings) -> None:
    """What asks for addresses, where there are none."""
    allowed = sources(draft, "allowFrom")
    if allowed and not allowed.unix:
        findings.error(
            '"allowFrom" lets nobody in: clients of a Unix socket have no address',
            draft.where("allowFrom"),
            draft.name,
            'add "unix" to it, or leave it out and rely on the owner and the folder of the socket',
        )
    if draft.has_own("libwrap") and draft.value("libwrap"):
        findings.warning(
            '"libwrap" has no effect on a Unix socket: its clients have no address',
            draft.where("libwrap"),
            draft.name,
        )


def check_announcing(draft: Draft, findings: Findings) -> None:
    """Report PROXY headers that cannot be sent, or that would tell less than they seem to."""
    if proxy_headers(draft).send is None:
        return
    protocol = draft.value("protocol")
    option = "protocol" if protocol == PROXY else "proxyProtocol"
    where = draft.where(option)
    if protocol == PROXY and draft.entries("proxyProtocol"):
        findings.error(
            '"protocol = proxy" sends a PROXY header of version 1 already: leave out one of the two',
            draft.where("proxyProtocol"),
            draft.name,
        )
    elif draft.mentions("exec") and not draft.mentions("connect"):
        findings.error(f'"{option}" cannot go with "exec": {_PROGRAM}', where, draft.name)
    elif protocol == "socks" and not draft.value("client"):
        findings.error(
            '"proxyProtocol" cannot go with "protocol = socks": '
            "clients choose their targets, which expect no PROXY header",
            where,
            draft.name,
        )
    elif draft.value("proxyProtocol") == 2 and protocol in CONNECTING_FIRST and not draft.value("client"):
        findings.warning(
            f'"proxyProtocol = v2" tells nothing of TLS with "protocol = {protocol}": '
            "the header goes out before the handshake",
            where,
            draft.name,
        )


def check_clients_by_name(drafts: Sequence[Draft], findings: Findings) -> None:
    """Report checks that fail for every client whom another service hands on by its server name."""
    by_name = {draft.name: draft for draft in drafts}
    for draft in drafts:
        if draft.value("client") or draft.mentions("accept"):
            continue
        for primary in dict.fromkeys(
            by_name.get(server_name(entry.value).primary) for entry in draft.entries("sni")
        ):
            if primary is None or primary is draft:
                continue
            allowed = sources(draft, "allowFrom")
            nameless = _on_unix_socket(primary) and not primary.value("acceptProxy")
            for option in ("libwrap", "maxConnectionsPerIP") if nameless else ():
                if draft.has_own(option) and draft.value(option):
                    findings.warning(
                        f'"{option}" has no effect here: the clients of service [{primary.name}] '
                        "have no address",
                        draft.where(option),
                        draft.name,
                    )
            if draft.value("ident") is not None and (
                primary.value("acceptProxy") or _on_unix_socket(primary)
            ):
                findings.error(
                    f'"ident" lets nobody in: the clients of service [{primary.name}] have no connection '
                    "with this machine that an ident server of theirs could know of",
                    draft.where("ident"),
                    draft.name,
                )
            elif (
                not primary.value("acceptProxy") and _on_unix_socket(primary) and allowed and not allowed.unix
            ):
                findings.error(
                    f'"allowFrom" lets nobody in: the clients of service [{primary.name}] have no address',
                    draft.where("allowFrom"),
                    draft.name,
                    'add "unix" to it, or leave it out',
                )


def check_inherited_targets(drafts: Sequence[Draft], findings: Findings) -> None:
    """Report headers to the target of the service that clients are taken from, where there can be none."""
    by_name = {draft.name: draft for draft in drafts}
    for draft in drafts:
        if draft.value("client") or draft.mentions("accept") or proxy_headers(draft).send is None:
            continue
        lines = draft.entries("sni")
        primary = by_name.get(server_name(lines[0].value).primary) if lines else None
        if primary is None:
            continue
        option = "protocol" if draft.value("protocol") == PROXY else "proxyProtocol"
        of_its_own = draft.mentions("connect") or draft.mentions("exec")
        if primary.mentions("exec") and not of_its_own:
            findings.error(
                f'"{option}" cannot go with the "exec" of service [{primary.name}]: {_PROGRAM}',
                draft.where(option),
                draft.name,
            )
        elif primary.value("protocol") in CONNECTING_FIRST and draft.has_own("proxyProtocol"):
            findings.error(
                f'"proxyProtocol" belongs to service [{primary.name}], whose "protocol = '
                f'{primary.value("protocol")}" connects to the target before the client names a server',
                draft.where("proxyProtocol"),
                draft.name,
            )
