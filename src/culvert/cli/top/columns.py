"""The tables of `culvert top`, column by column: what is shown, and by what it is sorted."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from rich.text import Text

from culvert.cli.daemon.documents import Failure
from culvert.cli.daemon.formats import duration, rate, throughput
from culvert.cli.daemon.showing import certificate, leads_to
from culvert.cli.top.rates import ConnectionRow, ServiceRow

Row = TypeVar("Row")


@dataclass(frozen=True, slots=True)
class Column(Generic[Row]):
    """One column. `key` is what rows are sorted by, where a number goes from the largest down; it is shown
    on terminals of `least` columns or more.
    """

    title: str
    key: Callable[[Row], Any]
    cell: Callable[[Row], Text]
    number: bool = False
    least: int = 0


def _text(title: str, text: Callable[[Row], str], least: int = 0) -> Column[Row]:
    return Column(title, lambda row: text(row).casefold(), lambda row: Text(text(row)), least=least)


def _number(
    title: str, number: Callable[[Row], float | None], show: Callable[[float | None], str], least: int = 0
) -> Column[Row]:
    return Column(
        title,
        lambda row: -1.0 if (value := number(row)) is None else value,
        lambda row: Text(show(number(row))),
        number=True,
        least=least,
    )


def _whole(value: float | None) -> str:
    return "-" if value is None else str(int(value))


SERVICES: Sequence[Column[ServiceRow]] = (
    Column("Service", lambda row: row.service.name.casefold(), lambda row: Text(row.service.name, "bold")),
    _number("Open", lambda row: row.service.open, _whole),
    _number("Total", lambda row: row.service.total, _whole, least=60),
    _number("Handsh./s", lambda row: row.rates.handshakes, rate),
    _number("Failed/s", lambda row: row.rates.failed, rate),
    _number("Failed", lambda row: row.service.failed, _whole, least=90),
    _number("To TLS", lambda row: row.rates.to_tls, throughput),
    _number("To plain", lambda row: row.rates.to_plain, throughput),
    Column(
        "Leads to", lambda row: row.service.leads_to.casefold(), lambda row: leads_to(row.service), least=80
    ),
    Column(
        "Certificate",
        lambda row: min((one.days for one in row.service.certificates), default=10**6),
        lambda row: certificate(row.service),
        least=110,
    ),
)
CONNECTIONS: Sequence[Column[ConnectionRow]] = (
    _text("Connection", lambda row: row.connection.ident),
    _text("Service", lambda row: row.connection.service),
    _text("Peer", lambda row: row.connection.peer),
    _number("Age", lambda row: row.connection.seconds, lambda value: duration(value or 0)),
    _number("To TLS", lambda row: row.rates.to_tls, throughput),
    _number("To plain", lambda row: row.rates.to_plain, throughput),
    _text("Leads to", lambda row: row.connection.leads_to, least=90),
    _text("TLS", lambda row: row.connection.tls or row.connection.state, least=100),
    _text("Name", lambda row: row.connection.sni, least=120),
)
FAILURES: Sequence[Column[Failure]] = (
    Column(
        "Time",
        lambda row: row.time,
        lambda row: Text(time.strftime("%m-%d %H:%M:%S", time.localtime(min(max(row.time, 0), 1e11)))),
        number=True,
    ),
    _number("Times", lambda row: row.count, _whole),
    _text("Service", lambda row: row.service),
    _text("Peer", lambda row: row.peer),
    _text("Reason", lambda row: row.reason),
)
