"""What the rules on identity (allowCN and its kin) need around them, so that each can let somebody pass."""

from __future__ import annotations

from culvert.config.derived import allow_entries, only_if_present, verify_policy
from culvert.config.draft import Draft, Entry
from culvert.config.findings import Findings
from culvert.config.model import AllowKind

_WITHOUT_AUTHORITY = frozenset({AllowKind.SPKI, AllowKind.PSK})
"""Kinds that need nobody to vouch for what they compare: the handshake itself proves that the peer has the
key. Every other kind compares a name, which anybody can write into a certificate of his own."""


def check_identity_rules(draft: Draft, findings: Findings) -> None:
    """Report rules that can let nobody pass, and those whose names nobody vouches for."""
    entries = allow_entries(draft)
    if not entries:
        return
    _check_requirement(draft, findings)
    policy = verify_policy(draft)
    seen: dict[tuple[AllowKind, str], Entry] = {}
    for entry in entries:
        kind = entry.value.kind
        if kind is AllowKind.PSK and not draft.mentions("PSKsecrets"):
            findings.error('"allowPSK" needs "PSKsecrets"', entry.location, draft.name)
        elif kind not in _WITHOUT_AUTHORITY and not (policy.chain or policy.peer):
            findings.error(
                f'"{kind.value}" needs "verifyChain = yes" or "verifyPeer = yes"', entry.location, draft.name
            )
        first = seen.setdefault((kind, entry.value.value), entry)
        if first is not entry:
            findings.error(
                f'"{kind.value}" has this value already at {first.location}', entry.location, draft.name
            )


def _check_requirement(draft: Draft, findings: Findings) -> None:
    """Whoever may come without a certificate would be turned away by the rules all the same."""
    if draft.value("requireCert") is False:
        option, setting = "requireCert", "requireCert = no"
    elif draft.value("requireCert") is None and only_if_present(draft):
        option, setting = "verify", "verify = 1"
    else:
        return
    findings.error(
        f'"{setting}" admits a peer without a certificate, and the allow rules admit none without: '
        "remove one or the other",
        draft.where(option),
        draft.name,
    )
