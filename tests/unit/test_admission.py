"""The gate: what a place takes of each limit and when it gives it back, however it ends."""

from __future__ import annotations

from typing import Any

import pytest

from culvert.admission import Gate, NoRoomError, Place, Scope, network
from culvert.config.model import AcceptRate, ConnectionLimits
from culvert.ledger import Ledger

ONE, OTHER = ("192.0.2.1", 1000), ("192.0.2.2", 1000)


class Doors:
    """Gates over one ledger."""

    def __init__(self) -> None:
        self.ledger = Ledger()
        self.ledger.claim()

    def scope(self, name: str = "daemon", **limits: Any) -> Scope:
        return Scope(name, ConnectionLimits(**limits), self.ledger)

    def gate(self, **limits: Any) -> Gate:
        return Gate(self.scope("daemon", **limits))


@pytest.fixture
def doors() -> Doors:
    return Doors()


def refused(gate: Gate, address: tuple[str, int] | None = ONE) -> str:
    """Which limit refuses the next one."""
    with pytest.raises(NoRoomError) as raised:
        gate.admit(address)
    return raised.value.key


def test_connections_are_held_to_their_end(doors: Doors) -> None:
    gate = doors.gate(connections=2)
    first = gate.admit(ONE)
    gate.admit(OTHER)
    first.secured()
    assert refused(gate) == "maxConnections"
    first.release()
    gate.admit(ONE)


def test_the_line_is_the_references(doors: Doors) -> None:
    gate = doors.gate(connections=1)
    gate.admit(None)
    with pytest.raises(NoRoomError, match=r"^Connection rejected: too many clients \(>=1\)$"):
        gate.admit(None)


def test_handshakes_are_held_to_their_end_or_to_that_of_the_connection(doors: Doors) -> None:
    gate = doors.gate(handshakes=1)
    first = gate.admit(ONE)
    assert refused(gate) == "maxHandshakes"
    first.secured()
    second = gate.admit(ONE)
    assert refused(gate) == "maxHandshakes"
    second.release()
    gate.admit(ONE)
    first.release()
    assert refused(gate) == "maxHandshakes"


def test_giving_back_twice_gives_back_once(doors: Doors) -> None:
    gate = doors.gate(connections=2, handshakes=2, per_ip=2)
    first = gate.admit(ONE)
    gate.admit(ONE)
    for _ in range(2):
        first.secured()
        first.release()
    gate.admit(ONE)
    assert refused(gate)


def test_an_address_has_its_share(doors: Doors) -> None:
    gate = doors.gate(per_ip=1)
    first = gate.admit(ONE)
    assert refused(gate) == "maxConnectionsPerIP"
    gate.admit(OTHER)
    first.release()
    gate.admit(ONE)


def test_without_an_address_nobody_is_counted(doors: Doors) -> None:
    gate = doors.gate(per_ip=1)
    for _ in range(3):
        gate.admit(None)


def test_an_address_that_is_known_later(doors: Doors) -> None:
    gate = doors.gate(per_ip=1)
    first = gate.admit(None)
    first.attribute(ONE)
    second = gate.admit(None)
    with pytest.raises(NoRoomError):
        second.attribute(ONE)
    first.release()
    second.release()
    gate.admit(ONE)


def test_another_address_takes_the_place_of_the_first(doors: Doors) -> None:
    gate = doors.gate(per_ip=1)
    balancer, client = ONE, OTHER
    place = gate.admit(balancer)
    place.attribute(client)
    gate.admit(balancer)
    assert refused(gate, client)


def test_a_refused_one_holds_nothing(doors: Doors) -> None:
    gate = doors.gate(connections=3, handshakes=3, per_ip=1, rate=AcceptRate(1, 2))
    place = gate.admit(ONE)
    for _ in range(5):
        assert refused(gate) == "maxConnectionsPerIP"
    second = gate.admit(OTHER)
    for _ in range(5):
        assert refused(gate, None) == "acceptRate"
    place.release()
    second.release()
    for name in ("connections daemon", "handshakes daemon"):
        assert doors.ledger.count(name).total() == 0


def test_a_service_has_its_limits_and_the_daemons(doors: Doors) -> None:
    daemon = doors.scope(connections=3)
    one, other = doors.scope("one", connections=2), doors.scope("other")
    first, second = Gate(one, daemon), Gate(other, daemon)
    held = [first.admit(None), first.admit(None)]
    assert refused(first) == "maxConnections"
    second.admit(None)
    assert refused(second) == "maxConnections"
    held[0].release()
    second.admit(None)
    assert refused(first) == "maxConnections"


def test_a_rate_that_one_limit_refuses_costs_the_other_nothing(doors: Doors) -> None:
    one = doors.scope("one", rate=AcceptRate(1, 3))
    tight, wide = doors.scope("tight", rate=AcceptRate(1, 1)), doors.scope("wide")
    Gate(one, tight).admit(None)
    for _ in range(9):
        assert refused(Gate(one, tight)) == "acceptRate"
    gate = Gate(one, wide)
    gate.admit(None)
    gate.admit(None)
    assert refused(gate) == "acceptRate"


def test_who_goes_on_to_another_service_counts_for_both_and_once_for_the_daemon(doors: Doors) -> None:
    daemon = doors.scope(connections=9, handshakes=9, per_ip=9)
    first = Gate(doors.scope("first", connections=9), daemon)
    second = Gate(doors.scope("second", connections=1, per_ip=1, handshakes=1), daemon)
    place = first.admit(ONE)
    place.enter(second)
    late = first.admit(OTHER)
    with pytest.raises(NoRoomError):
        late.enter(second)
    late.release()
    totals = {
        name: doors.ledger.count(f"connections {name}").total() for name in ("first", "second", "daemon")
    }
    assert totals == {"first": 1, "second": 1, "daemon": 1}
    place.secured()
    place.release()
    Gate(doors.scope("second", connections=1, per_ip=1, handshakes=1)).admit(ONE)


def test_a_place_without_limits_is_free(doors: Doors) -> None:
    place = Place(ONE)
    place.enter(Gate())
    place.attribute(OTHER)
    place.secured()
    place.release()


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        ("fe80::1%lo", "fe80::1", True),
        ("fe80::1%lo", "fe80::2%lo", False),
        ("fec0::1", "fec0::2", True),
    ],
)
def test_what_counts_as_one_client(one: str, other: str, same: bool) -> None:
    assert (network((one, 1)) == network((other, 2, 0, 0))) is same
