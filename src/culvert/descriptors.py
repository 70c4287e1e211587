"""How many descriptors a process may have open, how many a configuration needs, and what programs may have.

The soft limit that a process starts with is for programs that use select(2), which cannot name descriptors
above 1023; Culvert does not, so it raises the limit to the hard one. A program that is run gets back the
one that Culvert was started with.
"""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

from culvert.config.model import GlobalOptions, Service
from culvert.errors import Diagnostic, Location, Severity

PER_CONNECTION = 2
"""The client's socket, and the target's or the program's."""

PER_PROGRAM = 1
"""By which the end of a program is noticed."""

OWN = 64
"""What a process has open besides: the event loop, log files, its channel to the supervisor, CRL files being
read, look-ups, the pipes of a program that is being started."""

PER_SERVICE = 4
"""Listening sockets, of IPv4 and IPv6, those of the next generation too while a reload is under way."""


@dataclass(frozen=True, slots=True)
class Demand:
    """What the busiest process of a configuration may need: all connections may come to one worker.

    `most` is how many there can be at a time; None where nothing limits them.
    """

    most: int | None
    each: int
    besides: int
    location: Location | None

    @classmethod
    def of(cls, options: GlobalOptions, services: Sequence[Service]) -> Self:
        """The demand of these services, under the limits of the daemon and their own."""
        accepting = [service for service in services if service.accept is not None]
        bounds = [(options.limits.connections, options.locations.get("maxConnections"))]
        if accepting:
            own = [service.limits.connections for service in accepting]
            together = sum(filter(None, own)) if None not in own else None
            bounds.append((together, accepting[0].where("maxConnections")))
        known = [(most, where) for most, where in bounds if most is not None]
        most, where = min(known, key=lambda bound: bound[0], default=(None, None))
        programs = any(service.exec is not None for service in services)
        return cls(
            most,
            PER_CONNECTION + (PER_PROGRAM if programs else 0),
            OWN + PER_SERVICE * len(services),
            where,
        )

    def shortage(self, limit: int) -> Diagnostic | None:
        """The warning that a limit on descriptors calls for, if it does."""
        if self.most is None or limit == resource.RLIM_INFINITY:
            return None
        needed = self.each * self.most + self.besides
        if needed <= limit:
            return None
        return Diagnostic(
            Severity.WARNING,
            f'"maxConnections" lets in {self.most} clients, for which a process may need {needed} '
            f"descriptors ({self.each} for each, and {self.besides} besides), and the limit is {limit}",
            self.location,
            hint='raise it by LimitNOFILE= of a systemd unit or by "ulimit -Hn", or lower "maxConnections"',
        )

    def room(self, limit: int) -> int:
        """How many connections a process has descriptors for."""
        return max(0, limit - self.besides) // self.each


class DescriptorLimit:
    """RLIMIT_NOFILE of this process, raised once.

    `first` is the soft limit that it was started with, `now` the one in force.
    """

    def __init__(self) -> None:
        self.first, self._hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        # Refused where the hard limit is beyond what the kernel lets a process have (fs.nr_open).
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (self._hard, self._hard))
        self.now = resource.getrlimit(resource.RLIMIT_NOFILE)[0]

    def lower(self) -> None:
        """Have this process, which is about to become a program, have the limit of the start."""
        resource.setrlimit(resource.RLIMIT_NOFILE, (self.first, self._hard))

    @contextlib.contextmanager
    def lowered(self) -> Iterator[None]:
        """Have what is started meanwhile have the limit of the start. Descriptors above it stay open."""
        self.lower()
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (self.now, self._hard))
