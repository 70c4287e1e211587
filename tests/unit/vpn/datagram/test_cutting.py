"""Packets of up to 64 kB become segments that a kernel would have made, and segments such packets again."""

from __future__ import annotations

import random
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from culvert.vpn.datagram.cutting import CutError, TooLongError, cut, ones_sum
from culvert.vpn.datagram.joining import Joiner
from culvert.vpn.datagram.records import RecordError, Sort
from culvert.vpn.datagram.too_long import fragments
from culvert.vpn.icmp import too_long
from culvert.vpn.transport import HEADROOM, VIRTIO
from culvert.vpn.virtio import inspect

from .packets import TCP4, TCP6, UDP_L4, Flow, check, completed, framed, ip_header, virtio, words

ROOM = 1400
FIN, PSH, ACK, CWR = 1, 8, 16, 128


def records(packet: bytes, header: bytes, room: int = ROOM) -> list[bytes]:
    buffer = framed(packet, header)
    return [bytes(buffer[at : at + size]) for at, size in cut(buffer, HEADROOM, len(packet), room)]


def whole(record: bytes) -> bytes:
    """The packet of a record, with its checksum."""
    packet = completed(record[1:]) if record[0] == Sort.PARTIAL else record
    check(packet)
    return packet


def payload(packet: bytes) -> bytes:
    at = ip_header(packet)
    return packet[at + (packet[at + 12] >> 4) * 4 :]


def sequence(packet: bytes) -> int:
    return int(struct.unpack_from(">I", packet, ip_header(packet) + 4)[0])


def noise(size: int) -> bytes:
    return random.Random(size).randbytes(size)


flows = st.builds(
    Flow,
    version=st.sampled_from((4, 6)),
    dont_fragment=st.booleans(),
    options=st.sampled_from((b"", bytes(12), bytes(40))),
    flags=st.sampled_from((ACK, ACK | PSH, ACK | PSH | FIN)),
    sequence=st.integers(2**32 - 50_000, 2**32 + 50_000),
)


@given(flows, st.integers(0, 60_000), st.integers(48, 1500), st.integers(400, 1500))
@settings(max_examples=150, deadline=None)
def test_a_stream_is_cut_into_right_segments(flow: Flow, size: int, segment: int, room: int) -> None:
    packet = flow.tcp(noise(size))
    kind = TCP4 if flow.version == 4 else TCP6
    found = records(packet, virtio(packet, kind, segment), room)
    packets = [whole(record) for record in found]
    assert max(map(len, found)) <= room
    assert b"".join(map(payload, packets)) == noise(size)
    expected = flow.sequence
    for one in packets:
        assert sequence(one) == expected % 2**32
        expected += len(payload(one))
    assert {len(payload(one)) for one in packets[:-1]} <= {min(segment, room - 1 - len(packet) + size)}
    flags = [one[ip_header(one) + 13] for one in packets]
    assert flags == [ACK] * (len(packets) - 1) + [flow.flags]


def test_only_the_first_segment_says_that_the_window_was_reduced() -> None:
    packet = Flow(flags=ACK | PSH | CWR).tcp(noise(3000))
    found = records(packet, virtio(packet, TCP4 | 0x80, 1000))
    assert [record[1 + 20 + 13] for record in found] == [ACK | CWR, ACK, ACK | PSH]


def test_fragments_could_be_told_apart() -> None:
    packet = Flow(dont_fragment=False).tcp(noise(3000))
    found = records(packet, virtio(packet, TCP4, 1000))
    assert [struct.unpack_from(">H", record, 5)[0] for record in found] == [77, 78, 79]


@pytest.mark.parametrize("version", [4, 6])
def test_datagrams_are_cut_where_they_end(version: int) -> None:
    packet = Flow(version).udp(noise(2500))
    found = [whole(record) for record in records(packet, virtio(packet, UDP_L4, 1000))]
    at = ip_header(packet) + 8
    assert [len(one) - at for one in found] == [1000, 1000, 500]
    assert b"".join(one[at:] for one in found) == noise(2500)


def test_datagrams_that_are_too_long_are_not_cut() -> None:
    packet = Flow().udp(noise(6000))
    with pytest.raises(TooLongError):
        records(packet, virtio(packet, UDP_L4, 2000))


def test_a_packet_that_is_complete_goes_as_it_is() -> None:
    packet = completed(Flow().tcp(b"data"))
    assert records(packet, bytes(VIRTIO)) == [packet]


@pytest.mark.parametrize("flow", [Flow(), Flow(6)])
def test_a_checksum_is_left_to_the_other_end(flow: Flow) -> None:
    packet = flow.tcp(b"data")
    assert records(packet, virtio(packet)) == [bytes((Sort.PARTIAL,)) + packet]


def test_a_checksum_that_the_other_end_could_not_find_is_computed() -> None:
    packet = Flow(6).udp(b"data!")
    options = bytes((17, 0, 1, 4, 0, 0, 0, 0))
    longer = packet[:4] + struct.pack(">H", len(packet) - 40 + 8) + bytes((60,)) + packet[7:40]
    header = struct.pack("<BBHHHH", 1, 0, 0, 0, 48, 6)
    (found,) = records(longer + options + packet[40:], header)
    assert found[48:] == completed(packet)[40:]


def test_a_packet_that_just_fits_goes_with_its_checksum() -> None:
    packet = Flow().udp(noise(1000))
    assert records(packet, virtio(packet), len(packet)) == [completed(packet)]


@pytest.mark.parametrize("kind", [0, TCP4])
def test_what_is_too_long_for_a_record_is_said_before_anything_is_cut(kind: int) -> None:
    packet = Flow().tcp(noise(2000))
    with pytest.raises(TooLongError):
        records(packet, virtio(packet, kind, 1000), room=46)


@given(st.binary(max_size=VIRTIO), st.binary(min_size=20, max_size=3000), st.integers(0, 1500))
@settings(max_examples=300)
def test_any_header_is_cut_or_refused(header: bytes, packet: bytes, room: int) -> None:
    try:
        found = records(packet, bytes(VIRTIO - len(header)) + header, room)
    except (TooLongError, CutError):
        return
    assert all(len(record) <= room for record in found)


@given(st.binary(max_size=200))
def test_the_sum_is_that_of_its_words(data: bytes) -> None:
    assert ones_sum(data) == words(data)


class Joined:
    """A joiner, and what it delivers."""

    def __init__(self) -> None:
        self.buffer = bytearray(200_000)
        self.found: list[tuple[bytes, bytes | None]] = []
        self.joiner = Joiner(self.buffer, self._deliver)

    def take(self, record: bytes) -> bytes | None:
        at = self.joiner.place
        self.buffer[at : at + len(record)] = record
        return self.joiner.take(len(record))

    def _deliver(self, frame: memoryview, offloaded: bool) -> None:
        start = VIRTIO if offloaded else 0
        self.found.append((bytes(frame[start:]), bytes(frame[:start]) if offloaded else None))
        inspect(frame, offloaded)

    def all(self, found: list[bytes]) -> list[tuple[bytes, bytes | None]]:
        for record in found:
            assert self.take(record) is None
        self.joiner.flush()
        return self.found


def recut(packet: bytes, header: bytes | None) -> list[bytes]:
    """What a kernel would make of what was delivered."""
    return [packet] if header is None else [whole(one) for one in records(packet, header)]


@given(flows, st.integers(1, 60_000), st.integers(48, 1300))
@settings(max_examples=150, deadline=None)
def test_what_was_cut_is_joined_into_what_it_was(flow: Flow, size: int, segment: int) -> None:
    packet = flow.tcp(noise(size))
    found = records(packet, virtio(packet, TCP4 if flow.version == 4 else TCP6, segment))
    joined = Joined().all(found)
    if len(found) > 1:
        assert [one for one, _ in joined] == [packet]
    assert [one for part in joined for one in recut(*part)] == [whole(record) for record in found]


@given(st.lists(st.tuples(flows, st.integers(1, 3000)), min_size=1, max_size=5), st.randoms())
@settings(max_examples=150, deadline=None)
def test_flows_that_are_mixed_lose_nothing_and_stay_in_order(
    several: list[tuple[Flow, int]], chance: random.Random
) -> None:
    found = []
    for flow, size in several:
        packet = flow.tcp(noise(size))
        found += records(packet, virtio(packet, TCP4 if flow.version == 4 else TCP6, 500))
    if chance.random() < 0.5:
        chance.shuffle(found)
    joined = Joined().all(found)
    made = [one for part in joined for one in recut(*part)]
    assert [payload(one) for one in made] == [payload(whole(record)) for record in found]
    assert [sequence(one) for one in made] == [sequence(whole(record)) for record in found]


def test_packets_between_segments_are_delivered_in_their_place() -> None:
    packet = Flow().tcp(noise(3000))
    first, second, third = records(packet, virtio(packet, TCP4, 1000))
    ping = completed(Flow().udp(b"ping"))
    joined = Joined().all([first, second, ping, third])
    assert [one for one, _ in joined][1] == ping
    assert len(joined) == 3


def test_what_is_no_packet_is_given_back() -> None:
    packet = Flow().tcp(noise(3000))
    joined = Joined()
    assert joined.take(records(packet, virtio(packet, TCP4, 1000))[0]) is None
    assert joined.take(b"\x02ping") == b"\x02ping"
    assert len(joined.found) == 1


@given(st.lists(st.binary(min_size=1, max_size=200), max_size=30))
@settings(max_examples=300)
def test_any_records_are_taken_or_refused(found: list[bytes]) -> None:
    joined = Joined()
    joined.joiner = Joiner(joined.buffer, lambda _frame, _offloaded: None)
    packet = Flow().tcp(noise(3000))
    for record in [*records(packet, virtio(packet, TCP4, 1000))[:2], *found]:
        try:
            given_back = joined.take(record)
        except RecordError:
            continue
        assert given_back in (None, record)
    joined.joiner.flush()


@given(st.integers(28, 9000), st.integers(60, 1500))
@settings(max_examples=100)
def test_fragments_make_the_packet_again(size: int, room: int) -> None:
    packet = completed(Flow(dont_fragment=False).udp(noise(size - 28)))
    found = fragments(packet, room)
    assert all(len(one) <= room and words(one[:20]) == 0xFFFF for one in found)
    made = bytearray(len(packet) - 20)
    for one in found:
        at = (struct.unpack_from(">H", one, 6)[0] & 0x1FFF) * 8
        made[at : at + len(one) - 20] = one[20:]
    assert made == packet[20:]
    assert [bool(one[6] & 0x20) for one in found] == [True] * (len(found) - 1) + [False]


@given(st.binary(max_size=1500), st.integers(0, 1500))
@settings(max_examples=300)
def test_any_packet_that_is_too_long_has_an_answer_or_none(packet: bytes, room: int) -> None:
    assert all(len(one) <= room for one in fragments(packet, room))
    told = too_long(packet, room)
    assert told is None or len(told) <= 1280


@pytest.mark.parametrize("version", [4, 6])
def test_the_sender_is_told_what_the_tunnel_carries(version: int) -> None:
    packet = completed(Flow(version).udp(noise(1400)))
    told = too_long(packet, 1300)
    assert told is not None
    if version == 4:
        assert words(told[:20]) == 0xFFFF
        assert words(told[20:]) == 0xFFFF
        assert told[12:20] == packet[16:20] + packet[12:16]
    else:
        check_sum = struct.pack(">32sIHBB", told[8:40], len(told) - 40, 0, 0, 58)
        assert words(check_sum + told[40:]) == 0xFFFF
        assert told[8:40] == packet[24:40] + packet[8:24]
        assert struct.unpack_from(">I", told, 44)[0] == 1300
