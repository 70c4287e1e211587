"""Combinations of options that make no sense, and those that work and are not secure.

Every rule reads one service's draft. A rule never complains that an option is missing when its line was
there but faulty: that line has its own error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from culvert.address import Address, HostPort, UnixPath
from culvert.config.access_rules import ACCESS_OPTIONS, check_access, check_announcing
from culvert.config.derived import OLDEST, lines_of, verify_policy, versions
from culvert.config.draft import Draft
from culvert.config.findings import Findings
from culvert.config.identity_rules import check_identity_rules
from culvert.config.inetd_rules import check_inetd
from culvert.config.limit_rules import LIMIT_OPTIONS, check_limits
from culvert.config.model import AllowKind, Failover, TlsVersion
from culvert.config.protocol_rules import check_protocol
from culvert.config.protocols import CLIENT_CHOOSES_TARGET
from culvert.config.proxy_rules import check_proxies
from culvert.config.server_names import check_server_names
from culvert.config.tls_options import TLS_OPTIONS
from culvert.config.transparent_rules import check_transparent, leads_somewhere
from culvert.config.values import VERSIONS
from culvert.config.vpn_rules import VPN_OPTIONS, check_vpn, check_vpn_ends, is_vpn
from culvert.errors import Location

_SUBJECT_CHECKS = ("checkHost", "checkIP", "checkEmail")
_ALLOW_RULES = tuple(kind.value for kind in AllowKind)

_OTHER_SINKS = ("transparent", "protocol")
"""Options that can stand in connect's place, where their line was refused."""

_VERSION_NAMES = {version: name for name, version in VERSIONS.items()}


def check_service(draft: Draft, findings: Findings, *, inetd: bool) -> None:
    """Report everything that is wrong or unsafe in one service."""
    if not (check_inetd(draft, findings, has_sink=_has_sink(draft)) if inetd else _ends(draft, findings)):
        return
    if not inetd:
        _socket_owner(draft, findings)
    for rule, options in _RULES:
        if not any(draft.spoilt(option) for option in options):
            rule(draft, findings)


def _socket_owner(draft: Draft, findings: Findings) -> None:
    if draft.spoilt("accept") or isinstance(draft.value("accept"), UnixPath):
        return
    for option in ("setuid", "setgid"):
        if draft.has_own(option):
            findings.warning(
                f'"{option}" has no effect here: in a service it is for a Unix socket to accept on, and for '
                "the daemon it stands above the first [service]",
                draft.where(option),
                draft.name,
            )


def check_names(drafts: Iterable[Draft], findings: Findings) -> None:
    """Report services of the same name: the log, and a reload, could not tell them apart."""
    seen: dict[str, Draft] = {}
    for draft in drafts:
        first = seen.setdefault(draft.name, draft)
        if first is not draft:
            findings.error(
                f"there is a service of this name already, at {first.location}", draft.location, draft.name
            )


def check_addresses(drafts: Iterable[Draft], findings: Findings) -> None:
    """Report two services that accept on the same address."""
    seen: dict[str, Draft] = {}
    for draft in drafts:
        address: Address | None = draft.value("accept")
        if address is None or (isinstance(address, HostPort) and address.port == 0):
            continue
        first = seen.setdefault(_listening(address), draft)
        if first is not draft:
            findings.error(
                f'service [{first.name}] accepts on "{address}" already ({first.where("accept")})',
                draft.where("accept"),
                draft.name,
            )


def _listening(address: Address) -> str:
    if isinstance(address, UnixPath):
        return address.path
    return f"{(address.host or '0.0.0.0').lower()} {address.port}"  # noqa: S104 - compared, not bound


def _ends(draft: Draft, findings: Findings) -> bool:
    """A service has two ends; False if this one has none at all."""
    if is_vpn(draft):
        check_vpn_ends(draft, findings)
        return True
    ends = {"accept": _accepts(draft), "connect": _has_sink(draft), "exec": draft.mentions("exec")}
    found = [f'"{name}"' for name, given in ends.items() if given]
    if found == ['"accept"'] and not draft.mentions("accept"):
        return True  # a service that takes another's clients by name may leave them its target
    if len(found) != 2:
        has = f"only {found[0]}" if len(found) == 1 else "all three" if found else "none of them"
        findings.error(
            'a service has two ends: "accept" with "connect" or "exec", or "exec" with "connect"; '
            f"this one has {has}",
            draft.location,
            draft.name,
        )
    return bool(found)


def _accepts(draft: Draft) -> bool:
    """Whether clients come to the service, at an address of its own or by its server name."""
    return draft.mentions("accept") or _accepts_by_name(draft)


def _accepts_by_name(draft: Draft) -> bool:
    """Whether the service may have the target of the one whose clients it takes."""
    return draft.mentions("sni") and not draft.value("client")


def _has_sink(draft: Draft) -> bool:
    client_names_it = draft.value("protocol") == CLIENT_CHOOSES_TARGET and not draft.value("client")
    by_protocol = client_names_it and not draft.mentions(
        "exec"
    )  # the two together have an error of their own
    other = leads_somewhere(draft) or any(draft.spoilt(name) for name in _OTHER_SINKS)
    return draft.mentions("connect") or by_protocol or other


def _programs(draft: Draft, findings: Findings) -> None:
    if not draft.mentions("exec"):
        for name in ("execArgs", "pty"):
            if draft.has_own(name):
                findings.warning(f'"{name}" has no effect without "exec"', draft.where(name), draft.name)
    if draft.has_own("retry") and (draft.mentions("accept") or not draft.mentions("exec")):
        findings.warning(
            '"retry" has no effect but on a service with "exec" and "connect"',
            draft.where("retry"),
            draft.name,
        )


def _targets(draft: Draft, findings: Findings) -> None:
    if draft.value("delay") and draft.entries("failover") and draft.value("failover") is not Failover.PRIO:
        findings.note('"delay = yes" makes it "failover = prio"', draft.where("failover"), draft.name)
    for option in ("failover", "healthCheck"):
        spoilt = any(draft.spoilt(name) for name in _OTHER_SINKS)
        leads = spoilt or draft.mentions("connect") or draft.mentions("redirect")
        if draft.has_own(option) and not (leads or _accepts_by_name(draft)):
            findings.warning(f'"{option}" has no effect without "connect"', draft.where(option), draft.name)


def _certificate(draft: Draft, findings: Findings) -> None:
    if not draft.value("client") and not (draft.mentions("cert") or draft.mentions("PSKsecrets")):
        findings.error(
            'a TLS server needs a certificate: set "cert", or "client = yes" for the other end',
            draft.location,
            draft.name,
        )
    if draft.has_own("key") and not draft.mentions("cert"):
        findings.warning('"key" has no effect without "cert"', draft.where("key"), draft.name)


def _verification(draft: Draft, findings: Findings) -> None:
    policy = verify_policy(draft)
    verified = policy.chain or policy.peer
    asked = draft.where("verifyChain", "verifyPeer", "verify")
    if verified and not any(draft.mentions(name) for name in ("CAfile", "CApath", "CAengine", "CAstore")):
        findings.error('verification needs trusted certificates: set "CAfile" or "CApath"', asked, draft.name)
    if draft.value("verify") is not None and (
        draft.value("verifyChain") is not None or draft.value("verifyPeer") is not None
    ):
        findings.warning(
            '"verify" is the old form of "verifyChain" and "verifyPeer", which count where both are set',
            draft.where("verify"),
            draft.name,
        )
    for name in _SUBJECT_CHECKS:
        if draft.entries(name) and not verified:
            findings.error(
                f'"{name}" needs "verifyChain = yes" or "verifyPeer = yes"', draft.where(name), draft.name
            )


def _revocation(draft: Draft, findings: Findings) -> None:
    """OCSP asks about certificates that were verified: about another one it would prove nothing."""
    policy = verify_policy(draft)
    if policy.chain or policy.peer:
        return
    # A server asks `OCSP` about its own certificate too.
    for name in ("OCSP", "OCSPaia") if draft.value("client") else ("OCSPaia",):
        if draft.value(name):
            findings.error(
                f'"{name}" needs "verifyChain = yes" or "verifyPeer = yes"', draft.where(name), draft.name
            )
    if draft.value("OCSP") and not draft.value("client"):
        findings.warning(
            '"OCSP" is asked about this server\'s own certificate alone: its clients are not verified',
            draft.where("OCSP"),
            draft.name,
        )


def _authentication(draft: Draft, findings: Findings) -> None:
    """What a peer can get away with."""
    policy = verify_policy(draft)
    name = draft.name
    asked = draft.where("requireCert", "verify")
    if draft.value("client"):
        if draft.mentions("PSKsecrets"):
            return  # a server that has none of the keys is refused
        if not policy.chain and not policy.peer and not draft.mentions("allowSPKI"):
            findings.warning(
                f"Service [{name}] needs authentication to prevent MITM attacks", draft.location, name
            )
        elif not policy.peer and not any(draft.mentions(check) for check in _SUBJECT_CHECKS + _ALLOW_RULES):
            findings.warning(
                f"Service [{name}] accepts whatever server its CAs have signed for: "
                'name the right one by "checkHost" or "checkIP"',
                draft.where("verifyChain", "verify"),
                name,
            )
    elif policy.chain or policy.peer:
        if not policy.require:
            findings.warning(f"Service [{name}] lets in clients that show no certificate", asked, name)
    elif policy.request and not any(draft.mentions(rule) for rule in _ALLOW_RULES):
        findings.warning(
            f"Service [{name}] asks its clients for a certificate and verifies none", asked, name
        )


def _lists(draft: Draft, findings: Findings) -> None:
    """Revocation lists and a redirection say something of verified peers only."""
    policy = verify_policy(draft)
    if not (policy.chain or policy.peer):
        for option in ("CRLfile", "CRLpath", "redirect"):
            if draft.entries(option):
                findings.error(
                    f'"{option}" needs "verifyChain = yes" or "verifyPeer = yes"',
                    draft.where(option),
                    draft.name,
                )
    if draft.entries("redirect") and not draft.value("client") and not _accepts(draft):
        findings.error(
            '"redirect" needs "accept": there is one peer only', draft.where("redirect"), draft.name
        )
    if draft.value("client") and draft.entries("redirect"):
        findings.error(
            '"redirect" is for a TLS server: a client has nowhere else to send a server that fails',
            draft.where("redirect"),
            draft.name,
        )


def _secrets(draft: Draft, findings: Findings) -> None:
    if draft.has_own("PSKidentity") and not draft.mentions("PSKsecrets"):
        findings.warning(
            '"PSKidentity" has no effect without "PSKsecrets"', draft.where("PSKidentity"), draft.name
        )
    if draft.entries("PSKidentity") and not draft.value("client"):
        findings.warning(
            '"PSKidentity" has no effect in a server, which knows its clients by theirs',
            draft.where("PSKidentity"),
            draft.name,
        )
    policy = verify_policy(draft)
    beside = draft.mentions("cert") and not (draft.value("client") or policy.chain or policy.peer)
    if draft.mentions("PSKsecrets") and beside:
        findings.warning(
            f"Service [{draft.name}] has a certificate and lets in clients without a pre-shared key: "
            'leave out "cert", or verify theirs',
            draft.where("PSKsecrets"),
            draft.name,
        )
    if draft.entries("keylog"):
        findings.warning(
            f'"keylog" is set: whoever can read {draft.value("keylog")} can read all that '
            f"service [{draft.name}] carries",
            draft.where("keylog"),
            draft.name,
        )


def _written(draft: Draft, *settings: str) -> Location:
    """Where the first of these that is set stands last, be it as a `config` command."""
    entries = (entries[-1] for setting in settings if (entries := lines_of(draft, setting)))
    first = next(entries, None)
    return draft.location if first is None else first.location


def _versions(draft: Draft, findings: Findings) -> None:
    oldest, newest = versions(draft)
    line = _written(draft, "sslVersionMax", "sslVersionMin", "sslVersion")
    if newest < OLDEST:
        findings.error("SSLv3 left OpenSSL: nothing could be negotiated", line, draft.name)
    elif oldest > newest:
        findings.error(
            f"the oldest version, {_VERSION_NAMES[oldest]} (sslVersionMin), "
            f"is newer than the newest, {_VERSION_NAMES[newest]} (sslVersionMax)",
            line,
            draft.name,
            None if lines_of(draft, "sslVersionMin") else "sslVersionMin is TLSv1.2 unless it is set",
        )
    elif oldest < TlsVersion.TLS1_2:
        findings.warning(
            f"{_VERSION_NAMES[max(oldest, OLDEST)]} is insecure, and OpenSSL speaks it "
            'at "securityLevel = 0" only',
            _written(draft, "sslVersionMin", "sslVersion"),
            draft.name,
        )


def _weakened(draft: Draft, findings: Findings) -> None:
    if draft.value("securityLevel") == 0:
        findings.warning(
            '"securityLevel = 0" permits broken algorithms and short keys',
            draft.where("securityLevel"),
            draft.name,
        )
    unsafe = TLS_OPTIONS["ALLOW_UNSAFE_LEGACY_RENEGOTIATION"]
    for entry in lines_of(draft, "options"):
        options = entry.value if isinstance(entry.value, tuple) else (entry.value,)
        if any(option.bits == unsafe and not option.clear for option in options):
            findings.warning(
                "unsafe renegotiation lets an attacker put data in front of a client's (CVE-2009-3555)",
                entry.location,
                draft.name,
            )


_ROLE = ("client",)
_TRUST = ("verify", "verifyChain", "verifyPeer", "requireCert")

_RULES: tuple[tuple[Callable[[Draft, Findings], None], tuple[str, ...]], ...] = (
    (_programs, ()),
    (_targets, ()),
    (_certificate, _ROLE),
    (check_server_names, _ROLE),
    (_verification, _TRUST),
    (check_identity_rules, _TRUST + _ALLOW_RULES),
    (_revocation, (*_ROLE, *_TRUST, "OCSP", "OCSPaia")),
    (_authentication, _ROLE + _TRUST),
    (_lists, _ROLE + _TRUST + _ALLOW_RULES),
    (_secrets, _ROLE),
    (check_protocol, ("client", "protocol", "protocolAuthentication")),
    (check_access, ACCESS_OPTIONS),
    (check_announcing, ACCESS_OPTIONS),
    (check_transparent, ("accept", "connect", "exec", "local", "protocol", "redirect", "transparent")),
    (check_proxies, ("client", "protocol", "socksAllow", "protocolHost", *_TRUST)),
    (_versions, ("config", "sslVersion", "sslVersionMin", "sslVersionMax")),
    (_weakened, ()),
    (check_limits, LIMIT_OPTIONS),
    (check_vpn, VPN_OPTIONS),
)
"""Each rule with the options that it judges by: where a line of those was refused, it has nothing to say."""
