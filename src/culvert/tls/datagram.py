"""One DTLS 1.2 connection as datagrams in and datagrams out: no socket, no loop, no log.

Model: as in `engine`, OpenSSL sits between two memory BIOs. These keep no datagram's end, so whatever is
fed is dealt with before anything else is fed, and each record is taken out as soon as it was written; only
a handshake's flight stands there as several records, which say their own lengths.

Records that were tampered with, replayed or late by more than OpenSSL's window of 64 are dropped without a
word (RFC 6347, 4.1.2.6 and 4.1.2.7). In the handshake, OpenSSL retransmits by its own clock: `timeout` says
when, `expire` does it.

Pitfall: OpenSSL reads one record at a time, and takes the next datagram in when it has read the last one to
its end. A peer that puts several records into each of its datagrams would let what waits grow without end:
`settle` after each batch throws away what stands behind the first.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from culvert.tls._openssl import ffi, lib
from culvert.tls.engine import Engine, Scratch, Status

HEADER = 13
"""Bytes in front of a record: type, version, epoch, sequence number, length (RFC 6347, 4.1)."""

FLIGHT_MOST = 128 * 1024
"""Longest flight of a handshake: long certificate chains are below 100 kB."""

APPLICATION_DATA = b"\x17\xfe\xfd"
"""How a record with data begins: its type, and DTLS 1.2."""

HANDSHAKE_MOST = 1200
"""Largest datagram of a handshake: it fits every path that carries IPv6 (RFC 8200, 5)."""

DATAGRAM_MOST = 65535
"""Longest that a datagram can be, or several that the kernel hands over as one."""

_PLAINTEXT = 16 * 1024
_SETTLE_LIMIT = 1024
"""More records than the largest datagram can hold: the loop that throws them away has an end."""

_RECORD_MOST = _PLAINTEXT + 512
"""Longest record: its header, and what encryption adds (RFC 6347, 4.1.1.1)."""

_NOTHING_LEFT = (0, 0)
_BIO_read, _BIO_write = lib.BIO_read, lib.BIO_write
_SSL_read, _SSL_write = lib.SSL_read, lib.SSL_write


class DatagramScratch:
    """The buffers that all DTLS connections of a process share: datagrams as they came (`arrived`), their
    plaintext (`opened`), and datagrams to send (`sealed`). What is to be sealed stands in `scratch.received`.
    """

    __slots__ = ("arrived", "arrived_c", "flight_c", "opened", "opened_c", "scratch", "sealed", "sealed_c")

    def __init__(self, scratch: Scratch) -> None:
        self.scratch = scratch
        self.arrived = bytearray(DATAGRAM_MOST + 1)
        self.arrived_c = ffi.from_buffer(self.arrived)
        self.opened = bytearray(2 * DATAGRAM_MOST + 2 * _PLAINTEXT)
        self.opened_c = ffi.from_buffer(self.opened)
        self.sealed = bytearray(2 * DATAGRAM_MOST)
        self.sealed_c = ffi.from_buffer(self.sealed)
        self.flight_c = ffi.new("char[]", FLIGHT_MOST)


class DatagramEngine(Engine):
    """The DTLS side of one connection. `handshake` after each `feed` until it returns True, and after each
    `expire`; then `seal` and `unseal`. Send all `datagrams` after each of them but `seal`.
    """

    __slots__ = ("_arrived", "_flight", "_microseconds", "_opened", "_sealed", "_sealed_buffer", "_seconds")

    def __init__(self, ssl: Any, buffers: DatagramScratch, *, server: bool) -> None:
        super().__init__(ssl, buffers.scratch, server=server)
        lib.SSL_set_mtu(ssl, HANDSHAKE_MOST)
        self._arrived, self._opened = buffers.arrived_c, buffers.opened_c
        self._sealed, self._flight = buffers.sealed_c, buffers.flight_c
        self._sealed_buffer = buffers.sealed
        self._seconds, self._microseconds = ffi.new("time_t *"), ffi.new("long *")

    def feed(self, count: int, start: int = 0) -> None:
        """Take the datagram of `count` bytes at `start` of `arrived`, for `handshake`."""
        _BIO_write(self._incoming, self._arrived + start, count)

    def seal(self, start: int, count: int, at: int) -> int:
        """Make one record of the `count` bytes at `start` of `scratch.received`; returns how long the record
        is that now stands at `at` of `sealed`. 0 where there is none: see `status`.
        """
        if _SSL_write(self._ssl, self._received + start, count) != count:
            self._failed("cannot write a record")
            return 0
        length: int = _BIO_read(self._outgoing, self._sealed + at, _RECORD_MOST)
        return length

    def seal_run(self, cuts: Iterator[tuple[int, int]], at: int, ahead: bytes) -> tuple[int, int, bool]:
        """Make a record of each piece of `scratch.received`, given as its start and its length, one behind
        the other from `at` of `sealed` on, each with `ahead` in front; all but the last are of one length.
        As many as there is room for: the others are left in `cuts`.

        Returns where they end, how long the first is with what stands in front, and whether some may be left.
        That length is 0 where there is none, be it for a failure: see `status`.
        """
        ssl, source, target, outgoing = self._ssl, self._received, self._sealed, self._outgoing
        buffer, skip, begin, size = self._sealed_buffer, len(ahead), at, 0
        last = len(buffer) - skip - _RECORD_MOST
        while at <= last:
            start, count = next(cuts, _NOTHING_LEFT)
            if not count:
                return at, size, False
            if _SSL_write(ssl, source + start, count) != count:
                self._failed("cannot write a record")
                return begin, 0, False
            if skip:
                buffer[at : at + skip] = ahead
            at += skip + _BIO_read(outgoing, target + (at + skip), _RECORD_MOST)
            size = size or at - begin
        return at, size, True

    def seal_bytes(self, data: bytes, at: int) -> int:
        """As `seal`, of data that stands by itself."""
        if _SSL_write(self._ssl, data, len(data)) != len(data):
            self._failed("cannot write a record")
            return 0
        length: int = _BIO_read(self._outgoing, self._sealed + at, _RECORD_MOST)
        return length

    def unseal(self, start: int, count: int, at: int) -> int:
        """Take the datagram of `count` bytes at `start` of `arrived`; returns how many bytes of its record's
        plaintext now stand at `at` of `opened`.

        0 where it is nothing that can be read: a record that is dropped, of a handshake, an alert. Then look
        at `status` and send `datagrams`.
        """
        _BIO_write(self._incoming, self._arrived + start, count)
        length: int = _SSL_read(self._ssl, self._opened + at, _PLAINTEXT)
        if length > 0:
            return length
        self._ended(length)
        return 0

    def settle(self, at: int) -> int:
        """Throw away what the datagrams of a batch held behind their first records; returns how many records
        that were. `at` is where `opened` is free.
        """
        for thrown_away in range(_SETTLE_LIMIT):
            length = _SSL_read(self._ssl, self._opened + at, _PLAINTEXT)
            if length <= 0:
                self._ended(length)
                return thrown_away
        return _SETTLE_LIMIT

    def datagrams(self, most: int = HANDSHAKE_MOST) -> list[bytes]:
        """What there is for the peer besides data: a flight of the handshake, an alert. None is longer than
        `most`, but for one whose only record is.
        """
        count = _BIO_read(self._outgoing, self._flight, FLIGHT_MOST)
        return packed(bytes(ffi.buffer(self._flight, count)), most) if count > 0 else []

    def timeout(self) -> float | None:
        """In how many seconds `expire` is due; None where nothing waits for an answer."""
        if not lib.Cryptography_DTLSv1_get_timeout(self._ssl, self._seconds, self._microseconds):
            return None
        return float(self._seconds[0] + self._microseconds[0] / 1_000_000)

    def expire(self) -> None:
        """Send the last flight again, if it is time. After many times `handshake` raises TlsError."""
        if lib.DTLSv1_handle_timeout(self._ssl) < 0:
            self._failed("no answer in the handshake")

    def leftover(self) -> bool:
        """Whether OpenSSL has left something of what it was fed. It is gone with this call."""
        found: int = _BIO_read(self._incoming, self._flight, FLIGHT_MOST)
        return found > 0

    def capacity(self, datagram: int) -> int:
        """How many bytes of data a record of at most `datagram` bytes has room for, by the cipher in use."""
        lib.SSL_set_mtu(self._ssl, datagram)
        room: int = lib.DTLS_get_data_mtu(self._ssl)
        lib.SSL_set_mtu(self._ssl, HANDSHAKE_MOST)
        return room

    def _ended(self, result: int) -> None:
        reason = lib.SSL_get_error(self._ssl, result)
        if reason == lib.SSL_ERROR_ZERO_RETURN:
            self.status = Status.CLOSED
        elif reason != lib.SSL_ERROR_WANT_READ:
            self._failed("broken record")


def packed(records: bytes, most: int) -> list[bytes]:
    """Whole records as datagrams of at most `most` bytes, as many in each as there is room for.

    A record that is longer has a datagram for itself; what is no whole record, which OpenSSL never writes, is
    left out.
    """
    found: list[bytes] = []
    start = position = 0
    while position + HEADER <= len(records):
        end = position + HEADER + int.from_bytes(records[position + 11 : position + 13], "big")
        if end > len(records):
            break
        if end - start > most and position > start:
            found.append(records[start:position])
            start = position
        position = end
    if position > start:
        found.append(records[start:position])
    return found
