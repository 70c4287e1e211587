"""The endpoint's documents as values. Whoever answers may be anybody: what is not as docs/metrics.md says is
refused, and no text keeps a character that commands a terminal.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from culvert.cli.daemon.errors import AdminError
from culvert.cli.faults import printable

FORMAT = 1
"""Of the documents that this version reads."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where a service leads; None is not known yet."""

    target: str
    addresses: int | None
    usable: int | None
    live: bool


@dataclass(frozen=True, slots=True)
class Certificate:
    """One of a service's own, with the days left."""

    subject: str
    days: int


@dataclass(frozen=True, slots=True)
class Vpn:
    """What there is of a VPN: its peers by their transports, and packets that went no further by reasons."""

    interface: str
    tls: int
    dtls: int
    dropped: int

    @property
    def words(self) -> str:
        """Its interface, how many peers it has, and over what."""
        ways = ((self.tls, "TLS"), (self.dtls, "DTLS"))
        over = [f"{number} over {name}" for number, name in ways if number]
        return f"VPN {self.interface} ({', '.join(over) or 'no peer'})"


@dataclass(frozen=True, slots=True)
class Service:
    """One service; numbers are since the start, but for `open`."""

    name: str
    client: bool
    leads_to: str
    live: bool
    open: int
    total: int
    handshakes: int
    failed: int
    to_tls: int
    to_plain: int
    targets: tuple[Target, ...]
    certificates: tuple[Certificate, ...]
    vpn: Vpn | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """What failed, `count` times so far; the last time at `time` (Unix time)."""

    time: float
    count: int
    service: str
    peer: str
    reason: str


@dataclass(frozen=True, slots=True)
class Status:
    """The daemon. `failures` is None where this daemon does not tell them."""

    version: str
    pid: int | None
    time: float
    since: float
    ready: bool
    obstacles: tuple[str, ...]
    draining: bool
    workers: int
    worker_restarts: int
    reloads: int
    reloads_failed: int
    reload_failed: bool
    services: tuple[Service, ...]
    failures: tuple[Failure, ...] | None

    @property
    def open(self) -> int:
        """Connections of all services."""
        return sum(one.open for one in self.services)

    @property
    def state(self) -> str:
        """In a word or two."""
        if self.draining:
            return "stopping"
        return "ready" if self.ready else "not ready"

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Status:
        """From the document behind /status. Raises AdminError."""
        fields = _Fields(document).checked()
        reloads = fields.fields("reloads")
        failures = None if "failures" not in document else fields.each("failures")
        return cls(
            version=fields.text("version"),
            pid=fields.known_count("pid") if "pid" in document else None,
            time=fields.number("time"),
            since=fields.number("since"),
            ready=fields.flag("ready"),
            obstacles=fields.texts("obstacles"),
            draining=fields.flag("draining"),
            workers=fields.count("workers"),
            worker_restarts=fields.count("worker_restarts"),
            reloads=reloads.count("succeeded"),
            reloads_failed=reloads.count("failed"),
            reload_failed=reloads.flag("last_failed"),
            services=tuple(_service(one) for one in fields.each("services")),
            failures=None if failures is None else tuple(_failure(one) for one in failures),
        )


@dataclass(frozen=True, slots=True)
class Connection:
    """One connection that lives; empty is what is not known, or not yet."""

    worker: int
    ident: str
    service: str
    peer: str
    target: str
    state: str
    seconds: float
    to_tls: int
    to_plain: int
    sni: str
    tls: str
    vpn: str = ""
    """The peer's addresses in a VPN."""

    @property
    def leads_to(self) -> str:
        """Its target, and whose traffic it carries."""
        inside = f"VPN {self.vpn}" if self.vpn else ""
        return ", ".join(filter(None, (self.target, inside))) or "-"


@dataclass(frozen=True, slots=True)
class Connections:
    """Those that were listed; `total` counts also the others."""

    complete: bool
    total: int
    listed: tuple[Connection, ...]

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Connections:
        """From the document behind /connections. Raises AdminError."""
        fields = _Fields(document).checked()
        listed = tuple(_connection(one) for one in fields.each("connections"))
        return cls(fields.flag("complete"), fields.count("total"), listed)


class _Fields:
    """The fields of an object, each of the type that is asked for. Every method raises AdminError."""

    def __init__(self, found: Mapping[str, Any]) -> None:
        self._found = found

    def checked(self) -> _Fields:
        """The same, if it is a document of this format."""
        if self._found.get("format") != FORMAT:
            raise AdminError(
                f"What answers is no culvert, or one of another version: format {FORMAT} is expected"
            )
        return self

    def text(self, name: str) -> str:
        value = self._found.get(name)
        if not isinstance(value, str):
            raise _wrong(name)
        return printable(value)

    def known_text(self, name: str) -> str:
        """Empty where it is null."""
        return "" if self._found.get(name) is None else self.text(name)

    def texts(self, name: str) -> tuple[str, ...]:
        values = self._found.get(name)
        if not isinstance(values, list) or not all(isinstance(one, str) for one in values):
            raise _wrong(name)
        return tuple(printable(one) for one in values)

    def flag(self, name: str) -> bool:
        value = self._found.get(name)
        if not isinstance(value, bool):
            raise _wrong(name)
        return value

    def number(self, name: str) -> float:
        value = self._found.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not -1e18 < value < 1e18:
            raise _wrong(name)
        return float(value)

    def count(self, name: str) -> int:
        return math.floor(self.number(name))

    def known_count(self, name: str) -> int | None:
        return None if self._found.get(name) is None else self.count(name)

    def total(self) -> int:
        """All its fields together, which are counts."""
        return sum(self.count(name) for name in self._found)

    def fields(self, name: str) -> _Fields:
        value = self._found.get(name)
        if not isinstance(value, dict):
            raise _wrong(name)
        return _Fields(value)

    def known_fields(self, name: str) -> _Fields | None:
        return None if self._found.get(name) is None else self.fields(name)

    def each(self, name: str) -> list[_Fields]:
        values = self._found.get(name)
        if not isinstance(values, list) or not all(isinstance(one, dict) for one in values):
            raise _wrong(name)
        return [_Fields(one) for one in values]


def _wrong(name: str) -> AdminError:
    return AdminError(f'What answers is no culvert, or one of another version: "{name}" is not as expected')


def _service(fields: _Fields) -> Service:
    connections, handshakes, carried = (fields.fields(one) for one in ("connections", "handshakes", "bytes"))
    targets = tuple(_target(one) for one in fields.each("targets"))
    vpn = fields.known_fields("vpn")
    network = None if vpn is None else _vpn(vpn)
    ways = [", ".join(one.target for one in targets) or fields.known_text("exec")]
    ways += [] if network is None else [network.words]
    return Service(
        name=fields.text("name"),
        client=fields.flag("client"),
        leads_to=", ".join(filter(None, ways)) or "where clients ask for",
        live=fields.flag("live"),
        open=connections.count("open"),
        total=connections.count("total"),
        handshakes=handshakes.count("total"),
        failed=handshakes.count("failed"),
        to_tls=carried.count("to_tls"),
        to_plain=carried.count("to_plain"),
        targets=targets,
        certificates=tuple(
            Certificate(one.text("subject"), one.count("days")) for one in fields.each("certificates")
        ),
        vpn=network,
    )


def _vpn(fields: _Fields) -> Vpn:
    peers, dropped = fields.fields("peers"), fields.fields("dropped")
    return Vpn(fields.text("interface"), peers.count("tls"), peers.count("dtls"), dropped.total())


def _target(fields: _Fields) -> Target:
    return Target(
        fields.text("target"),
        fields.known_count("addresses"),
        fields.known_count("usable"),
        fields.flag("live"),
    )


def _failure(fields: _Fields) -> Failure:
    return Failure(
        fields.number("time"),
        fields.count("count"),
        fields.text("service"),
        fields.text("peer"),
        fields.text("reason"),
    )


def _connection(fields: _Fields) -> Connection:
    tls, vpn = fields.known_fields("tls"), fields.known_fields("vpn")
    words = () if tls is None else (tls.known_text("version"), tls.known_text("cipher"))
    return Connection(
        worker=fields.count("worker"),
        ident=fields.text("id"),
        service=fields.text("service"),
        peer=fields.text("peer"),
        target=fields.known_text("target"),
        state=fields.text("state"),
        seconds=fields.number("seconds"),
        to_tls=fields.count("to_tls"),
        to_plain=fields.count("to_plain"),
        sni=fields.known_text("sni"),
        tls=" ".join(words),
        vpn="" if vpn is None else " ".join(vpn.texts("addresses")),
    )
