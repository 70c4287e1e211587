"""What the endpoint knows: the services of its generation, and what all processes have counted."""

from __future__ import annotations

import datetime
import time
from collections.abc import Mapping
from dataclasses import dataclass

from culvert.failures import Failure
from culvert.ledger import Ledger
from culvert.log import clean
from culvert.metrics import LOST
from culvert.service import Prepared
from culvert.tally import Cell, Reading, target_key
from culvert.tls.lifetime import Lifetime
from culvert.version import __version__
from culvert.vpn.tally import DROPPED, MET, REPLACED, Carrier

DAEMON = ""
"""The name of the daemon's own tally: no service can have it."""

STATUS_VERSION = 1
"""Of the documents: it grows when something in them changes its meaning or goes away."""


@dataclass(frozen=True, slots=True)
class TargetView:
    """One target: how many addresses it has, and how many are not known to fail; None is not known yet."""

    target: str
    addresses: int | None
    usable: int | None

    @property
    def live(self) -> bool:
        """Whether it may be that it answers."""
        return self.usable is None or self.usable > 0


@dataclass(frozen=True, slots=True)
class ServiceView:
    """One service at this moment. `live`: it leads somewhere that may answer."""

    name: str
    prepared: Prepared
    reading: Reading
    targets: tuple[TargetView, ...]

    @property
    def live(self) -> bool:
        return not self.targets or any(target.live for target in self.targets)

    def number(self, cell: Cell) -> int:
        """A number of all processes together."""
        return self.reading.totals[cell]

    @property
    def vpn_peers(self) -> dict[str, int]:
        """How many peers a VPN has at present over each transport."""
        return {
            Carrier.TLS.value: self.number(Cell.VPN_PEERS_TLS),
            Carrier.DTLS.value: self.number(Cell.VPN_PEERS_DTLS),
        }


@dataclass(frozen=True, slots=True)
class View:
    """The daemon at this moment: its processes that serve, and how many of them take new connections."""

    daemon: Reading
    processes: int
    accepting: int
    services: tuple[ServiceView, ...]

    @property
    def draining(self) -> bool:
        return bool(self.daemon.totals[Cell.STOPPING])

    def obstacles(self, service: str | None = None) -> list[str]:
        """Why clients should not be sent here, a few words each; `service` asks for that one alone."""
        found = ["the daemon is stopping"] if self.draining else []
        if not self.accepting:
            found.append("no worker serves")
        asked = [one for one in self.services if service in (None, one.name)]
        return found + [f"service [{one.name}] has no live target" for one in asked if not one.live]


class Overview:
    """Looks at the services `prepared` by what `ledger` has of them; `pid` is the daemon's own."""

    def __init__(self, prepared: tuple[Prepared, ...], ledger: Ledger, pid: int) -> None:
        self._prepared = prepared
        self._ledger = ledger
        self._pid = pid

    @property
    def names(self) -> frozenset[str]:
        """Of the services."""
        return frozenset(one.config.name for one in self._prepared)

    def may_trace(self, service: str | None) -> bool:
        """Whether the configuration allows a trace of this service; of any, where it is None."""
        return any(one.config.trace for one in self._prepared if service in (None, one.config.name))

    def look(self) -> View:
        """The daemon at this moment."""
        readings = self._ledger.read()
        return View(
            readings[DAEMON],
            self._ledger.processes(),
            self._ledger.accepting(),
            tuple(_service(one, readings[one.config.name]) for one in self._prepared),
        )

    def status(self) -> dict[str, object]:
        """The document behind /status, as docs/metrics.md describes it."""
        view = self.look()
        totals = view.daemon.totals
        return {
            "format": STATUS_VERSION,
            "version": __version__,
            "pid": self._pid,
            "time": time.time(),
            "since": totals[Cell.SINCE],
            "ready": not view.obstacles(),
            "obstacles": view.obstacles(),
            "draining": view.draining,
            "workers": view.processes,
            "workers_accepting": view.accepting,
            "worker_restarts": totals[Cell.RESTARTS],
            "log_lines_lost": view.daemon.family(LOST),
            "reloads": {
                "succeeded": totals[Cell.RELOADS],
                "failed": totals[Cell.RELOADS_FAILED],
                "last_failed": bool(totals[Cell.RELOAD_FAILED]),
                "last_success": totals[Cell.RELOADED_AT] or None,
            },
            "services": [_service_document(one) for one in view.services],
            "failures": [_failure_document(one) for one in self._ledger.failures().read()],
        }


def certificates(prepared: Prepared) -> list[Lifetime]:
    """What is left of a service's certificate, and of those between it and a root."""
    credentials = prepared.context.credentials
    return [
        Lifetime.of(one, datetime.datetime.now(datetime.UTC))
        for one in (credentials.chain if credentials is not None else ())
    ]


def _service(prepared: Prepared, reading: Reading) -> ServiceView:
    targets = []
    for index, address in enumerate(dict.fromkeys(prepared.targets.addresses)):
        found = reading.target(index, target_key(str(address)))
        known = (None, None) if found is None else (found.addresses, found.usable)
        targets.append(TargetView(str(address), *known))
    return ServiceView(prepared.config.name, prepared, reading, tuple(targets))


def _service_document(one: ServiceView) -> dict[str, object]:
    reading, config = one.reading, one.prepared.config
    return {
        "name": one.name,
        "client": config.client,
        "accept": None if config.accept is None else str(config.accept),
        "exec": config.exec,
        "protocol": None if config.protocol is None else config.protocol.name,
        "live": one.live,
        "connections": {"open": one.number(Cell.OPEN), "total": one.number(Cell.ACCEPTED)},
        "ended": reading.family("ended"),
        "refused": reading.family("refused"),
        "handshakes": {
            "total": one.number(Cell.HANDSHAKES),
            "resumed": one.number(Cell.RESUMED),
            "failed": one.number(Cell.HANDSHAKES_FAILED),
            "failures": reading.family("failure"),
            "rejected": reading.family("rejected"),
            "ocsp": reading.family("ocsp"),
            "versions": reading.family("version"),
            "ciphers": reading.family("cipher"),
            "groups": reading.family("group"),
            "time": _histogram(reading, Cell.HANDSHAKE_TIME),
        },
        "bytes": {"to_tls": one.number(Cell.SENT_TO_TLS), "to_plain": one.number(Cell.SENT_TO_PLAIN)},
        "truncated": one.number(Cell.TRUNCATED),
        "redirected": one.number(Cell.REDIRECTED),
        "vpn": None if config.vpn is None else _vpn_document(one, config.vpn.device),
        "connects": {"failures": reading.family("unreached"), "time": _histogram(reading, Cell.CONNECT_TIME)},
        "targets": [
            {"target": t.target, "addresses": t.addresses, "usable": t.usable, "live": t.live}
            for t in one.targets
        ],
        "certificates": [
            {"subject": c.subject, "expires": int(c.expires.timestamp()), "days": c.days}
            for c in certificates(one.prepared)
        ],
    }


def _vpn_document(one: ServiceView, device: str) -> dict[str, object]:
    return {
        "interface": device,
        "peers": one.vpn_peers,
        "met": one.reading.family(MET),
        "refused": one.number(Cell.VPN_REFUSED),
        "replaced": one.reading.family(REPLACED),
        "moves": one.number(Cell.VPN_MOVES),
        "fallbacks": one.number(Cell.VPN_FALLBACKS),
        "packets": {
            "to_tls": one.number(Cell.VPN_PACKETS_TO_TLS),
            "to_plain": one.number(Cell.VPN_PACKETS_TO_PLAIN),
        },
        "dropped": one.reading.family(DROPPED),
        "stray_datagrams": one.number(Cell.VPN_STRAYS),
    }


def _failure_document(one: Failure) -> dict[str, object]:
    return {
        "time": one.time,
        "count": one.count,
        "service": one.service,
        "peer": clean(one.peer).decode(),
        "end": one.kind,
        "reason": clean(one.reason).decode(),
    }


def _histogram(reading: Reading, cell: Cell) -> Mapping[str, object]:
    histogram = reading.histogram(cell)
    return {"count": sum(histogram.counts), "seconds": histogram.seconds}
