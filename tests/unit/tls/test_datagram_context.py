"""A server's first answer in DTLS: nothing is kept of whoever has not shown a valid cookie."""

from __future__ import annotations

import gc
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from culvert.tls.cookies import LIFETIME, Cookies
from culvert.tls.datagram import DatagramEngine, DatagramScratch
from culvert.tls.datagram_context import DatagramContext
from culvert.tls.engine import Scratch
from culvert.tls.failure import take_errors

from .conftest import Authority
from .datagram_ends import HERE, DatagramEnd, datagram_context, give

ELSEWHERE = b"198.51.100.7:1000"


@pytest.fixture(scope="module")
def server(authority: Authority) -> DatagramContext:
    return datagram_context(authority.server_cert)


@pytest.fixture
def client(authority: Authority) -> DatagramEnd:
    return DatagramEnd.of(datagram_context(authority.trust, client=True), client=True)


BUFFERS = DatagramScratch(Scratch())


def greet(
    server: DatagramContext, datagram: bytes, whose: bytes = HERE, later: float = 0
) -> bytes | DatagramEngine:
    return server.greet(0, give(BUFFERS, datagram), whose, BUFFERS, time.monotonic() + later)


def test_a_client_without_a_cookie_gets_one_in_a_shorter_answer(
    server: DatagramContext, client: DatagramEnd
) -> None:
    (hello,) = client.step()
    answer = greet(server, hello)
    assert isinstance(answer, bytes)
    assert 0 < len(answer) < len(hello)


def test_a_client_with_its_cookie_gets_an_engine(server: DatagramContext, client: DatagramEnd) -> None:
    answer = greet(server, client.step()[0])
    assert isinstance(answer, bytes)
    assert isinstance(greet(server, client.step(answer)[0]), DatagramEngine)


def test_a_cookie_is_good_for_its_address_alone(server: DatagramContext, client: DatagramEnd) -> None:
    answer = greet(server, client.step()[0])
    assert isinstance(answer, bytes)
    (second,) = client.step(answer)
    assert isinstance(greet(server, second, ELSEWHERE), bytes)
    assert isinstance(greet(server, second, HERE), DatagramEngine)


def test_clients_that_come_together_are_all_served(authority: Authority, server: DatagramContext) -> None:
    clients = [DatagramEnd.of(datagram_context(authority.trust, client=True), client=True) for _ in range(5)]
    seconds = []
    for number, client in enumerate(clients):
        answer = greet(server, client.step()[0], b"%d" % number)
        assert isinstance(answer, bytes)
        seconds += client.step(answer)
    found = [greet(server, second, b"%d" % number) for number, second in enumerate(seconds)]
    for engine in found:
        assert isinstance(engine, DatagramEngine)
        assert not engine.handshake()
        assert engine.datagrams()


def test_a_cookie_grows_old(server: DatagramContext, client: DatagramEnd) -> None:
    answer = greet(server, client.step()[0])
    assert isinstance(answer, bytes)
    (second,) = client.step(answer)
    assert isinstance(greet(server, second, later=2 * LIFETIME + 1), bytes)


def test_a_flood_without_cookies_leaves_nothing_behind(server: DatagramContext, client: DatagramEnd) -> None:
    (hello,) = client.step()
    for number in range(100):
        greet(server, hello, b"%d" % number)
    gc.collect()
    before = resident()
    for number in range(20_000):
        assert isinstance(greet(server, hello, b"%d" % number), bytes)
    assert resident() - before < 2 * 1024 * 1024


def resident() -> int:
    """Bytes of memory of this process."""
    return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * 4096


@given(st.binary(max_size=2000))
@settings(max_examples=200)
def test_any_bytes_are_answered_with_less_than_they_are(server: DatagramContext, data: bytes) -> None:
    answer = greet(server, data)
    assert isinstance(answer, bytes)
    assert len(answer) <= len(data)
    assert take_errors() == ()


@given(st.data())
@settings(max_examples=100)
def test_a_hello_that_is_cut_or_changed_leaves_the_server_able_to_greet(
    authority: Authority, server: DatagramContext, data: st.DataObject
) -> None:
    client = DatagramEnd.of(datagram_context(authority.trust, client=True), client=True)
    hello = bytearray(client.step()[0])
    whole = bytes(hello)
    for _ in range(data.draw(st.integers(1, 4))):
        hello[data.draw(st.integers(0, len(hello) - 1))] = data.draw(st.integers(0, 255))
    end = data.draw(st.integers(0, len(hello)))
    assert isinstance(greet(server, bytes(hello[:end])), bytes)
    answer = greet(server, whole)
    assert isinstance(answer, bytes)
    assert len(answer) > 0


def test_cookies_of_the_last_secret_are_taken_and_older_ones_are_not() -> None:
    cookies = Cookies(0.0)
    cookie = cookies.make(HERE)
    cookies.turn(LIFETIME - 1)
    assert cookies.make(HERE) == cookie
    cookies.turn(LIFETIME)
    assert cookies.make(HERE) != cookie
    assert cookies.holds(HERE, cookie)
    assert not cookies.holds(ELSEWHERE, cookie)
    cookies.turn(2 * LIFETIME)
    assert not cookies.holds(HERE, cookie)
