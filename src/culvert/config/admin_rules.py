"""The admin endpoint: who can reach it, and what it asks of them."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from culvert.address import HostPort, UnixPath
from culvert.config.draft import Draft
from culvert.config.findings import Findings
from culvert.config.model import AdminOptions
from culvert.config.values import TOKEN_LENGTH

_TOKENS = ("adminToken", "adminTokenFile")


def check_admin(defaults: Draft, findings: Findings, *, inetd: bool) -> None:
    """Report an admin endpoint that anybody could reach, and options of it that do nothing."""
    if any(defaults.spoilt(name) for name in ("admin", *_TOKENS)):
        return
    given = [name for name in _TOKENS if defaults.mentions(name)]
    if inetd:
        for name in ("admin", *given) if defaults.mentions("admin") else given:
            findings.warning(
                f'"{name}" has no effect without a [service] section: there is no daemon',
                defaults.where(name),
            )
        return
    if len(given) == 2:
        findings.error('"adminToken" and "adminTokenFile" exclude each other', defaults.where(given[1]))
    address = defaults.value("admin")
    if address is None:
        for name in given:
            findings.warning(f'"{name}" has no effect without "admin"', defaults.where(name))
    elif not given and not is_local(address):
        findings.error(
            f'"admin = {address}" can be reached from other machines: that needs "adminToken"',
            defaults.where("admin"),
            hint="or use 127.0.0.1, or the path of a Unix socket",
        )
    token = defaults.value("adminToken")
    if token is not None and len(token) < TOKEN_LENGTH:
        findings.warning(
            f'"adminToken" has fewer than {TOKEN_LENGTH} characters: it can be guessed',
            defaults.where("adminToken"),
        )


def check_trace(drafts: Iterable[Draft], defaults: Draft, findings: Findings, *, inetd: bool) -> None:
    """Report services that may be traced: what it means, or that nobody could ask for it."""
    if inetd:
        text = '"trace = yes" has no effect without a [service] section: there is no daemon'
    elif defaults.value("admin") is None and not defaults.spoilt("admin"):
        text = '"trace = yes" has no effect without "admin": that is where a trace is asked for'
    else:
        text = "whoever may use the admin endpoint can read all that is carried"
    for draft in drafts:
        if draft.value("trace"):
            findings.warning(text, draft.where("trace"), draft.name)


def is_local(address: HostPort | UnixPath) -> bool:
    """Whether only this machine's own processes can connect there."""
    if isinstance(address, UnixPath):
        return True
    if address.host is None or address.host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(address.host).is_loopback
    except ValueError:
        return False


def admin_options(defaults: Draft) -> AdminOptions | None:
    """The admin endpoint of a configuration without errors."""
    address = defaults.value("admin")
    if address is None:
        return None
    if isinstance(address, HostPort) and address.host is None:
        address = HostPort("localhost", address.port)
    return AdminOptions(address, defaults.value("adminTokenFile"), defaults.value("adminToken"))
