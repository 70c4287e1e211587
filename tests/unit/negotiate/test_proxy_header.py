"""PROXY headers: what is written, what is read, and that exactly a header's bytes are taken."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from culvert.negotiate.crc32c import crc32c
from culvert.negotiate.proxy_header import (
    VERSION_1_LIMIT,
    VERSION_2_LIMIT,
    HeaderReader,
    ProxyHeaderError,
    tlv,
    version_1,
    version_2,
)
from culvert.negotiate.script import Ends

from .proxy_headers import (
    ADDRESSES_4,
    ADDRESSES_6,
    CLIENT_4,
    CLIENT_6,
    LINE_4,
    LINE_6,
    SIGNATURE,
    binary,
    read,
)

UNIX = Ends(None, None)


@pytest.mark.parametrize(
    ("ends", "line"),
    [
        (CLIENT_4, LINE_4),
        (CLIENT_6, LINE_6),
        (UNIX, b"PROXY UNKNOWN\r\n"),
        (Ends(("::ffff:192.0.2.7", 50000, 0, 0), ("::ffff:198.51.100.1", 443, 0, 0)), LINE_4),
        (
            Ends(("fe80::1%eth0", 1, 0, 2), ("fe80::2%eth0", 2, 0, 2)),
            b"PROXY TCP6 fe80::1 fe80::2 1 2\r\n",
        ),
        (
            Ends(("192.0.2.7", 1), ("2001:db8::1", 2, 0, 0)),
            b"PROXY TCP6 ::ffff:192.0.2.7 2001:db8::1 1 2\r\n",
        ),
    ],
)
def test_version_1(ends: Ends, line: bytes) -> None:
    written = version_1(ends)
    assert written.replace(b"::ffff:c000:207", b"::ffff:192.0.2.7") == line


@pytest.mark.parametrize(
    ("ends", "header"),
    [
        (CLIENT_4, binary(1, 0x11, ADDRESSES_4)),
        (CLIENT_6, binary(1, 0x21, ADDRESSES_6)),
        (UNIX, binary(0, 0, b"")),
    ],
)
def test_version_2(ends: Ends, header: bytes) -> None:
    assert version_2(ends) == header


def test_version_2_carries_values_behind_its_addresses() -> None:
    assert version_2(CLIENT_4, tlv(4, b"xyz")) == binary(1, 0x11, ADDRESSES_4 + b"\x04\x00\x03xyz")


@pytest.mark.parametrize(
    ("header", "ends"),
    [
        (LINE_4, CLIENT_4),
        (LINE_6, CLIENT_6),
        (b"PROXY UNKNOWN\r\n", None),
        (b"PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n", None),
        (b"PROXY TCP4 255.255.255.255 0.0.0.0 65535 0\r\n", Ends(("255.255.255.255", 65535), ("0.0.0.0", 0))),
        (binary(1, 0x11, ADDRESSES_4), CLIENT_4),
        (binary(1, 0x21, ADDRESSES_6), CLIENT_6),
        (binary(1, 0x11, ADDRESSES_4 + tlv(4, b"") + tlv(0xEE, bytes(1000))), CLIENT_4),
        (binary(0, 0, b""), None),
        (binary(0, 0x11, ADDRESSES_4), None),
        (binary(0, 0xFF, b"whatever"), None),
        (binary(1, 0, b""), None),
        (binary(1, 0x31, bytes(216)), None),
    ],
)
def test_a_header_is_read_and_nothing_behind_it(header: bytes, ends: Ends | None) -> None:
    for pieces in ([header + b"\x16\x03"], [bytes((byte,)) for byte in header]):
        reader, rest = read(*pieces)
        assert reader.complete
        assert reader.ends == ends
        assert rest == (b"\x16\x03" if len(pieces) == 1 else b"")


@pytest.mark.parametrize(
    "header",
    [
        b"GET / HTTP/1.1\r\n",
        b"\x16\x03\x01\x02\x00\x01",
        b"proxy TCP4 192.0.2.7 198.51.100.1 50000 443\r\n",
        b"PROXY\r\n",
        b"PROXY \r\n",
        b"PROXY TCP4\r\n",
        b"PROXY TCP5 192.0.2.7 198.51.100.1 50000 443\r\n",
        b"PROXY TCP4 2001:db8::7 2001:db8::1 50000 443\r\n",
        b"PROXY TCP6 192.0.2.7 198.51.100.1 50000 443\r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 50000\r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 50000 443 \r\n",
        b"PROXY TCP4  192.0.2.7 198.51.100.1 50000 443\r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 50000 65536\r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 050000 443\r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 -1 443\r\n",
        b"PROXY TCP4 192.0.2.07 198.51.100.1 50000 443\r\n",
        b"PROXY TCP6 fe80::1%eth0 fe80::2 50000 443\r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 50000 443\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 50000 \xd9\xa1\r\n",
        b"PROXY UNKNOWN " + b"x" * VERSION_1_LIMIT,
        SIGNATURE[:-1] + b"X",
        binary(1, 0x11, ADDRESSES_4, version=1),
        binary(2, 0x11, ADDRESSES_4),
        binary(1, 0x12, ADDRESSES_4),
        binary(1, 0x10, ADDRESSES_4),
        binary(1, 0x41, ADDRESSES_4),
        binary(1, 0x11, ADDRESSES_4[:-1]),
        binary(1, 0x21, ADDRESSES_4),
        binary(1, 0x11, ADDRESSES_4 + b"\x04"),
        binary(1, 0x11, ADDRESSES_4 + b"\x04\x00\x03xy"),
        binary(1, 0x11, ADDRESSES_4 + tlv(3, b"abc")),
        SIGNATURE + bytes((0x21, 0x11)) + VERSION_2_LIMIT.to_bytes(2, "big"),
    ],
)
def test_what_is_no_header_is_refused(header: bytes) -> None:
    with pytest.raises(ProxyHeaderError):
        read(header)


@pytest.mark.parametrize("begun", [b"", b"P", b"PROXY TCP4 1", b"\r\n\r", binary(1, 0x11, ADDRESSES_4)[:-1]])
def test_what_may_become_a_header_is_waited_for(begun: bytes) -> None:
    reader, rest = read(begun)
    assert not reader.complete
    assert rest == b""
    assert reader.wanted > 0


@pytest.mark.parametrize("begun", [b"Q", b"PX", b"\r\r"])
def test_what_cannot_become_one_is_refused_at_its_first_wrong_byte(begun: bytes) -> None:
    with pytest.raises(ProxyHeaderError):
        HeaderReader().feed(begun)


def test_the_checksum_of_the_standard() -> None:
    assert crc32c(b"123456789") == 0xE3069283


def test_a_checksum_is_held() -> None:
    blank = binary(1, 0x11, ADDRESSES_4 + tlv(3, bytes(4)))
    whole = blank[:-4] + crc32c(blank).to_bytes(4, "big")
    assert read(whole)[0].ends == CLIENT_4
    for at in range(16, 16 + len(ADDRESSES_4)):
        broken = bytearray(whole)
        broken[at] ^= 1
        assert outcome([bytes(broken)])[0] == "sent a PROXY header whose checksum is wrong"


LIKE_HEADERS = st.one_of(
    st.binary(max_size=200),
    st.binary(max_size=60).map(lambda tail: b"PROXY TCP4 " + tail + b"\r\n"),
    st.lists(st.sampled_from([b"PROXY", b"TCP4", b"TCP6", b"::", b"1.2.3.4", b"1", b"65536", b""])).map(
        lambda words: b" ".join(words) + b"\r\n"
    ),
    st.tuples(st.integers(0, 15), st.integers(0, 255), st.binary(max_size=300)).map(
        lambda parts: binary(parts[0] % 3, parts[1], parts[2])
    ),
    st.tuples(st.sampled_from([(0x11, ADDRESSES_4), (0x21, ADDRESSES_6)]), st.binary(max_size=60)).map(
        lambda parts: binary(1, parts[0][0], parts[0][1] + parts[1])
    ),
)


def outcome(pieces: list[bytes]) -> tuple[str, Ends | None, bytes]:
    try:
        reader, rest = read(*pieces)
    except ProxyHeaderError as error:
        return str(error), None, b""
    return ("complete" if reader.complete else "open"), reader.ends, rest


@given(LIKE_HEADERS, st.binary(max_size=8))
@example(b"PROXY UNKNOWN\r\n", b"PROXY ")
@example(binary(1, 0x21, ADDRESSES_6), SIGNATURE[:8])
def test_any_bytes_end_the_same_whole_or_one_at_a_time(data: bytes, behind: bytes) -> None:
    whole = outcome([data + behind])
    assert whole == outcome([bytes((byte,)) for byte in data + behind])
    assert len(whole[2]) <= len(data + behind)


HOSTS = st.one_of(*(st.tuples(st.ip_addresses(v=v), st.ip_addresses(v=v)) for v in (4, 6)))
PORTS = st.tuples(st.integers(0, 65535), st.integers(0, 65535))


@given(HOSTS, PORTS, st.sampled_from([version_1, version_2]))
def test_what_is_written_is_read_again(
    hosts: tuple[IPv4Address | IPv6Address, ...], ports: tuple[int, int], write: Callable[[Ends], bytes]
) -> None:
    written = write(Ends((str(hosts[0]), ports[0]), (str(hosts[1]), ports[1])))
    reader, left = read(written)
    assert left == b""
    assert reader.ends is not None
    assert write(reader.ends) == written
