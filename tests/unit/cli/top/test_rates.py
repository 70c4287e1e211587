"""How fast things go, from two looks."""

from __future__ import annotations

from typing import Any

import pytest

from culvert.cli.daemon.documents import Connections, Status
from culvert.cli.top.rates import UNKNOWN, Sample, connection_rows, service_rows, total

from ..daemon.samples import connection_document, connections_document, service_document, status_document


def sample(at: float, services: list[dict[str, Any]], *connections: dict[str, Any], since: int = 5) -> Sample:
    """A look at these."""
    status = Status.of(status_document(services=services, since=since))
    return Sample(at, status, Connections.of(connections_document(*connections)))


def carrying(to_tls: int, to_plain: int = 0, name: str = "mail") -> dict[str, Any]:
    """A service that has carried so much."""
    return service_document(name, bytes={"to_tls": to_tls, "to_plain": to_plain})


def test_a_rate_is_growth_by_the_monotonic_clock() -> None:
    rows = service_rows(sample(10.0, [carrying(1000, 10)]), sample(12.0, [carrying(5000, 10)]))
    assert (rows[0].rates.to_tls, rows[0].rates.to_plain) == (2000.0, 0.0)
    assert rows[0].rates.carried == 2000.0


def test_one_look_gives_no_rate() -> None:
    assert service_rows(None, sample(1.0, [carrying(1)]))[0].rates == UNKNOWN


@pytest.mark.parametrize("name", ["mail", "other"])
def test_what_was_not_there_before_has_no_rate(name: str) -> None:
    before = sample(1.0, [carrying(1, name="another" if name == "mail" else "mail")])
    assert service_rows(before, sample(2.0, [carrying(5, name=name)]))[0].rates == UNKNOWN


def test_a_daemon_that_was_restarted_has_no_rate() -> None:
    before, now = sample(1.0, [carrying(1)]), sample(2.0, [carrying(5)], since=6)
    assert service_rows(before, now)[0].rates == UNKNOWN


def test_a_count_that_shrank_has_no_rate() -> None:
    rates = service_rows(sample(1.0, [carrying(9)]), sample(2.0, [carrying(5)]))[0].rates
    assert (rates.to_tls, rates.to_plain) == (None, 0.0)


def test_two_looks_at_the_same_time_give_no_rate() -> None:
    assert service_rows(sample(1.0, [carrying(1)]), sample(1.0, [carrying(5)]))[0].rates.to_tls is None


def test_a_total_is_known_where_all_is() -> None:
    before = sample(1.0, [carrying(0), carrying(0, name="other")])
    now = sample(2.0, [carrying(3), carrying(4, name="other")])
    assert total(service_rows(before, now)).to_tls == 7.0
    assert total(service_rows(None, now)).to_tls is None
    assert total([]).to_tls == 0


def test_connections_have_rates_of_their_own() -> None:
    old = connection_document("1", to_tls=100)
    before = sample(1.0, [], old)
    now = sample(3.0, [], {**old, "to_tls": 500, "seconds": 14.5}, connection_document("2"))
    rates = [row.rates.to_tls for row in connection_rows(before, now)]
    assert rates == [200.0, None]


def test_a_younger_connection_of_the_same_name_is_another() -> None:
    before = sample(1.0, [], connection_document("1", seconds=50))
    now = sample(2.0, [], connection_document("1", seconds=0.5, to_tls=900))
    assert connection_rows(before, now)[0].rates == UNKNOWN
