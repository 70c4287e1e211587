"""What the connections of one service in one worker have in common."""

from __future__ import annotations

from dataclasses import dataclass

from culvert.access import AccessControl
from culvert.admission import Gate
from culvert.config.model import Service
from culvert.failures import Failures
from culvert.log import Channel
from culvert.metrics import Counters
from culvert.negotiate.script import Protocol
from culvert.readiness import Readiness
from culvert.refusals import Refusals, RefusedError
from culvert.requested import RequestedTargets
from culvert.revocation import Revocation
from culvert.spawn import Programs
from culvert.stream import End
from culvert.targets import Connector
from culvert.tls.context import TlsContext
from culvert.tls.engine import Scratch
from culvert.trace import Tracing
from culvert.vpn.tunnel import Tunnel


@dataclass(frozen=True, slots=True)
class Shared:
    """What the connections of one service in one worker have in common."""

    config: Service
    context: TlsContext
    revocation: Revocation
    connector: Connector
    redirect: Connector | None
    """To where clients go whose certificate fails."""
    requested: RequestedTargets
    """To where clients go who name their target themselves."""
    protocol: Protocol
    programs: Programs
    scratch: Scratch
    readiness: Readiness
    log: Channel
    counters: Counters
    access: AccessControl
    refusals: Refusals
    gate: Gate | None
    """What stands before the service; None where nothing limits it."""
    tracing: Tracing
    tunnel: Tunnel | None
    """The VPN that the service is; None where it is none."""
    hosts: list[Host]
    """The services that take over clients of this one by the name that they ask for."""
    failures: Failures | None
    """Where failures are shown, if anybody is to see them."""

    def failed(self, peer: str, end: End, reason: str) -> None:
        """Show that a connection of this peer has failed, and why."""
        if self.failures is not None:
            self.failures.record(self.config.name, peer, end.value, reason)

    def refused(self, peer: str, error: RefusedError, log: Channel | None = None) -> None:
        """Count that a connection of this peer was refused, and tell it (by `log` if given) now and then."""
        if self.refusals.refuse(error.key, error.line(self.config.name, peer), log):
            self.failed(peer, End.REFUSED, str(error))

    def host(self, name: str) -> Shared | None:
        """The service for this server name: by the name itself, else by the first pattern that covers it."""
        exact = (host.shared for host in self.hosts if host.pattern == name)
        covering = (host.shared for host in self.hosts if host.covers(name))
        return next(exact, None) or next(covering, None)


@dataclass(frozen=True, slots=True)
class Host:
    """A service that is chosen by a server name: `pattern` is as in `ServerName`."""

    pattern: str
    shared: Shared

    def covers(self, name: str) -> bool:
        return self.pattern.startswith("*.") and name.endswith(self.pattern[1:])
