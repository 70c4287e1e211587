"""What goes together with `tun`, and what a VPN needs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from culvert.address import UnixPath
from culvert.config.derived import allow_entries, server_name, verify_policy, versions, vpn
from culvert.config.draft import Draft
from culvert.config.findings import Findings
from culvert.config.model import TlsVersion
from culvert.config.vpn import Vpn
from culvert.config.vpn_networks import check_between, check_networks

_OWN = (
    "transport",
    "tunAccept",
    "tunAddress",
    "tunClient",
    "tunClientToClient",
    "tunKeepalive",
    "tunMTU",
    "tunOffload",
    "tunParity",
    "tunPeer",
    "tunPool",
    "tunRoute",
)

VPN_OPTIONS = ("tun", "client", *_OWN)

_FORBIDDEN = {
    "exec": "the packets of the interface are what is carried",
    "transparent": "there is no client whose address could be taken",
    "redirect": "there is nowhere else that a client of a VPN could be sent",
    "proxyProtocol": "nothing is connected to behind a VPN",
    "sni": "a VPN has a process of its own, which takes clients from no other service",
}

_NO_EFFECT_IN_CLIENT = {
    "failover": "a VPN's client tries its targets in the order in which they stand",
    "healthCheck": "a VPN's client finds out by its own connection",
}

_NO_EFFECT = {
    "TIMEOUTidle": 'a silent peer is noticed by "tunKeepalive"',
    "TIMEOUTclose": "both directions of a VPN end together",
}


def is_vpn(draft: Draft) -> bool:
    """Whether the service is a VPN, or was meant to be one."""
    return draft.mentions("tun")


def check_vpn_ends(draft: Draft, findings: Findings) -> None:
    """Report a VPN that lacks its way to the peer, or has two."""
    here, there = ("connect", "accept") if draft.value("client") else ("accept", "connect")
    role = "client" if draft.value("client") else "server"
    if not draft.mentions(here):
        findings.error(
            f'a VPN\'s {role} needs "{here}" beside "tun"',
            draft.where("tun"),
            draft.name,
            'the end with "client = yes" connects, the other accepts',
        )
    if draft.mentions(there):
        findings.error(
            f'"{there}" cannot go with "tun" in a {role}: the interface is its other end',
            draft.where(there),
            draft.name,
            None if draft.value("client") else 'set "client = yes" for the end that connects',
        )


def check_vpn(draft: Draft, findings: Findings) -> None:
    """Report options that cannot go with `tun`, or do nothing without it, and addresses that do not fit."""
    if not is_vpn(draft):
        for option in _OWN:
            if draft.has_own(option):
                findings.warning(f'"{option}" has no effect without "tun"', draft.where(option), draft.name)
        return
    _check_company(draft, findings)
    found = vpn(draft)
    if found is None:
        return
    if found.datagrams:
        _check_datagrams(draft, findings)
    elif draft.has_own("tunParity"):
        findings.warning(
            '"tunParity" has no effect without "transport = dtls": a stream loses nothing',
            draft.where("tunParity"),
            draft.name,
        )
    (_check_client if draft.value("client") else _check_server)(draft, findings, found)
    check_networks(draft, findings, found)


def _check_datagrams(draft: Draft, findings: Findings) -> None:
    here = "connect" if draft.value("client") else "accept"
    paths = [entry for entry in draft.entries(here) if isinstance(entry.value, UnixPath)]
    if paths:
        findings.error(
            f'"transport = dtls" goes over the internet, and "{here} = {paths[0].value}" is a Unix socket',
            paths[0].location,
            draft.name,
        )
    oldest, newest = versions(draft)
    if not oldest <= TlsVersion.TLS1_2 <= newest:
        findings.error(
            '"transport = dtls" is DTLS 1.2, as good as TLS 1.2, which "sslVersion" leaves out',
            draft.where("transport"),
            draft.name,
            'have sslVersionMin = TLSv1.2 at most, or "transport = tls"',
        )
    if draft.value("protocol") is not None:
        findings.error(
            '"protocol" cannot go with "transport = dtls": no datagram gets through a proxy',
            draft.where("protocol"),
            draft.name,
        )
    if draft.value("trace"):
        findings.warning(
            '"trace = yes" shows a VPN while it goes over TLS alone: what goes in datagrams is not traced',
            draft.where("trace"),
            draft.name,
        )
    if draft.value("acceptProxy"):
        findings.error(
            '"acceptProxy" cannot go with "transport = dtls": datagrams come without a PROXY header',
            draft.where("acceptProxy"),
            draft.name,
        )


def _check_company(draft: Draft, findings: Findings) -> None:
    client = bool(draft.value("client"))
    for option, reason in _FORBIDDEN.items():
        client_name = option == "sni" and client  # the name to ask for: as good as anywhere
        if not client_name and draft.has_own(option) and draft.value(option):
            findings.error(f'"{option}" cannot go with "tun": {reason}', draft.where(option), draft.name)
    for option, reason in (_NO_EFFECT | (_NO_EFFECT_IN_CLIENT if client else {})).items():
        if draft.has_own(option):
            findings.warning(
                f'"{option}" has no effect beside "tun": {reason}', draft.where(option), draft.name
            )
    protocol = draft.value("protocol")
    if protocol is not None and not (client and protocol == "connect"):
        findings.error(
            f'"protocol = {protocol}" cannot go with "tun": nothing is spoken around a VPN, but by a client '
            'to the proxy of "protocol = connect"',
            draft.where("protocol"),
            draft.name,
        )


def _check_client(draft: Draft, findings: Findings, found: Vpn) -> None:
    for option in ("tunPool", "tunClient", "tunClientToClient"):
        if draft.has_own(option):
            findings.error(
                f'"{option}" is for the server of a VPN, which gives the addresses',
                draft.where(option),
                draft.name,
            )
    if found.peers and not found.addresses:
        findings.error(
            '"tunPeer" needs "tunAddress" in a client: leave out both to be given them by the server',
            draft.where("tunPeer"),
            draft.name,
        )


def _check_server(draft: Draft, findings: Findings, found: Vpn) -> None:
    if not draft.mentions("tunAddress"):
        findings.error(
            'a VPN\'s server needs an address of its own: set "tunAddress"', draft.where("tun"), draft.name
        )
    several = [option for option in ("tunPool", "tunClient") if draft.mentions(option)]
    if draft.mentions("tunPeer") and several:
        findings.error(
            f'"tunPeer" cannot go with "{several[0]}": it is for a VPN of two',
            draft.where("tunPeer"),
            draft.name,
        )
    if not draft.mentions("tunPeer") and not several:
        findings.error(
            'a VPN\'s server has no address for its clients: set "tunPeer" for one client, '
            '"tunPool" or "tunClient" for several',
            draft.where("tun"),
            draft.name,
        )
    policy = verify_policy(draft)
    verified = policy.chain or policy.peer
    if not _proven(draft):
        findings.error(
            "a VPN's server must know its clients: whoever comes would be let into the network",
            draft.where("tun"),
            draft.name,
            'set "verifyChain = yes" with "CAfile", or "PSKsecrets" without "cert"',
        )
    if found.clients and not verified:
        findings.error(
            '"tunClient" needs "verifyChain = yes" or "verifyPeer = yes": a name in a certificate that '
            "nobody has verified proves nothing",
            draft.where("tunClient"),
            draft.name,
        )


def _proven(draft: Draft) -> bool:
    """Whether nobody is let in who has not proven who he is."""
    policy = verify_policy(draft)
    known = policy.chain or policy.peer or bool(allow_entries(draft))
    return (known and policy.require) or (draft.mentions("PSKsecrets") and not draft.mentions("cert"))


def check_vpns(drafts: Sequence[Draft], defaults: Draft, findings: Findings, *, inetd: bool) -> None:
    """Report VPNs that cannot be served by this daemon, and two with one interface."""
    meant = [draft for draft in drafts if is_vpn(draft)]
    seen: dict[str, Draft] = {}
    for draft in meant:
        if inetd:
            findings.error(
                '"tun" needs a [service] section above it: a VPN is no single connection', draft.where("tun")
            )
        elif defaults.value("workers") == 0:
            findings.error(
                '"tun" cannot go with "workers = 0": a VPN has a process of its own',
                draft.where("tun"),
                draft.name,
            )
        device = draft.value("tun")
        first = seen.setdefault(device, draft) if device is not None else draft
        if first is not draft:
            findings.error(
                f'service [{first.name}] has the interface "{device}" already ({first.where("tun")})',
                draft.where("tun"),
                draft.name,
            )
    check_between(meant, findings)
    _check_primaries(drafts, {draft.name for draft in meant}, findings)


def _check_primaries(drafts: Iterable[Draft], vpns: set[str], findings: Findings) -> None:
    for draft in drafts:
        if draft.value("client"):
            continue
        for entry in draft.entries("sni"):
            primary = server_name(entry.value).primary
            if primary in vpns:
                findings.error(
                    f'"sni" cannot take clients from service [{primary}]: a VPN has a process of its own',
                    entry.location,
                    draft.name,
                )
