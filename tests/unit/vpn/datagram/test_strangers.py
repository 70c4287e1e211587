"""Who is told that his datagrams are nobody's, and when the log is told of them."""

from __future__ import annotations

from culvert.vpn.datagram.strangers import ANSWERS, FLOOD, PAUSE, REMEMBERED, Strangers

CLIENT = ("198.51.100.7", 4430)


def test_noise_from_elsewhere_takes_no_answer_away() -> None:
    strangers = Strangers()
    for number in range(500):
        strangers.may_be_told(("192.0.2.1", number), 1000.0 + number / 1000)
    assert strangers.may_be_told(CLIENT, 1000.5)


def test_one_network_is_answered_not_too_often() -> None:
    strangers = Strangers()
    assert strangers.may_be_told(("2001:db8::1", 1, 0, 0), 1000.0)
    assert not strangers.may_be_told(("2001:db8::2", 2, 0, 0), 1000.0 + PAUSE / 2)
    assert strangers.may_be_told(("2001:db8::1", 1, 0, 0), 1000.0 + 1.5 * PAUSE)


def test_many_networks_are_not_all_remembered_nor_answered() -> None:
    strangers, told = Strangers(), 0
    for number in range(3 * REMEMBERED):
        strangers.came(1000.0)
        told += strangers.may_be_told((f"10.0.{number // 250}.{number % 250}", 1), 1000.0)
    assert told == ANSWERS
    assert len(strangers._told) <= REMEMBERED
    strangers.came(1001.0)
    assert strangers.may_be_told(CLIENT, 1001.0)


def test_many_in_a_second_are_told_of_once() -> None:
    strangers = Strangers()
    told = [strangers.came(1000.0 + number / 1000) for number in range(2 * FLOOD)]
    assert told.index(True) == FLOOD - 1
    assert told.count(True) == 1
    assert not strangers.came(1001.0)
