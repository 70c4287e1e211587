"""What goes together with `transparent`, and what does not."""

from __future__ import annotations

from culvert.address import UnixPath
from culvert.config.draft import Draft
from culvert.config.findings import Findings
from culvert.config.model import Transparent

_CHOOSE_THE_TARGET = frozenset({"connect", "socks"})
"""Protocols by which the target, or the proxy before it, is known already."""


def leads_somewhere(draft: Draft) -> bool:
    """Whether the client's own destination stands in the place of `connect`."""
    return Transparent.DESTINATION in draft.value("transparent") and not draft.mentions("exec")


def check_transparent(draft: Draft, findings: Findings) -> None:
    """Report a service whose client has no address to take, or whose target is not to be chosen so."""
    value: Transparent = draft.value("transparent")
    if value is Transparent.NONE:
        return
    reason = _reason_against(draft, value)
    if reason is not None:
        hint = None if draft.has_own("transparent") else 'set "transparent = none" in this section'
        findings.error(f'"transparent" {reason}', draft.where("transparent"), draft.name, hint)
    elif Transparent.DESTINATION in value and draft.entries("connect"):
        findings.warning(
            '"connect" has no effect beside "transparent": the client says where it goes',
            draft.where("connect"),
            draft.name,
        )


def _reason_against(draft: Draft, value: Transparent) -> str | None:
    if draft.mentions("exec"):
        return 'cannot go with "exec": a program has no address'
    if isinstance(draft.value("accept"), UnixPath):
        return "needs clients with an internet address, and those of a Unix socket have none"
    if Transparent.SOURCE in value and draft.mentions("local"):
        return 'cannot go with "local": both say from where to connect'
    targets = (*draft.value("connect"), draft.value("redirect"))
    if Transparent.SOURCE in value and any(isinstance(to, UnixPath) for to in targets):
        return "needs a target with an internet address, and a Unix socket has none"
    if Transparent.DESTINATION in value and draft.value("protocol") in _CHOOSE_THE_TARGET:
        return f'cannot go with "protocol = {draft.value("protocol")}": both say where to connect'
    return None
