"""Numbers and times of what is shown, and its two forms: text that commands no terminal, and JSON."""

from __future__ import annotations

import json

from culvert.cli.trace.text import lines
from culvert.trace import Closed, Direction, Lost, Opened, Record, TraceEvent
from culvert.trace.dissection import CONNECTIONS_LIMIT, Dissector, ShownRecord, as_object

TO_SERVER, TO_CLIENT = Direction.TO_SERVER, Direction.TO_CLIENT


def opened(connection: str = "7", service: str = "web") -> Opened:
    return Opened(connection, 100.0, 1_700_000_000.0, service, ("192.0.2.9", 50000), ("192.0.2.1", 443))


def text(*events: TraceEvent) -> list[str]:
    dissector = Dissector()
    shown = [found for event in events if (found := dissector.read(event)) is not None]
    return [line for one in shown for line in lines(one)]


def records(*events: TraceEvent) -> list[ShownRecord]:
    dissector = Dissector()
    return [shown for event in events if isinstance(shown := dissector.read(event), ShownRecord)]


def test_records_are_numbered_and_timed_by_connection() -> None:
    shown = records(
        opened("a"),
        opened("b"),
        Record("a", 100.5, TO_SERVER, 0x0303, 23, 20),
        Record("b", 101.0, TO_SERVER, 0x0303, 23, 20),
        Record("a", 102.0, TO_CLIENT, 0x0303, 23, 20),
    )
    assert [(one.connection, one.number, one.time, one.since_last) for one in shown] == [
        (1, 1, 0.5, 0.5),
        (2, 1, 1.0, 1.0),
        (1, 2, 2.0, 1.5),
    ]


def test_a_line_for_a_record() -> None:
    told = text(opened(), Record("7", 100.25, TO_CLIENT, 0x0303, 23, 19, inner=21, content=b"\2\x28", size=2))
    assert told[1:] == [
        "1 1   0.250000 (0.250000) S>C TLSv1.2 application_data (alert), 19 bytes",
        "    fatal: handshake_failure",
    ]


def test_plain_text_in_hexadecimal_and_ascii() -> None:
    data = b"GET / HTTP/1.0\r\n\x1b[2J"
    told = text(opened(), Record("7", 100.0, TO_SERVER, 0x0303, 23, 40, inner=23, content=data, size=20))
    assert told[2:] == [
        "    0000  47 45 54 20 2f 20 48 54 54 50 2f 31 2e 30 0d 0a  GET / HTTP/1.0..",
        "    0010  1b 5b 32 4a" + " " * 38 + ".[2J",
    ]


def hello(name: bytes) -> bytes:
    entry = b"\0" + len(name).to_bytes(2, "big") + name
    names = len(entry).to_bytes(2, "big") + entry
    extension = b"\0\0" + len(names).to_bytes(2, "big") + names
    extensions = len(extension).to_bytes(2, "big") + extension
    body = b"\3\3" + bytes(32) + b"\0" + b"\0\2\x13\1" + b"\1\0" + extensions
    return b"\1" + len(body).to_bytes(3, "big") + body


def test_a_peers_control_characters_do_not_reach_the_terminal() -> None:
    message = hello(b"\x1b]0;owned\x07\xe2\x80\xae\xff.test")
    told = text(
        opened(service="a\x1b[31m"), Record("7", 100.0, TO_SERVER, 0x0301, 22, 80, messages=(message,))
    )
    assert any("owned" in line for line in told)
    assert all(line.isprintable() for line in told)


def test_a_malformed_message_is_shown_as_such() -> None:
    told = text(opened(), Record("7", 100.0, TO_SERVER, 0x0301, 22, 80, messages=(hello(b"a")[:40],)))
    assert told[-1].startswith("      malformed: ")


def test_what_nobody_could_read_is_encrypted() -> None:
    (line,) = text(opened(), Record("7", 100.0, TO_SERVER, 0x0303, 22, 40, opaque=True))[1:]
    assert line.endswith("TLSv1.2 handshake, 40 bytes, encrypted")


def test_the_end_and_a_gap_are_told() -> None:
    assert text(opened(), Lost(100.0, 3), Closed("7", 101.5))[1:] == [
        "(3 event(s) lost here)",
        "1     1.500000 closed",
    ]


def test_json_has_the_same() -> None:
    dissector = Dissector()
    events: tuple[TraceEvent, ...] = (
        opened(),
        Record("7", 100.25, TO_SERVER, 0x0301, 22, 80, messages=(hello(b"a.test"),), size=70),
        Record("7", 100.5, TO_CLIENT, 0x0303, 23, 19, inner=21, content=b"\1\0", size=2),
        Lost(101.0, 1),
        Closed("7", 102.0),
    )
    found = [
        json.loads(json.dumps(as_object(shown)))
        for event in events
        if (shown := dissector.read(event)) is not None
    ]
    assert [one["event"] for one in found] == ["opened", "record", "record", "lost", "closed"]
    assert found[1]["messages"][0]["name"] == "ClientHello"
    assert found[1]["messages"][0]["fields"]["extensions"] == {"server_name": ["a.test"]}
    assert found[2]["alert"] == {"level": "warning", "description": "close_notify"}
    assert (found[2]["type"], found[2]["inner"]) == ("application_data", "alert")


def test_connections_whose_end_was_lost_are_forgotten() -> None:
    dissector = Dissector()
    for number in range(CONNECTIONS_LIMIT + 10):
        dissector.read(opened(str(number)))
    shown = dissector.read(Closed("0", 101.0))
    assert shown is not None  # as a connection of its own: the first one is not known any more
    assert as_object(shown)["connection"] == CONNECTIONS_LIMIT + 11
