"""Who gets which events, how many are kept, and what is said of those that are not."""

from __future__ import annotations

import itertools

from culvert.trace import Lost, Opened, Record, Tap, TraceEvent, Tracing, Wants, Wire
from culvert.trace.tracing import Choice


class Stream:
    """What a tap asks a socket for."""

    def getsockname(self) -> tuple[str, int]:
        return "192.0.2.1", 443

    def getpeername(self) -> tuple[str, int]:
        return "192.0.2.9", 50000


def ticking() -> Tracing:
    times = itertools.count(100.0)
    return Tracing(lambda: next(times))


def tap(tracing: Tracing, stream: object = None, *, server: bool = True) -> Tap:
    found = tracing.tap("1", "web", Stream() if stream is None else stream, server=server)
    assert found is not None
    return found


def kinds(events: list[TraceEvent]) -> list[str]:
    return [type(event).__name__ for event in events]


def test_nothing_is_traced_until_somebody_asks() -> None:
    tracing = ticking()
    assert tracing.tap("1", "web", Stream(), server=True) is None
    subscription = tracing.subscribe(Wants(), lambda: None)
    assert tracing.tap("1", "web", Stream(), server=True) is not None
    subscription.close()
    assert tracing.tap("2", "web", Stream(), server=True) is None


def test_only_the_service_that_is_asked_for() -> None:
    tracing = ticking()
    tracing.subscribe(Wants(), lambda: None, Choice(["mail"]))
    assert tracing.tap("1", "web", Stream(), server=True) is None
    assert tracing.tap("1", "mail", Stream(), server=True) is not None


def test_the_ends_of_a_connection_by_role() -> None:
    for server, ends in (
        (True, (("192.0.2.9", 50000), ("192.0.2.1", 443))),
        (False, (("192.0.2.1", 443), ("192.0.2.9", 50000))),
    ):
        tracing = ticking()
        subscription = tracing.subscribe(Wants(), lambda: None)
        tap(tracing, server=server)
        (opened,) = subscription.take()
        assert isinstance(opened, Opened)
        assert (opened.client, opened.server) == ends


def test_a_program_has_no_address() -> None:
    tracing = ticking()
    subscription = tracing.subscribe(Wants(), lambda: None)
    tap(tracing, object())
    (opened,) = subscription.take()
    assert isinstance(opened, Opened)
    assert opened.client == ("program", 0)


def test_each_reader_gets_what_he_wants() -> None:
    tracing = ticking()
    plain = tracing.subscribe(Wants(), lambda: None)
    full = tracing.subscribe(Wants(data=True, wire=True, secrets=True), lambda: None)
    one = tap(tracing)
    one.spoke(256, b"\x17\x03\x03\x00\x10", sent=True)
    one.written(b"hello")
    one.settle()
    one.wire(memoryview(b"sealed"), sent=True)
    one.secret("LINE")
    one.close()
    assert kinds(plain.take()) == ["Opened", "Record", "Closed"]
    events = full.take()
    assert kinds(events) == ["Opened", "Record", "Wire", "Secret", "Closed"]
    assert isinstance(events[1], Record)
    assert events[1].content == b"hello"


def test_the_reader_is_woken_when_there_is_something_new() -> None:
    woken: list[int] = []
    tracing = ticking()
    subscription = tracing.subscribe(Wants(wire=True), lambda: woken.append(1))
    one = tap(tracing)
    one.wire(memoryview(b"a"), sent=True)
    assert len(woken) == 1
    subscription.take()
    one.wire(memoryview(b"b"), sent=True)
    assert len(woken) == 2


def test_what_a_slow_reader_misses_is_counted_and_its_place_is_known() -> None:
    tracing = ticking()
    subscription = tracing.subscribe(Wants(wire=True), lambda: None, limit=2000)
    one = tap(tracing)
    for _ in range(10):
        one.wire(memoryview(b"x" * 500), sent=True)
    first = subscription.take()
    assert kinds(first) == ["Opened", "Wire", "Wire", "Lost"]
    assert isinstance(first[-1], Lost)
    assert first[-1].count == 8
    one.wire(memoryview(b"y"), sent=True)
    (after,) = subscription.take()
    assert isinstance(after, Wire)
    assert after.offset == 5000


def test_only_the_connection_that_is_asked_for() -> None:
    tracing = ticking()
    tracing.subscribe(Wants(), lambda: None, Choice(["web"], "7"))
    assert tracing.tap("6", "web", Stream(), server=True) is None
    assert tracing.tap("7", "mail", Stream(), server=True) is None
    assert tracing.tap("7", "web", Stream(), server=True) is not None


def test_connections_of_one_name_in_the_log_are_told_apart() -> None:
    tracing = ticking()
    subscription = tracing.subscribe(Wants(), lambda: None)
    for _ in range(2):
        tap(tracing)
    opened = [event for event in subscription.take() if isinstance(event, Opened)]
    assert [event.ident for event in opened] == ["1", "1"]
    assert len({event.connection for event in opened}) == 2


def test_what_waits_can_be_taken_in_parts() -> None:
    tracing = ticking()
    subscription = tracing.subscribe(Wants(wire=True), lambda: None, limit=4000)
    one = tap(tracing)
    for _ in range(10):
        one.wire(memoryview(b"x" * 1000), sent=True)
    assert kinds(subscription.take(300)) == ["Opened", "Wire"]
    assert kinds(subscription.take(1)) == ["Wire"]
    assert kinds(subscription.take()) == ["Lost"]
    one.wire(memoryview(b"y" * 3000), sent=True)  # there is room again
    assert kinds(subscription.take()) == ["Wire"]


def test_a_reader_who_has_gone_gets_nothing() -> None:
    tracing = ticking()
    subscription = tracing.subscribe(Wants(), lambda: None)
    one = tap(tracing)
    subscription.close()
    one.close()
    assert subscription.take() == []
