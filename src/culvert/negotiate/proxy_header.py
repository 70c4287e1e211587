"""PROXY protocol headers (HAProxy's specification, proxy-protocol.txt): versions 1 and 2, to bytes and back.

A header is what a proxy says of its client before the client's own first byte. Writing one needs no more
than the two addresses; `proxy_tls` adds what version 2 can tell of the client's TLS. `HeaderReader` takes
exactly a header's bytes out of a stream, in whatever pieces they come.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from culvert.negotiate.crc32c import crc32c
from culvert.negotiate.script import Ends, NegotiationError

VERSION_1_LIMIT = 107
"""Most bytes of a header of version 1, its CRLF included (section 2.1)."""

VERSION_2_LIMIT = 16 * 1024
"""Most bytes of a header of version 2. Its addresses take 36 of them; the rest are TLVs, of which a client's
certificate is the largest that anybody sends."""

_START_1 = b"PROXY "
_START_2 = b"\r\n\r\n\x00\r\nQUIT\n"
_FIXED_2 = len(_START_2) + 4
_VERSION_2 = 0x20
_LOCAL, _PROXY = 0, 1
_UNSPECIFIED, _INET, _INET6, _UNIX = range(4)
_STREAM = 1
_ADDRESSES_SIZE = {_UNSPECIFIED: 0, _INET: 12, _INET6: 36, _UNIX: 216}
_TYPE_CRC32C = 3
_CRC32C_SIZE = 4

_PORT = re.compile("0|[1-9][0-9]{0,4}")
_LINE_END = b"\r\n"

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_FAMILIES: dict[str, type[_Address]] = {"TCP4": ipaddress.IPv4Address, "TCP6": ipaddress.IPv6Address}


class ProxyHeaderError(NegotiationError):
    """What came is no PROXY header, or a broken one."""


class _Pair(NamedTuple):
    """Source and destination, of one family."""

    addresses: tuple[_Address, _Address]
    ports: tuple[int, int]

    @property
    def version(self) -> int:
        return self.addresses[0].version


def version_1(ends: Ends) -> bytes:
    """The line of version 1; `UNKNOWN` for a client without an address, as on a Unix socket."""
    pair = _pair(ends)
    if pair is None:
        return b"PROXY UNKNOWN\r\n"
    words = (f"PROXY TCP{pair.version}", *map(str, pair.addresses), *map(str, pair.ports))
    return " ".join(words).encode("ascii") + _LINE_END


def version_2(ends: Ends, tlvs: bytes = b"") -> bytes:
    """The header of version 2; LOCAL for a client without an address, which leaves the receiver with ours.

    HAProxy (2.6) sends the same then, and refuses the PROXY command of a family that is not the internet's.
    """
    pair = _pair(ends)
    if pair is None:
        command, family, body = _LOCAL, _UNSPECIFIED, tlvs
    else:
        command, family = _PROXY, (_INET if pair.version == 4 else _INET6) << 4 | _STREAM
        packed = b"".join(address.packed for address in pair.addresses)
        body = packed + b"".join(port.to_bytes(2, "big") for port in pair.ports) + tlvs
    return _START_2 + bytes((_VERSION_2 | command, family)) + len(body).to_bytes(2, "big") + body


def tlv(kind: int, value: bytes) -> bytes:
    """One type, length and value, as they stand behind the addresses of version 2."""
    return bytes((kind,)) + len(value).to_bytes(2, "big") + value


def _pair(ends: Ends) -> _Pair | None:
    if ends.source is None or ends.destination is None:
        return None
    source, destination = _bare(ends.source[0]), _bare(ends.destination[0])
    if source.version != destination.version:
        source, destination = _as_version_6(source), _as_version_6(destination)
    return _Pair((source, destination), (ends.source[1], ends.destination[1]))


def _bare(host: str) -> _Address:
    """An address without its zone; one of IPv4 in IPv6's clothes as what it is (RFC 4291, 2.5.5.2)."""
    address = ipaddress.ip_address(host.partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _as_version_6(address: _Address) -> ipaddress.IPv6Address:
    if isinstance(address, ipaddress.IPv6Address):
        return address
    return ipaddress.IPv6Address(b"\x00" * 10 + b"\xff\xff" + address.packed)


class HeaderReader:
    """Takes one header out of what a proxy sends: `feed` what has come until `complete`.

    `ends` is then what the header says, or None where it leaves the connection's own addresses in force:
    `UNKNOWN`, `LOCAL`, and families that are none of the internet's.
    """

    def __init__(self) -> None:
        self.complete = False
        self.ends: Ends | None = None
        self._taken = bytearray()

    @property
    def wanted(self) -> int:
        """How many bytes it is of use to look at next."""
        return (VERSION_2_LIMIT if self._taken.startswith(_START_2) else VERSION_1_LIMIT) - len(self._taken)

    def feed(self, data: bytes) -> int:
        """Look at more bytes; returns how many of them, from the first on, are the header's.

        To be fed again with what comes behind these. Raises ProxyHeaderError as soon as nothing could make a
        header of it any more.
        """
        before = len(self._taken)
        seen = bytes(self._taken) + data[: self.wanted]
        end = self._end(seen)
        self._taken[:] = seen[:end]
        return len(self._taken) - before

    def _end(self, seen: bytes) -> int:
        """How much of what was seen belongs to the header."""
        if _agree(seen, _START_1):
            return self._end_1(seen)
        if _agree(seen, _START_2):
            return self._end_2(seen)
        raise ProxyHeaderError("sent no PROXY header")

    def _end_1(self, seen: bytes) -> int:
        position = seen.find(b"\n", 0, VERSION_1_LIMIT)
        if position < 0:
            if len(seen) >= VERSION_1_LIMIT:
                raise ProxyHeaderError(f"sent a PROXY header of more than {VERSION_1_LIMIT} bytes")
            return len(seen)
        line = seen[: position + 1]
        if not line.endswith(_LINE_END):
            raise ProxyHeaderError("sent a PROXY header that does not end with CRLF")
        self.ends = _parse_1(line[: -len(_LINE_END)])
        self.complete = True
        return len(line)

    def _end_2(self, seen: bytes) -> int:
        if len(seen) < _FIXED_2:
            return len(seen)
        size = _FIXED_2 + int.from_bytes(seen[_FIXED_2 - 2 : _FIXED_2], "big")
        if size > VERSION_2_LIMIT:
            raise ProxyHeaderError(
                f"sent a PROXY header of {size} bytes: at most {VERSION_2_LIMIT} are taken"
            )
        if len(seen) < size:
            return len(seen)
        self.ends = _parse_2(seen[:size])
        self.complete = True
        return size


def _agree(seen: bytes, start: bytes) -> bool:
    return seen.startswith(start) if len(seen) > len(start) else start.startswith(seen)


def _parse_1(line: bytes) -> Ends | None:
    try:
        words = line.decode("ascii").split(" ")
    except UnicodeError:
        raise ProxyHeaderError("sent a PROXY header that is not ASCII") from None
    if words[1] == "UNKNOWN":
        return None  # what stands behind it is to be ignored (section 2.1)
    kind = _FAMILIES.get(words[1])
    if kind is None or len(words) != 6 or not all(_PORT.fullmatch(port) for port in words[4:]):
        raise ProxyHeaderError("sent a malformed PROXY header of version 1")
    try:
        source, destination = kind(words[2]), kind(words[3])
    except ValueError:
        raise ProxyHeaderError(f"sent a PROXY header whose addresses are not of {words[1]}") from None
    ports = int(words[4]), int(words[5])
    if max(ports) > 65535 or "%" in words[2] + words[3]:
        raise ProxyHeaderError("sent a malformed PROXY header of version 1")
    return _ends(source, destination, ports)


def _parse_2(header: bytes) -> Ends | None:
    version_and_command, family_and_transport = header[len(_START_2) : len(_START_2) + 2]
    command = version_and_command & 0x0F
    if version_and_command & 0xF0 != _VERSION_2 or command not in (_LOCAL, _PROXY):
        raise ProxyHeaderError("sent a PROXY header of an unknown version or command")
    if command == _LOCAL:
        return None  # the proxy's own connection: the rest is to be ignored (section 2.2)
    family, transport = divmod(family_and_transport, 16)
    body = header[_FIXED_2:]
    size = _ADDRESSES_SIZE.get(family)
    if size is None or (family and transport != _STREAM) or len(body) < size:
        raise ProxyHeaderError("sent a malformed PROXY header of version 2")
    _check(header, _FIXED_2 + size)
    if family not in (_INET, _INET6):
        return None
    kind = ipaddress.IPv4Address if family == _INET else ipaddress.IPv6Address
    width = (size - 4) // 2
    source, destination = kind(body[:width]), kind(body[width : 2 * width])
    ports = [int.from_bytes(body[at : at + 2], "big") for at in (size - 4, size - 2)]
    return _ends(source, destination, (ports[0], ports[1]))


def _check(header: bytes, start: int) -> None:
    """Hold that the TLVs are whole, and the checksum among them right, where there is one (section 2.2.3)."""
    for kind, at, size in _tlvs(header, start):
        if kind != _TYPE_CRC32C:
            continue
        if size != _CRC32C_SIZE:
            raise ProxyHeaderError("sent a PROXY header with a malformed checksum")
        blank = header[:at] + bytes(size) + header[at + size :]
        if crc32c(blank) != int.from_bytes(header[at : at + size], "big"):
            raise ProxyHeaderError("sent a PROXY header whose checksum is wrong")


def _tlvs(header: bytes, at: int) -> Iterator[tuple[int, int, int]]:
    """Type, place and size of each value."""
    while at < len(header):
        size = int.from_bytes(header[at + 1 : at + 3], "big")
        if at + 3 + size > len(header):
            raise ProxyHeaderError("sent a PROXY header that breaks off inside its last field")
        yield header[at], at + 3, size
        at += 3 + size


def _ends(source: _Address, destination: _Address, ports: tuple[int, int]) -> Ends:
    rest: tuple[Any, ...] = () if source.version == 4 else (0, 0)
    return Ends((str(source), ports[0], *rest), (str(destination), ports[1], *rest))
