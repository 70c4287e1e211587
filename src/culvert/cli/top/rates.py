"""How fast things go, from two looks at counters that only grow."""

from __future__ import annotations

from dataclasses import dataclass

from culvert.cli.daemon.documents import Connection, Connections, Service, Status


@dataclass(frozen=True, slots=True)
class Sample:
    """What a daemon told; `at` is of this machine's monotonic clock."""

    at: float
    status: Status
    connections: Connections


@dataclass(frozen=True, slots=True)
class Rates:
    """A second's worth; None is not known."""

    accepted: float | None = None
    handshakes: float | None = None
    failed: float | None = None
    to_tls: float | None = None
    to_plain: float | None = None

    @property
    def carried(self) -> float:
        """Bytes both ways; what is not known counts nothing."""
        return (self.to_tls or 0) + (self.to_plain or 0)


UNKNOWN = Rates()


@dataclass(frozen=True, slots=True)
class ServiceRow:
    """A service, and how fast it goes."""

    service: Service
    rates: Rates = UNKNOWN


@dataclass(frozen=True, slots=True)
class ConnectionRow:
    """A connection, and how fast it goes."""

    connection: Connection
    rates: Rates = UNKNOWN

    @property
    def key(self) -> tuple[int, str]:
        """What makes it the same as before: idents may be anything that `logId` says."""
        return self.connection.worker, self.connection.ident


def service_rows(before: Sample | None, now: Sample) -> list[ServiceRow]:
    """The services of `now`."""
    earlier: dict[str, Service] = {}
    if before is not None and before.status.since == now.status.since:  # the same run of the daemon
        earlier = {one.name: one for one in before.status.services}
    seconds = 0.0 if before is None else now.at - before.at
    return [
        ServiceRow(one, _service_rates(earlier.get(one.name), one, seconds)) for one in now.status.services
    ]


def total(rows: list[ServiceRow]) -> Rates:
    """Of all services together; unknown where that of any one is."""
    found = [row.rates for row in rows]
    return Rates(
        _sum([one.accepted for one in found]),
        _sum([one.handshakes for one in found]),
        _sum([one.failed for one in found]),
        _sum([one.to_tls for one in found]),
        _sum([one.to_plain for one in found]),
    )


def connection_rows(before: Sample | None, now: Sample) -> list[ConnectionRow]:
    """The connections of `now`."""
    rows = [ConnectionRow(one) for one in now.connections.listed]
    if before is None:
        return rows
    earlier = {(one.worker, one.ident): one for one in before.connections.listed}
    seconds = now.at - before.at
    return [
        ConnectionRow(row.connection, _connection_rates(earlier.get(row.key), row.connection, seconds))
        for row in rows
    ]


def _service_rates(before: Service | None, now: Service, seconds: float) -> Rates:
    if before is None:
        return UNKNOWN
    return Rates(
        _rate(before.total, now.total, seconds),
        _rate(before.handshakes, now.handshakes, seconds),
        _rate(before.failed, now.failed, seconds),
        _rate(before.to_tls, now.to_tls, seconds),
        _rate(before.to_plain, now.to_plain, seconds),
    )


def _connection_rates(before: Connection | None, now: Connection, seconds: float) -> Rates:
    if before is None or before.seconds > now.seconds:  # another one that is called the same
        return UNKNOWN
    return Rates(
        to_tls=_rate(before.to_tls, now.to_tls, seconds),
        to_plain=_rate(before.to_plain, now.to_plain, seconds),
    )


def _rate(before: int, now: int, seconds: float) -> float | None:
    return (now - before) / seconds if seconds > 0 and now >= before else None


def _sum(values: list[float | None]) -> float | None:
    known = [one for one in values if one is not None]
    return sum(known) if len(known) == len(values) else None
