"""The capture by its blocks: order, lengths, sequence numbers, checksums."""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from culvert.trace import Closed, Direction, Opened, Secret, TraceEvent, Wire
from culvert.trace.events import Endpoint
from culvert.trace.pcapng import CaptureWriter

V4: tuple[Endpoint, Endpoint] = ("192.0.2.9", 50000), ("192.0.2.1", 443)
V6: tuple[Endpoint, Endpoint] = ("2001:db8::9", 50000), ("2001:db8::1", 443)
TO_SERVER, TO_CLIENT = Direction.TO_SERVER, Direction.TO_CLIENT


@dataclass(frozen=True)
class Packet:
    """What a TCP segment says."""

    source: str
    target: str
    ports: tuple[int, int]
    sequence: int
    acknowledged: int
    flags: int
    data: bytes


def capture(*events: TraceEvent) -> bytes:
    writer = CaptureWriter()
    return writer.start() + b"".join(writer.write(event) for event in events)


def blocks(data: bytes) -> Iterator[tuple[int, bytes]]:
    while data:
        kind, length = struct.unpack("=II", data[:8])
        assert length % 4 == 0
        assert struct.unpack("=I", data[length - 4 : length]) == (length,)
        yield kind, data[8 : length - 4]
        data = data[length:]


def ones_complement(data: bytes) -> int:
    total: int = sum(struct.unpack(f"!{(len(data) + 1) // 2}H", data + bytes(len(data) % 2)))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def packets(data: bytes) -> list[Packet]:
    """The packets of a capture; their checksums and lengths are right."""
    found = []
    for kind, body in blocks(data):
        if kind == 6:
            size, original = struct.unpack("=II", body[12:20])
            assert size == original
            found.append(packet(body[20 : 20 + size]))
    return found


def packet(data: bytes) -> Packet:
    if data[0] >> 4 == 4:
        header, segment = data[:20], data[20:]
        assert ones_complement(header) == 0xFFFF
        assert struct.unpack("!H", header[2:4]) == (len(data),)
        source, target = header[12:16], header[16:20]
    else:
        header, segment = data[:40], data[40:]
        assert struct.unpack("!H", header[4:6]) == (len(segment),)
        source, target = header[8:24], header[24:40]
    assert ones_complement(source + target + struct.pack("!II", len(segment), 6) + segment) == 0xFFFF
    *ports, sequence, acknowledged, _, flags = struct.unpack("!HHIIBB", segment[:14])
    return Packet(
        str(ipaddress.ip_address(source)),
        str(ipaddress.ip_address(target)),
        (ports[0], ports[1]),
        sequence,
        acknowledged,
        flags,
        segment[20:],
    )


def opened(ends: tuple[Endpoint, Endpoint] = V4, connection: str = "1") -> Opened:
    return Opened(connection, 100.0, 1_700_000_000.25, "web", *ends)


def test_the_head_is_a_section_and_an_interface_of_ip_packets() -> None:
    section, interface = blocks(capture())
    assert section[0] == 0x0A0D0D0A
    assert section[1][:4] == struct.pack("=I", 0x1A2B3C4D)
    assert b"culvert" in section[1]
    assert (interface[0], struct.unpack("=H", interface[1][:2])) == (1, (101,))


@pytest.mark.parametrize("ends", [V4, V6])
def test_a_connection_as_tcp_would_carry_it(ends: tuple[Endpoint, Endpoint]) -> None:
    found = packets(
        capture(
            opened(ends),
            Wire("1", 100.1, TO_SERVER, 0, b"hello"),
            Wire("1", 100.2, TO_CLIENT, 0, b"good day"),
            Wire("1", 100.3, TO_SERVER, 5, b"bye"),
            Closed("1", 100.4),
        )
    )
    assert {(one.source, one.ports[0]) for one in found} == set(ends)
    assert [(one.flags, one.sequence, one.acknowledged, one.data) for one in found] == [
        (2, 0, 0, b""),
        (18, 0, 1, b""),
        (16, 1, 1, b""),
        (24, 1, 1, b"hello"),
        (24, 1, 6, b"good day"),
        (24, 6, 9, b"bye"),
        (17, 9, 9, b""),
        (17, 9, 10, b""),
        (16, 10, 10, b""),
    ]


def test_times_are_of_the_day() -> None:
    data = capture(opened(), Wire("1", 101.5, TO_SERVER, 0, b"x"))
    *_, (_, body) = blocks(data)
    high, low = struct.unpack("=II", body[4:12])
    assert high << 32 | low == 1_700_000_001_750_000


def test_long_data_is_cut_into_segments() -> None:
    data = bytes(range(256)) * 600
    found = [one for one in packets(capture(opened(), Wire("1", 1.0, TO_CLIENT, 0, data))) if one.data]
    assert b"".join(one.data for one in found) == data
    assert [one.sequence for one in found] == [1 + at for at in range(0, len(data), 32 * 1024)]


def test_what_was_lost_leaves_a_gap_in_the_numbers() -> None:
    found = packets(capture(opened(), Wire("1", 1.0, TO_SERVER, 700, b"later")))
    assert found[-1].sequence == 701


def test_sequence_numbers_wrap() -> None:
    found = packets(capture(opened(), Wire("1", 1.0, TO_SERVER, (1 << 32) + 4, b"far")))
    assert found[-1].sequence == 5


def test_secrets_stand_in_their_own_blocks_before_what_follows() -> None:
    data = capture(opened(), Secret("1", 1.0, "CLIENT_RANDOM aa bb"), Wire("1", 1.0, TO_SERVER, 0, b"x"))
    kinds = [kind for kind, _ in blocks(data)]
    assert kinds == [0x0A0D0D0A, 1, 6, 6, 6, 10, 6]
    (secrets,) = [body for kind, body in blocks(data) if kind == 10]
    kind, length = struct.unpack("=II", secrets[:8])
    assert (kind, secrets[8 : 8 + length]) == (0x544C534B, b"CLIENT_RANDOM aa bb\n")


@pytest.mark.parametrize(
    ("ends", "shown"),
    [
        ((("unix socket", 0), ("192.0.2.1", 443)), ("127.0.0.1", "192.0.2.1")),
        ((("2001:db8::1", 5), ("program", 0)), ("2001:db8::1", "::1")),
        ((("2001:db8::1", 5), ("192.0.2.1", 443)), ("2001:db8::1", "::ffff:192.0.2.1")),
        ((("fe80::1%eth0", 5), ("fe80::2", 443)), ("fe80::1", "fe80::2")),
    ],
)
def test_ends_without_an_address_of_their_own_get_one(
    ends: tuple[Endpoint, Endpoint], shown: tuple[str, str]
) -> None:
    first, *_ = packets(capture(opened(ends)))
    assert ipaddress.ip_address(first.source) == ipaddress.ip_address(shown[0])
    assert ipaddress.ip_address(first.target) == ipaddress.ip_address(shown[1])
    assert all(first.ports)


def test_connections_of_unix_sockets_are_told_apart() -> None:
    ends = ("unix socket", 0), ("unix socket", 0)
    found = packets(capture(opened(ends, "1"), opened(ends, "2")))
    assert len({one.ports for one in found if one.flags == 2}) == 2


def test_bytes_of_a_connection_whose_beginning_was_lost_are_left_out() -> None:
    assert packets(capture(Wire("9", 1.0, TO_SERVER, 0, b"x"), Closed("9", 1.0))) == []
