"""What the commands print of a daemon: tables for people, on a terminal or not."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from culvert.cli.daemon.documents import Connection, Connections, Service, Status
from culvert.cli.daemon.formats import duration, size

_PIPE_WIDTH = 200
"""Columns where there is no terminal: nothing is folded for a program."""

WARNING_DAYS = 14
"""A certificate that expires within so many days is marked."""

STATE_STYLES = {"ready": "bold green", "not ready": "bold red", "stopping": "bold yellow"}


def show_status(status: Status, console: Console) -> None:
    """The daemon in a few lines, and a table of its services."""
    _widen(console)
    head = Text(f"culvert {status.version}")
    if status.pid is not None:
        head.append(f", pid {status.pid}")
    head.append(": ").append(status.state, STATE_STYLES[status.state])
    console.print(head, soft_wrap=True)
    for obstacle in status.obstacles:
        console.print(Text(f"  {obstacle}", "red"), soft_wrap=True)
    console.print(Text(f"  {summary(status)}"), soft_wrap=True)
    table = _table(("Service", "Open", "Total", "Handshakes", "Failed", "To TLS", "To plain"), 1)
    table.add_column("Leads to", overflow="fold")
    table.add_column("Certificate", no_wrap=True)
    for one in status.services:
        table.add_row(*_service_cells(one))
    console.print()
    console.print(table)


def summary(status: Status) -> str:
    """How long it has run, its workers and its reloads."""
    restarts = f" ({status.worker_restarts} replaced)" if status.worker_restarts else ""
    failed = f", {status.reloads_failed} failed" if status.reloads_failed else ""
    last = " (the last one)" if status.reload_failed else ""
    return (
        f"up {duration(status.time - status.since)}, {status.workers} worker(s){restarts}, "
        f"{status.reloads} reload(s){failed}{last}"
    )


def _service_cells(one: Service) -> tuple[Text, ...]:
    numbers = (str(one.open), str(one.total), str(one.handshakes), str(one.failed))
    sizes = (size(one.to_tls), size(one.to_plain))
    return (
        Text(one.name, "bold"),
        *map(Text, (*numbers, *sizes)),
        leads_to(one),
        certificate(one),
    )


def leads_to(one: Service) -> Text:
    """The targets, each that is known to fail marked so."""
    if not one.targets:
        return Text(one.leads_to)
    found = Text()
    for index, target in enumerate(one.targets):
        found.append(", " if index else "")
        found.append(target.target, "" if target.live else "red")
        found.append("" if target.live else " (down)", "red")
    return found if one.vpn is None else found.append(f", {one.vpn.words}")


def certificate(one: Service) -> Text:
    """What is left of the first of its certificates to expire."""
    if not one.certificates:
        return Text("")
    days = min(found.days for found in one.certificates)
    return Text("expired" if days < 0 else f"{days} days", "bold red" if days < WARNING_DAYS else "")


def show_connections(found: Connections, console: Console) -> None:
    """A line for each connection."""
    _widen(console)
    table = _table(("Connection", "Service", "Peer", "Leads to", "Age", "To TLS", "To plain", "TLS"), 4, 3)
    for one in found.listed:
        table.add_row(*connection_cells(one))
    if found.listed:
        console.print(table)
    left_out = found.total - len(found.listed)
    words = f"{found.total} connection(s)" + (f", {left_out} of them not listed" if left_out > 0 else "")
    if not found.complete:
        words += "; a worker did not answer, so some may be missing"
    console.print(Text(words), soft_wrap=True)


def connection_cells(one: Connection) -> tuple[Text, ...]:
    """Its cells: ident, service, peer, target, age, bytes each way, TLS."""
    name = f" ({one.sni})" if one.sni else ""
    words = (one.ident, one.service, one.peer, one.leads_to, duration(one.seconds))
    tls = one.tls or one.state
    return tuple(map(Text, (*words, size(one.to_tls), size(one.to_plain), f"{tls}{name}")))


def _table(headings: tuple[str, ...], first_number: int, numbers: int = 100) -> Table:
    """A table whose columns from that one on hold numbers, `numbers` of them."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for index, heading in enumerate(headings):
        right = first_number <= index < first_number + numbers
        table.add_column(heading, justify="right" if right else "left", overflow="fold")
    return table


def _widen(console: Console) -> None:
    if not console.is_terminal:
        console.width = max(console.width, _PIPE_WIDTH)
