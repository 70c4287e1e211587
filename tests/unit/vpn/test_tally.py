"""What a VPN counts, as other processes see it."""

from __future__ import annotations

import pytest

from culvert.metrics import Counters
from culvert.tally import Cell, Names, Reading
from culvert.tally import Tally as Numbers
from culvert.vpn.tally import DROPPED, IN, MET, OUT, REPLACED, Drop, Tally


@pytest.fixture
def numbers() -> Numbers:
    """Those of a service that all processes see, counted by this one in its own row."""
    made = Numbers(Names(), shared=True)
    made.enter(0)
    return made


@pytest.fixture
def tally(numbers: Numbers) -> Tally:
    """A VPN's."""
    return Tally(Counters(numbers))


def seen(numbers: Numbers) -> Reading:
    """What another process reads."""
    return numbers.read(1)


def test_packets_and_bytes_are_seen(numbers: Numbers, tally: Tally) -> None:
    tally.packets[OUT] += 2
    tally.octets[OUT] += 168
    tally.packets[IN] += 1
    tally.octets[IN] += 84
    totals = seen(numbers).totals
    assert (totals[Cell.VPN_PACKETS_TO_TLS], totals[Cell.SENT_TO_TLS]) == (2, 168)
    assert (totals[Cell.VPN_PACKETS_TO_PLAIN], totals[Cell.SENT_TO_PLAIN]) == (1, 84)


def test_drops_are_seen_by_their_reason(numbers: Numbers, tally: Tally) -> None:
    tally.drop(Drop.SPOOFED)
    tally.drop(Drop.UNREADABLE, 20)
    assert seen(numbers).family(DROPPED) == {"spoofed": 1, "unreadable": 20}


def test_peers_are_those_that_have_not_left(numbers: Numbers, tally: Tally) -> None:
    tally.met("TLS")
    tally.met("DTLS")
    tally.left("TLS")
    assert seen(numbers).family(MET) == {"tls": 1, "dtls": 1}
    assert (seen(numbers).totals[Cell.VPN_PEERS_TLS], seen(numbers).totals[Cell.VPN_PEERS_DTLS]) == (0, 1)


def test_peers_are_gone_with_their_process_and_what_was_counted_stays(numbers: Numbers, tally: Tally) -> None:
    tally.met("DTLS")
    tally.moved()
    tally.fell_back()
    tally.refused()
    numbers.bury(0)
    totals = seen(numbers).totals
    assert totals[Cell.VPN_PEERS_DTLS] == 0
    assert totals[Cell.VPN_MOVES] == totals[Cell.VPN_FALLBACKS] == totals[Cell.VPN_REFUSED] == 1


def test_a_link_of_the_same_transport_renews(numbers: Numbers, tally: Tally) -> None:
    tally.replaced("TLS", "TLS")
    tally.replaced("TLS", "DTLS")
    assert seen(numbers).family(REPLACED) == {"renewed": 1, "other transport": 1}


def test_the_line_for_the_list(tally: Tally) -> None:
    assert str(tally) == (
        "0 packet(s) and 0 byte(s) in, 0 packet(s) and 0 byte(s) out; dropped: none; met: none; 0 refused"
    )
