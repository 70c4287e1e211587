"""What goes together without a `[service]` section, where the client is on standard input and output."""

from __future__ import annotations

from culvert.config.draft import Draft
from culvert.config.findings import Findings
from culvert.config.model import Failover

_OF_A_DAEMON = {
    "healthCheck": "nothing is done but for the one client",
    "pid": "there is no daemon",
    "reloadDrainTimeout": "nothing is reloaded",
    "watch": "nothing is reloaded",
    "workers": "one process serves one connection",
}

_STANDARD_OUTPUT = frozenset({"/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"})


def check_inetd(draft: Draft, findings: Findings, *, has_sink: bool) -> bool:
    """Report what is wrong with the ends of the only service; False if there is no service at all."""
    if draft.mentions("accept"):
        findings.error(
            '"accept" needs a [service] section above it: without one, the client is on standard input',
            draft.where("accept"),
        )
    elif has_sink and draft.mentions("exec"):
        findings.error(
            'without a [service] section, "connect" and "exec" exclude each other', draft.where("exec")
        )
    elif not has_sink and not draft.mentions("exec"):
        path = draft.location.path
        findings.error(
            f'{path}: there is no [service], and neither "connect" nor "exec": nothing to do', None
        )
        return False
    _check_daemon_options(draft, findings)
    return True


def _check_daemon_options(draft: Draft, findings: Findings) -> None:
    if draft.value("output") in _STANDARD_OUTPUT:
        findings.error(
            "without a [service] section, standard output is the connection: the log would get into it",
            draft.where("output"),
            hint='"foreground = yes" logs to standard error',
        )
    for name, reason in _OF_A_DAEMON.items():
        if draft.value(name):
            findings.warning(
                f'"{name}" has no effect without a [service] section: {reason}', draft.where(name)
            )
    if draft.mentions("exec") and draft.value("retry"):
        findings.warning(
            '"retry" has no effect without a [service] section: one client is served',
            draft.where("retry"),
        )
    order: Failover = draft.value("failover")
    if order is not Failover.PRIO and not draft.value("delay"):
        findings.warning(
            f'"failover = {order.value}" has no effect without a [service] section: '
            "each process begins with the first target",
            draft.where("failover"),
        )
    for entry in draft.entries("socket"):
        if entry.value.target == "a":
            findings.warning(
                f'"a:{entry.value.name}" has no effect without a [service] section: nothing is listened on',
                entry.location,
            )
