"""Limits on connections that can never be reached, or that have nothing to limit."""

from __future__ import annotations

from collections.abc import Iterable

from culvert.address import UnixPath
from culvert.config.draft import Draft
from culvert.config.findings import Findings

LIMIT_OPTIONS = ("maxConnections", "maxConnectionsPerIP", "maxHandshakes", "acceptRate")

_WITHIN_ALL = ("maxConnectionsPerIP", "maxHandshakes")
"""What counts a part of the connections that `maxConnections` counts."""


def check_limits(draft: Draft, findings: Findings) -> None:
    """Report limits of a service that do nothing."""
    own = [name for name in LIMIT_OPTIONS if draft.has_own(name)]
    comes = draft.mentions("accept") or (draft.mentions("sni") and not draft.value("client"))
    if not comes:
        for name in own:
            findings.warning(
                f'"{name}" has no effect without "accept": there are no clients',
                draft.where(name),
                draft.name,
            )
        return
    if "maxConnectionsPerIP" in own and isinstance(draft.value("accept"), UnixPath):
        findings.warning(
            '"maxConnectionsPerIP" has no effect on a Unix socket, whose clients have no address',
            draft.where("maxConnectionsPerIP"),
            draft.name,
        )
    _check_parts(draft, findings, draft.name)


def check_daemon_limits(defaults: Draft, sections: Iterable[Draft], findings: Findings) -> None:
    """Report limits of the daemon that do nothing, and those of services that its own leave no room for."""
    if any(defaults.spoilt(name) for name in LIMIT_OPTIONS):
        return
    drafts = list(sections)
    if not drafts:
        return  # inetd mode: that the one service has no `accept` is said already
    _check_parts(defaults, findings, None)
    for draft in drafts:
        for name in ("maxConnections", "maxConnectionsPerIP", "maxHandshakes"):
            total, own = defaults.own_value(name), draft.own_value(name)
            if total is not None and own is not None and own >= total:
                findings.warning(
                    f'"{name} = {own}" has no effect: there may be {total} in the whole daemon',
                    draft.where(name),
                    draft.name,
                )


def _check_parts(draft: Draft, findings: Findings, service: str | None) -> None:
    total = draft.own_value("maxConnections")
    for name in _WITHIN_ALL:
        part = draft.own_value(name)
        if total is not None and part is not None and part >= total:
            findings.warning(
                f'"{name} = {part}" has no effect: it is not below "maxConnections = {total}"',
                draft.where(name),
                service,
            )
