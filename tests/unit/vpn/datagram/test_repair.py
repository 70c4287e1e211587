"""What was lost is restored where a parity covers it, and nothing is made of what was not sent."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from culvert.vpn.datagram.records import RecordError, Sort, read
from culvert.vpn.datagram.repair import KEPT, PARITY_HEADER, Protector, Restorer, loss, read_loss

FIRST = (1 << 48) + 17


def protected(records: list[bytes], lost: float = 0.02) -> list[tuple[int, bytes]]:
    """The records with their numbers, and the parities among them, as they go over the way."""
    protector = Protector()
    protector.hear(lost)
    number, sent = FIRST, []
    for record in records:
        sent.append((number, record))
        parity = protector.add(number, record)
        number += 1
        if parity is not None:
            sent.append((number, parity))
            number += 1
    last = protector.parity()
    return sent if last is None else [*sent, (number, last)]


def received(sent: list[tuple[int, bytes]]) -> list[bytes]:
    """What comes of what has come."""
    restorer, found = Restorer(), []
    for number, record in sent:
        if record[0] == Sort.PARITY:
            restored = restorer.take(record)
            if restored is not None:
                found.append(restored)
        else:
            restorer.keep(number, record)
            found.append(record)
    return found


plain = st.binary(min_size=1, max_size=300).map(lambda data: b"\x45" + data)


@given(st.lists(plain, min_size=1, max_size=30), st.data())
@settings(max_examples=200)
def test_one_of_each_group_may_be_missing(records: list[bytes], data: st.DataObject) -> None:
    sent = protected(records)
    missing = data.draw(st.sampled_from([one for one in sent if one[1][0] != Sort.PARITY]))
    assert sorted(received([one for one in sent if one != missing])) == sorted(records)


def test_of_two_in_a_group_none_is_restored() -> None:
    records = [b"\x45" + bytes([number]) * 300 for number in range(8)]
    sent = protected(records)
    assert received(sent[2:]) == records[2:]


def test_most_of_a_fiftieth_is_restored() -> None:
    chance = random.Random(1)
    records = [b"\x45" + chance.randbytes(1300) for _ in range(5000)]
    sent = protected(records)
    assert len(sent) < 1.15 * len(records)
    found = received([one for one in sent if chance.random() >= 0.02])
    assert len(records) - len(found) < 0.005 * len(records)
    assert set(found) <= set(records)


def test_nothing_is_sent_where_nothing_is_lost() -> None:
    protector = Protector()
    protector.hear(0.001)
    assert protector.group == 0
    protector.hear(0.02)
    assert protector.group == 8
    for _ in range(30):
        protector.hear(0.002)
    assert protector.group > 0
    for _ in range(30):
        protector.hear(0.0)
    assert protector.group == 0
    assert protector.parity() is None


@pytest.mark.parametrize("lost", [0.003, 0.02, 0.05, 0.3, 1.0])
def test_groups_have_a_sensible_size(lost: float) -> None:
    protector = Protector()
    protector.hear(lost)
    assert 3 <= protector.group <= 10


def test_a_parity_is_a_little_longer_than_what_it_covers() -> None:
    sent = protected([b"\x45" + bytes(count) for count in (10, 1000, 500)])
    assert len(sent[-1][1]) == PARITY_HEADER + 1001


def test_loss_is_counted_and_told() -> None:
    restorer = Restorer()
    restorer.count(FIRST + 9, 10)
    assert restorer.report() is None
    restorer.count(FIRST + 99, 88)
    told = restorer.report()
    assert told is not None
    assert 0.01 < told < 0.03
    restorer.count(FIRST + 199, 100)
    assert restorer.report() == 0.0
    restorer.count(FIRST + 299, 100)
    assert restorer.report() is None


@given(st.floats(0, 1))
def test_a_report_is_read_as_it_was_written(share: float) -> None:
    sort, record = read(loss(share))
    assert sort is Sort.LOSS
    assert isinstance(record, bytes)
    assert abs(read_loss(record) - share) < 0.001


@given(st.lists(st.binary(max_size=100), max_size=20), st.data())
@settings(max_examples=300)
def test_any_parity_is_taken_or_refused(found: list[bytes], data: st.DataObject) -> None:
    restorer = Restorer()
    for _ in range(data.draw(st.integers(0, 20))):
        restorer.keep(data.draw(st.integers(0, 40)), data.draw(st.binary(max_size=50)))
    for content in found:
        try:
            restored = restorer.take(bytes((Sort.PARITY,)) + content)
        except RecordError:
            continue
        assert restored is None or 0 < len(restored) <= len(content)


def test_what_is_kept_is_bounded() -> None:
    restorer = Restorer()
    for number in range(10 * KEPT):
        restorer.keep(number, b"x")
    assert len(restorer._kept) == KEPT


def test_where_parities_are_not_wanted_none_are_sent() -> None:
    protector = Protector()
    protector.wanted = False
    protector.hear(0.1)
    assert protector.group == 0
