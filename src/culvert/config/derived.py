"""The fields of a service that follow from several options, or from more than one line of the same."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any

from culvert.address import HostPort
from culvert.config.addresses import CONNECT
from culvert.config.draft import Draft, Entry
from culvert.config.model import (
    AccessRules,
    AllowKind,
    ConnectionLimits,
    Failover,
    OcspPolicy,
    ProtocolOptions,
    ProxyHeaders,
    ServerName,
    SocketOption,
    Sources,
    TlsVersion,
    VerifyPolicy,
)
from culvert.config.options import find, named
from culvert.config.protocols import POSTGRESQL_ALPN, PROXY
from culvert.config.tls_options import TlsOption
from culvert.config.values import BadValue
from culvert.config.vpn import Network, Vpn

OLDEST = TlsVersion.TLS1
"""The oldest version that current OpenSSL speaks: SSLv3 left it with version 4.0."""

NEWEST = TlsVersion.TLS1_3

KEYS_FIRST = {
    "ciphers": f"kECDHEPSK+HIGH:kPSK+HIGH:{named('ciphers').default}",
    "ciphersuites": "TLS_AES_128_GCM_SHA256:TLS_CHACHA20_POLY1305_SHA256:TLS_AES_256_GCM_SHA384",
}
"""The defaults beside pre-shared keys. A server that prefers a cipher of certificates would use no key; so
would one of TLS 1.3 that prefers SHA-384, with which a key of no stated hash does not go (RFC 8446, 4.2.11).
"""


def derived_fields(draft: Draft) -> dict[str, Any]:
    """What stands in the model under these names, in place of the options' bare values."""
    oldest, newest = versions(draft)
    bits_set, bits_clear = tls_bits(draft)
    program = draft.value("exec")
    return {
        "key": draft.value("key") or draft.value("cert"),
        "exec_args": draft.value("execArgs") or ((program,) if program else ()),
        "failover": Failover.PRIO if _delays(draft) else draft.value("failover"),
        "delay": _delays(draft),
        "verify": verify_policy(draft),
        "allow": tuple(entry.value for entry in allow_entries(draft)),
        "ocsp": ocsp_policy(draft),
        "protocol": protocol_options(draft),
        "proxy": proxy_headers(draft),
        "access": access_rules(draft),
        "alpn": application_protocols(draft),
        "sni": draft.value("sni")[-1] if draft.value("client") and draft.value("sni") else None,
        "server_names": () if draft.value("client") else tuple(map(server_name, draft.value("sni"))),
        "ciphers": _ciphers(draft, "ciphers"),
        "ciphersuites": _ciphers(draft, "ciphersuites"),
        "curves": _latest(draft, "curves"),
        "signature_algorithms": _latest(draft, "signatureAlgorithms"),
        "version_min": max(oldest, OLDEST),
        "version_max": newest,
        "options_set": bits_set,
        "options_clear": bits_clear,
        "socket_options": socket_options(draft),
        "limits": connection_limits(draft),
        "vpn": vpn(draft),
    }


def _delays(draft: Draft) -> bool:
    """Whether names are looked up for each connection: those of a VPN are few, and far apart."""
    return bool(draft.value("delay") or draft.value("tun"))


def vpn(draft: Draft) -> Vpn | None:
    """The VPN that the service is; None where it is none."""
    if draft.value("tun") is None:
        return None
    return Vpn(
        device=draft.value("tun"),
        addresses=draft.value("tunAddress"),
        peers=draft.value("tunPeer"),
        routes=_each_once(draft.value("tunRoute")),
        accept=_each_once(draft.value("tunAccept")),
        mtu=draft.value("tunMTU"),
        pools=draft.value("tunPool"),
        clients=draft.value("tunClient"),
        between_clients=draft.value("tunClientToClient"),
        keepalive=draft.value("tunKeepalive"),
        offload=draft.value("tunOffload"),
        parities=draft.value("tunParity"),
        transport=draft.value("transport"),
    )


def _each_once(lines: Iterable[tuple[Network, ...]]) -> tuple[Network, ...]:
    return tuple(dict.fromkeys(network for line in lines for network in line))


def connection_limits(draft: Draft) -> ConnectionLimits:
    """The limits that stand in this section itself, or in front of the first: nothing is inherited.

    What stands in front of the first section is the daemon's total, which is no service's share.
    """
    return ConnectionLimits(
        connections=draft.own_value("maxConnections"),
        per_ip=draft.own_value("maxConnectionsPerIP"),
        handshakes=draft.own_value("maxHandshakes"),
        rate=draft.own_value("acceptRate"),
    )


def verify_policy(draft: Draft) -> VerifyPolicy:
    """What is asked of the peer's certificate: the new options, over the old `verify` where both are set.

    Rules on identity ask for a certificate by themselves: a peer without one has none that could pass.
    """
    level = draft.value("verify")
    chain, peer, require = (draft.value(name) for name in ("verifyChain", "verifyPeer", "requireCert"))
    if chain is None:
        chain = level in (1, 2, 3)
    if peer is None:
        peer = level in (3, 4)
    if require is None:
        require = (chain or peer) and not only_if_present(draft)
    require = require or bool(allow_entries(draft))
    request = chain or peer or require or level is not None
    return VerifyPolicy(request=request, require=require, chain=chain, peer=peer)


def only_if_present(draft: Draft) -> bool:
    """Whether `verify = 1` stands alone: the new options require a certificate by themselves."""
    return draft.value("verify") == 1 and not draft.value("verifyChain") and not draft.value("verifyPeer")


def allow_entries(draft: Draft, *kinds: AllowKind) -> list[Entry]:
    """The rules on identity of these kinds, or of all, in the order of the file."""
    entries = [entry for kind in kinds or AllowKind for entry in draft.entries(kind.value)]
    return sorted(entries, key=lambda entry: entry.rank)


def ocsp_policy(draft: Draft) -> OcspPolicy:
    """How revocation is looked into by OCSP."""
    return OcspPolicy(
        url=draft.value("OCSP"),
        aia=draft.value("OCSPaia"),
        flags=draft.value("OCSPflag"),
        nonce=draft.value("OCSPnonce"),
        require=draft.value("OCSPrequire"),
        timeout=draft.value("TIMEOUTocsp"),
    )


def protocol_options(draft: Draft) -> ProtocolOptions | None:
    """The protocol and all that belongs to it; None where there is none."""
    if draft.value("protocol") is None:
        return None
    return ProtocolOptions(
        name=draft.value("protocol"),
        authentication=draft.value("protocolAuthentication"),
        domain=draft.value("protocolDomain"),
        headers=draft.value("protocolHeader"),
        host=draft.value("protocolHost"),
        username=draft.value("protocolUsername"),
        target=proxied_target(draft),
        password=draft.value("protocolPassword"),
    )


def proxy_headers(draft: Draft) -> ProxyHeaders:
    """The PROXY headers that are sent and taken; `protocol = proxy` sends those of version 1."""
    return ProxyHeaders(
        send=1 if draft.value("protocol") == PROXY else draft.value("proxyProtocol"),
        accept=draft.value("acceptProxy"),
        trusted=sources(draft, "trustProxy"),
    )


def access_rules(draft: Draft) -> AccessRules:
    """Who may come in by where it comes from."""
    return AccessRules(
        allow=sources(draft, "allowFrom"),
        deny=sources(draft, "denyFrom"),
        libwrap=draft.value("libwrap"),
        ident=draft.value("ident"),
    )


def sources(draft: Draft, option: str) -> Sources:
    """What all the lines of an option name, each once."""
    lines: tuple[Sources, ...] = draft.value(option)
    networks = dict.fromkeys(network for line in lines for network in line.networks)
    return Sources(tuple(networks), any(line.unix for line in lines))


def proxied_target(draft: Draft) -> HostPort | None:
    """`protocolHost` of `protocol = connect`: where the proxy leads; None where it is no HOST:PORT."""
    text = draft.value("protocolHost")
    if draft.value("protocol") != "connect" or text is None:
        return None
    try:
        address = CONNECT.parse(text)
    except BadValue:
        return None
    named_by_number = isinstance(address, HostPort) and isinstance(address.port, int)
    return address if named_by_number and address.host is not None else None


def application_protocols(draft: Draft) -> tuple[str, ...]:
    """What ALPN chooses from."""
    chosen: tuple[str, ...] = draft.value("alpn")
    return chosen if chosen or draft.value("client") else implied_protocols(draft.value("protocol"))


def implied_protocols(protocol: str | None) -> tuple[str, ...]:
    """What a server that speaks this `protocol` offers by ALPN where its file does not say.

    PostgreSQL's clients may begin with TLS, and then insist on it.
    """
    return (POSTGRESQL_ALPN,) if protocol == "pgsql" else ()


def versions(draft: Draft) -> tuple[TlsVersion, TlsVersion]:
    """The oldest and the newest version asked for; `sslVersion` sets both, and the later line counts."""
    oldest: TlsVersion = named("sslVersionMin").default
    newest: TlsVersion = named("sslVersionMax").default
    lines = [
        (entry.rank, name, entry.value)
        for name in ("sslVersion", "sslVersionMin", "sslVersionMax")
        for entry in lines_of(draft, name)
    ]
    for _, name, version in sorted(lines, key=lambda line: line[0]):
        if name != "sslVersionMax":
            oldest = OLDEST if version is None else version
        if name != "sslVersionMin":
            newest = NEWEST if version is None else version
    return oldest, newest


def server_name(text: str) -> ServerName:
    """A server's `sni = SERVICE:PATTERN`; one without a colon has an empty pattern."""
    primary, _, pattern = text.partition(":")
    return ServerName(primary, pattern.lower().rstrip("."))


def lines_of(draft: Draft, setting: str) -> list[Entry]:
    """What the file says of an option, by its own lines and by `config` commands, in the file's order."""
    own = draft.entries(setting) if find(setting) is not None else []
    commands = [
        dataclasses.replace(entry, value=entry.value.value)
        for entry in draft.entries("config")
        if entry.value.setting == setting
    ]
    return sorted(own + commands, key=lambda entry: entry.rank)


def _latest(draft: Draft, setting: str) -> Any:
    lines = lines_of(draft, setting)
    if lines:
        return lines[-1].value
    option = find(setting)
    return None if option is None else option.default


def _ciphers(draft: Draft, setting: str) -> str:
    """What the file says, or the default: with the ciphers for keys first where the service has keys."""
    if draft.mentions("PSKsecrets") and not lines_of(draft, setting):
        return KEYS_FIRST[setting]
    return str(_latest(draft, setting))


def _tls_options(draft: Draft) -> Iterator[TlsOption]:
    for entry in lines_of(draft, "options"):
        yield from entry.value if isinstance(entry.value, tuple) else (entry.value,)


def tls_bits(draft: Draft) -> tuple[int, int]:
    """The SSL_OP bits to set and to clear, after the defaults and then the file's lines in their order."""
    bits_set = bits_clear = 0
    for option in (*named("options").default, *_tls_options(draft)):
        if option.clear:
            bits_set, bits_clear = bits_set & ~option.bits, bits_clear | option.bits
        else:
            bits_set, bits_clear = bits_set | option.bits, bits_clear & ~option.bits
    return bits_set, bits_clear


def socket_options(draft: Draft) -> tuple[SocketOption, ...]:
    """The socket options to set, each once: the defaults, and what the file says over them."""
    chosen: dict[tuple[str, str], SocketOption] = {}
    for option in (*named("socket").default, *(entry.value for entry in draft.entries("socket"))):
        chosen[option.target, option.name] = option
    return tuple(chosen.values())
