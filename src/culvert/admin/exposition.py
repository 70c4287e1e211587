"""The metrics in the formats of Prometheus, by prometheus_client.

Every label is a name of the configuration, or a word of Culvert's or OpenSSL's own: none is a peer's.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from culvert.admin.overview import Overview, ServiceView, View, certificates
from culvert.errors import Unreached
from culvert.log import KINDS
from culvert.metrics import LOST
from culvert.stream import End
from culvert.tally import Cell
from culvert.tls.failure import Cause
from culvert.version import __version__
from culvert.vpn.tally import DROPPED, MET, REPLACED, Carrier, Drop, Replacement

Samples = list[tuple[tuple[str, ...], int]]
"""The values of the labels behind the service, and the number."""

_NUMBERS = (
    ("culvert_connections", "Connections accepted", Cell.ACCEPTED),
    ("culvert_handshakes", "TLS handshakes that were completed", Cell.HANDSHAKES),
    ("culvert_handshakes_resumed", "Those of them that resumed a session", Cell.RESUMED),
    ("culvert_truncated", "Connections whose TLS side ended without close_notify", Cell.TRUNCATED),
    ("culvert_redirected", "Clients sent elsewhere because their certificate failed", Cell.REDIRECTED),
)
_FAMILIES = (
    ("culvert_connections_ended", "Connections by how they ended", "end", "ended"),
    ("culvert_connections_refused", "Connections refused before a handshake", "reason", "refused"),
    ("culvert_handshake_failures", "TLS handshakes that failed", "reason", "failure"),
    ("culvert_certificates_rejected", "Peers' certificates and keys that failed", "reason", "rejected"),
    ("culvert_ocsp_checks", "What OCSP said of peers' certificates", "result", "ocsp"),
    ("culvert_connect_failures", "Connections for which no target was reached", "reason", "unreached"),
    ("culvert_tls_versions", "Handshakes by protocol version", "version", "version"),
    ("culvert_tls_ciphers", "Handshakes by cipher suite", "cipher", "cipher"),
    ("culvert_tls_groups", "Handshakes by key exchange group", "group", "group"),
)
_VPN_NUMBERS = (
    ("culvert_vpn_peers_refused", "Proven peers of a VPN that did not fit", Cell.VPN_REFUSED),
    ("culvert_vpn_fallbacks", "Attempts of a VPN over UDP that did not get through", Cell.VPN_FALLBACKS),
    ("culvert_vpn_peer_moves", "Peers of a VPN that came from another address", Cell.VPN_MOVES),
    ("culvert_vpn_stray_datagrams", "Datagrams that were no peer's", Cell.VPN_STRAYS),
)
_VPN_FAMILIES = (
    ("culvert_vpn_peers_met", "Peers of a VPN that were met", "transport", MET),
    ("culvert_vpn_links_replaced", "Links of a VPN that a newer one took the place of", "by", REPLACED),
    ("culvert_vpn_packets_dropped", "Packets of a VPN that went no further", "reason", DROPPED),
)
_KNOWN = {
    "ended": tuple(end.value for end in End),
    "failure": tuple(cause.value for cause in Cause),
    "unreached": tuple(cause.name.lower() for cause in Unreached),
    MET: tuple(carrier.value for carrier in Carrier),
    REPLACED: tuple(kind.value for kind in Replacement),
    DROPPED: tuple(drop.value for drop in Drop),
}
"""Labels that are shown before they are counted: a rate sees no step from nothing to one."""

_HISTOGRAMS = (
    ("culvert_handshake_seconds", "How long TLS handshakes took", Cell.HANDSHAKE_TIME),
    ("culvert_connect_seconds", "How long it took to connect to a target", Cell.CONNECT_TIME),
)


class Exposition(Collector):
    """Gives the metrics of the daemon at the moment that it is asked for them."""

    def __init__(self, overview: Overview) -> None:
        self._overview = overview
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def text(self, accept: str) -> tuple[bytes, str]:
        """The metrics and their media type, in the format that an Accept header asks for."""
        try:
            encoder, content_type = choose_encoder(accept)
        except (TypeError, ValueError):  # a header that the library cannot read
            encoder, content_type = choose_encoder("")
        return encoder(self._registry), content_type

    def describe(self) -> Iterable[Metric]:
        """Nothing: it would be collected at once, to find names that cannot clash."""
        return ()

    def collect(self) -> Iterator[Metric]:
        view = self._overview.look()
        yield from _daemon(view)
        for name, text, cell in _NUMBERS:
            yield _counter(name, text, view, functools.partial(_number, cell))
        yield _gauge("culvert_connections_open", "Connections that are open", view, Cell.OPEN)
        for name, text, label, family in _FAMILIES:
            yield _counter(name, text, view, functools.partial(_family, family), label)
        yield _counter(
            "culvert_sent_bytes",
            "Bytes of plaintext handed on, by the side that they were sent to",
            view,
            _sent,
            "side",
        )
        for name, text, cell in _HISTOGRAMS:
            yield _histogram(name, text, view, cell)
        yield from _vpns(view)
        yield from _targets(view)
        yield _expiry(view)


def _daemon(view: View) -> Iterator[Metric]:
    totals = view.daemon.totals
    info = GaugeMetricFamily("culvert_build_info", "The version, always 1", labels=["version"])
    info.add_metric([__version__], 1)
    yield info
    for name, text, value in (
        ("culvert_start_time_seconds", "When the daemon began to count, in Unix time", totals[Cell.SINCE]),
        ("culvert_ready", "Whether clients should be sent here", not view.obstacles()),
        ("culvert_draining", "Whether the daemon is stopping", view.draining),
        ("culvert_workers", "Processes that serve, those that only finish included", view.processes),
        ("culvert_workers_accepting", "Those of them that take new connections", view.accepting),
        ("culvert_last_reload_successful", "Whether the last reload worked", not totals[Cell.RELOAD_FAILED]),
        ("culvert_last_reload_success_timestamp_seconds", "When that was", totals[Cell.RELOADED_AT]),
    ):
        yield GaugeMetricFamily(name, text, value=float(value))
    reloads = CounterMetricFamily("culvert_reloads", "Reloads by what came of them", labels=["result"])
    reloads.add_metric(["success"], totals[Cell.RELOADS])
    reloads.add_metric(["failure"], totals[Cell.RELOADS_FAILED])
    yield reloads
    lost = CounterMetricFamily("culvert_log_lines_lost", "Log lines that nobody took", labels=["log"])
    for kind in KINDS:
        lost.add_metric([kind], view.daemon.family(LOST).get(kind, 0))
    yield lost
    yield CounterMetricFamily(
        "culvert_worker_restarts", "Workers that died and were replaced", value=totals[Cell.RESTARTS]
    )


def _number(cell: Cell, one: ServiceView) -> Samples:
    return [((), one.number(cell))]


def _family(family: str, one: ServiceView) -> Samples:
    counted = dict.fromkeys(_KNOWN.get(family, ()), 0) | one.reading.family(family)
    return [((word,), number) for word, number in counted.items()]


def _sent(one: ServiceView) -> Samples:
    return [(("tls",), one.number(Cell.SENT_TO_TLS)), (("plain",), one.number(Cell.SENT_TO_PLAIN))]


def _counter(
    name: str, text: str, view: View, samples: Callable[[ServiceView], Samples], *labels: str
) -> Metric:
    metric = CounterMetricFamily(name, text, labels=["service", *labels])
    for one in view.services:
        for words, number in samples(one):
            metric.add_metric([one.name, *words], number)
    return metric


def _gauge(name: str, text: str, view: View, cell: Cell) -> Metric:
    metric = GaugeMetricFamily(name, text, labels=["service"])
    for one in view.services:
        metric.add_metric([one.name], one.number(cell))
    return metric


def _histogram(name: str, text: str, view: View, cell: Cell) -> Metric:
    metric = HistogramMetricFamily(name, text, labels=["service"])
    for one in view.services:
        found = one.reading.histogram(cell)
        buckets = [
            ("+Inf" if bound == float("inf") else str(bound), count) for bound, count in found.buckets()
        ]
        metric.add_metric([one.name], buckets, found.seconds)
    return metric


def _vpns(view: View) -> Iterator[Metric]:
    """What only VPNs count."""
    found = tuple(one for one in view.services if one.prepared.config.vpn is not None)
    view = dataclasses.replace(view, services=found)
    peers = GaugeMetricFamily("culvert_vpn_peers", "Peers that are there", labels=["service", "transport"])
    for one in found:
        for carrier, number in one.vpn_peers.items():
            peers.add_metric([one.name, carrier], number)
    yield peers
    yield _counter("culvert_vpn_packets", "Packets of a VPN, by where they went", view, _packets, "side")
    for name, text, label, family in _VPN_FAMILIES:
        yield _counter(name, text, view, functools.partial(_family, family), label)
    for name, text, cell in _VPN_NUMBERS:
        yield _counter(name, text, view, functools.partial(_number, cell))


def _packets(one: ServiceView) -> Samples:
    to_tls, to_plain = one.number(Cell.VPN_PACKETS_TO_TLS), one.number(Cell.VPN_PACKETS_TO_PLAIN)
    return [(("tls",), to_tls), (("plain",), to_plain)]


def _targets(view: View) -> Iterator[Metric]:
    addresses = GaugeMetricFamily(
        "culvert_target_addresses", "Addresses that a target has", labels=["service", "target"]
    )
    usable = GaugeMetricFamily(
        "culvert_target_addresses_usable",
        "Those of them that are not known to fail",
        labels=["service", "target"],
    )
    for one in view.services:
        for target in one.targets:
            if target.addresses is not None and target.usable is not None:
                addresses.add_metric([one.name, target.target], target.addresses)
                usable.add_metric([one.name, target.target], target.usable)
    yield addresses
    yield usable


def _expiry(view: View) -> Metric:
    metric = GaugeMetricFamily(
        "culvert_certificate_expiry_timestamp_seconds",
        "When the first certificate of a service's chain expires, in Unix time",
        labels=["service"],
    )
    for one in view.services:
        lifetimes = certificates(one.prepared)
        if lifetimes:
            metric.add_metric([one.name], min(lifetime.expires.timestamp() for lifetime in lifetimes))
    return metric
