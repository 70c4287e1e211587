"""One TLS connection as bytes in and bytes out: no socket, no loop, no clock, no log.

Model: OpenSSL sits between two memory BIOs. Ciphertext from the peer goes into the incoming one, ciphertext
for the peer comes out of the outgoing one. All connections of a worker share one `Scratch`: whoever reads
a socket fills `scratch.received`; `decrypt` and `encrypt` leave their result in `scratch.transformed`, from
where it must be sent or copied before anything else runs.

Invariants:
- After `decrypt` returns, nothing more can be read until more ciphertext comes: it reads until OpenSSL
  wants more. `transformed` always has room for that, since at most one chunk was fed and less than one
  record was left from before (RFC 8446, 5.2: 2^14 + 256 bytes and a header).
- OpenSSL's error queue is empty whenever a method returns or raises.
- A record's worth of plaintext that OpenSSL would not take (TLS 1.2 renegotiation in progress) is kept
  in `blocked` and retried by `resume`; until then `encrypt` must not be called.

Pitfall: the memory BIOs grow with the largest burst and never shrink; `trim` puts fresh ones in place.
"""

from __future__ import annotations

import enum
import functools
from typing import Any

from culvert.tls._openssl import certificate_der, ffi, lib, text
from culvert.tls.failure import UNEXPECTED_EOF, TlsError, current_failure

CHUNK = 128 * 1024
"""Most bytes that are read from a socket at once, and so the most that a connection holds each way."""

RECORD = 16 * 1024
"""Largest plaintext of a TLS record (RFC 8446, 5.1)."""

_WANT_READ: int = lib.SSL_ERROR_WANT_READ
_ZERO_RETURN: int = lib.SSL_ERROR_ZERO_RETURN
_BIO_read, _BIO_write = lib.BIO_read, lib.BIO_write
_SSL_read, _SSL_write, _SSL_get_error = lib.SSL_read, lib.SSL_write, lib.SSL_get_error
_SSL_do_handshake = lib.SSL_do_handshake
_TRANSFORMED_SIZE = 2 * CHUNK
_LAST_RECORD_AT = _TRANSFORMED_SIZE - RECORD


_VERSIONS: dict[int, str] = {}
"""The names of protocol versions by their numbers, as far as they were met."""


@functools.cache
def _described(cipher: Any) -> tuple[str, int]:
    """A cipher's name and its strength in bits. OpenSSL has each once, for as long as the process lives."""
    return text(lib.SSL_CIPHER_get_name(cipher)) or "unknown", lib.SSL_CIPHER_get_bits(cipher, ffi.NULL)


RENEGOTIATION_FLIGHTS = 6
RENEGOTIATION_PERIOD = 60.0
"""Most flights of renegotiations in so many seconds, of which each takes two. It costs a server what a
handshake does, and a client much less: without a bound it would be a weapon (CVE-2011-1473)."""


class Scratch:
    """The buffers that every connection of one worker shares, because nothing is kept in them."""

    __slots__ = ("received", "received_c", "transformed", "transformed_c")

    def __init__(self) -> None:
        self.received = bytearray(CHUNK)
        self.received_c = ffi.from_buffer(self.received)
        buffer = bytearray(_TRANSFORMED_SIZE)
        self.transformed = memoryview(buffer)
        self.transformed_c = ffi.from_buffer(buffer)


class Status(enum.IntEnum):
    """What the peer's side of the connection has come to."""

    OPEN = 0
    CLOSED = 1
    FAILED = 2


class Engine:
    """The TLS side of one connection. `handshake` until it returns True, then `decrypt` and `encrypt`."""

    __slots__ = (
        "__weakref__",
        "_flights",
        "_flights_since",
        "_incoming",
        "_outgoing",
        "_received",
        "_server",
        "_ssl",
        "_transformed",
        "blocked",
        "failure",
        "scratch",
        "status",
    )

    def __init__(self, ssl: Any, scratch: Scratch, *, server: bool) -> None:
        """`ssl` is an owned SSL that already knows its role; `scratch` is the worker's."""
        self._ssl = ssl
        self._server = server
        self.scratch = scratch
        self._received = scratch.received_c
        self._transformed = scratch.transformed_c
        self._incoming: Any = None
        self._outgoing: Any = None
        self._replace_bios()
        self.status = Status.OPEN
        self.failure: TlsError | None = None
        self.blocked: bytes | None = None
        self._flights = 0
        self._flights_since = 0.0

    def feed(self, count: int) -> None:
        """Take `count` bytes of ciphertext from `scratch.received`, for `handshake` or `read`."""
        _BIO_write(self._incoming, self._received, count)

    def feed_bytes(self, data: bytes | bytearray) -> None:
        """Take ciphertext that was kept from before the handshake."""
        for start in range(0, len(data), CHUNK):
            piece = data[start : start + CHUNK]
            self.scratch.received[: len(piece)] = piece
            self.feed(len(piece))

    def handshake(self) -> bool:
        """Go on with the handshake: True when it is done, False when more must be fed.

        In both cases and after a TlsError there may be `output` for the peer, an alert among it.
        """
        result = _SSL_do_handshake(self._ssl)
        waits = result != 1 and _SSL_get_error(self._ssl, result) == _WANT_READ
        if result == 1 or waits:
            # A certificate's fault that the service goes past leaves its errors behind.
            lib.ERR_clear_error()
            return not waits
        failure = self._failed("handshake failure")
        # Another object than what is kept: a traceback would tie this engine to itself.
        raise TlsError(failure.reason, failure.errors)

    def decrypt(self, count: int) -> int:
        """Take `count` bytes of ciphertext from `scratch.received`; returns how many bytes of plaintext
        now stand in `scratch.transformed`. Look at `status` after it, and send `output`.
        """
        _BIO_write(self._incoming, self._received, count)
        return self.drain()

    def first(self, count: int) -> int:
        """As `decrypt`, but one record alone, so that what it brings can be used before anything else is
        asked of OpenSSL. `drain` must follow before more is fed.
        """
        _BIO_write(self._incoming, self._received, count)
        read: int = _SSL_read(self._ssl, self._transformed, RECORD)
        if read <= 0:
            self._nothing_read(read)
            return 0
        return read

    def drain(self) -> int:
        """Read all plaintext that can be read, as `decrypt` does, without new ciphertext."""
        ssl, target = self._ssl, self._transformed
        total = 0
        while total <= _LAST_RECORD_AT:
            count = _SSL_read(ssl, target + total, RECORD)
            if count <= 0:
                self._nothing_read(count)
                break
            total += count
        else:  # not by what one chunk can bring: going on would lose or overwrite something
            self.status = Status.FAILED
            self.failure = TlsError("more plaintext than one read can bring")
        return total

    def read(self, most: int) -> bytes:
        """At most `most` bytes of plaintext of what was fed: for what is said before the relay begins.

        Empty where there is none; `status` says whether more can come. Send `output` after it.
        """
        count = _SSL_read(self._ssl, self._transformed, most)
        if count > 0:
            return bytes(self.scratch.transformed[:count])
        self._nothing_read(count)
        return b""

    def _nothing_read(self, result: int) -> None:
        """Why SSL_read had no plaintext."""
        reason = _SSL_get_error(self._ssl, result)
        if reason == _ZERO_RETURN:
            self.status = Status.CLOSED
        elif reason != _WANT_READ:
            self._failed("broken record")

    def encrypt(self, count: int) -> int:
        """Encrypt `count` bytes of `scratch.received`; returns how many bytes of ciphertext now stand in
        `scratch.transformed`. Where `blocked` is set after it, call `resume` once the peer has answered.
        """
        self.write(0, count)
        return self.output()

    def encrypt_at(self, start: int, count: int) -> int:
        """As `encrypt`, of the bytes from `start` on."""
        written = _SSL_write(self._ssl, self._received + start, count)
        if written != count:
            self._not_written(start, count, written)
        ready: int = _BIO_read(self._outgoing, self._transformed, _TRANSFORMED_SIZE)
        return max(ready, 0)

    def write(self, start: int, count: int) -> None:
        """Encrypt `count` bytes of `scratch.received` from `start` on, for `output`; see `encrypt`."""
        written = _SSL_write(self._ssl, self._received + start, count)
        if written != count:
            self._not_written(start, count, written)

    def _not_written(self, start: int, count: int, result: int) -> None:
        if _SSL_get_error(self._ssl, result) == _WANT_READ:
            self.blocked = bytes(ffi.buffer(self._received + start, count))
        else:
            self._failed("cannot write a record")

    def resume(self) -> None:
        """Retry the plaintext in `blocked`; it stays there if OpenSSL still waits for the peer."""
        if self.blocked is None:
            return
        written = _SSL_write(self._ssl, self.blocked, len(self.blocked))
        if written == len(self.blocked):
            self.blocked = None
        elif _SSL_get_error(self._ssl, written) != _WANT_READ:
            self._failed("cannot write a record")

    def output(self) -> int:
        """How many bytes for the peer now stand in `scratch.transformed`; 0 if there are none."""
        count: int = _BIO_read(self._outgoing, self._transformed, _TRANSFORMED_SIZE)
        return max(count, 0)

    def may_answer(self, now: float) -> bool:
        """Whether output that reading has made may be sent: below TLS 1.3 it is an alert, or a flight of a
        renegotiation, and the engine fails where these come without end. `now`: a monotonic clock's seconds.
        """
        if lib.SSL_version(self._ssl) == lib.TLS1_3_VERSION:
            return True
        if now - self._flights_since > RENEGOTIATION_PERIOD:
            self._flights, self._flights_since = 0, now
        self._flights += 1
        if self._flights <= RENEGOTIATION_FLIGHTS:
            return True
        self.status = Status.FAILED
        self.failure = self.failure or TlsError("the peer renegotiates again and again")
        return False

    def close(self) -> None:
        """Queue a close_notify for the peer (RFC 8446, 6.1); nothing can be encrypted after it."""
        if self.status is not Status.FAILED and lib.SSL_shutdown(self._ssl) < 0:
            lib.ERR_clear_error()

    def end_of_stream(self) -> TlsError:
        """The error to report when the peer's stream ended in the middle of a handshake."""
        return TlsError(UNEXPECTED_EOF)

    def trim(self) -> None:
        """Give back what a burst made the BIOs grow by. `output` must have been taken."""
        left = _BIO_read(self._incoming, self._transformed, _TRANSFORMED_SIZE)
        self._replace_bios()
        if left > 0:
            _BIO_write(self._incoming, self._transformed, left)

    @property
    def output_can_wait(self) -> bool:
        """Whether the `output` at the end of this handshake is nothing that the peer waits for.

        A TLS 1.3 server ends with session tickets (RFC 8446, 4.6.1): they may go with its first data.
        """
        return self._server and lib.SSL_version(self._ssl) == lib.TLS1_3_VERSION

    @property
    def resumed(self) -> bool:
        return bool(lib.SSL_session_reused(self._ssl))

    @property
    def version(self) -> str:
        """The protocol's name as OpenSSL writes it, such as TLSv1.3."""
        number = lib.SSL_version(self._ssl)
        if number not in _VERSIONS:
            _VERSIONS[number] = text(lib.SSL_get_version(self._ssl)) or "unknown"
        return _VERSIONS[number]

    @property
    def cipher(self) -> tuple[str, int]:
        """The cipher's name and its strength in bits."""
        cipher = lib.SSL_get_current_cipher(self._ssl)
        return _described(cipher) if cipher != ffi.NULL else ("none", 0)

    @property
    def group(self) -> str | None:
        """The key exchange group's name; None where none was used (a resumed TLS 1.2 session)."""
        name = text(lib.SSL_get0_group_name(self._ssl))
        lib.ERR_clear_error()
        return name

    @property
    def server_name(self) -> str | None:
        """The host that the client asked for (RFC 6066, 3), in lower case; None where it named none."""
        name = lib.SSL_get_servername(self._ssl, lib.TLSEXT_NAMETYPE_host_name)
        if name == ffi.NULL:
            return None
        found: bytes = ffi.string(name)
        return found.decode("ascii").lower() if found.isascii() else None

    @property
    def protocol(self) -> str | None:
        """The application protocol that was negotiated (RFC 7301); None where none was."""
        name, size = ffi.new("const unsigned char **"), ffi.new("unsigned int *")
        lib.SSL_get0_alpn_selected(self._ssl, name, size)
        return bytes(ffi.buffer(name[0], size[0])).decode("ascii", "replace") if size[0] else None

    def peer_certificate(self) -> bytes | None:
        """The peer's certificate in DER; None where it showed none."""
        x509 = lib.SSL_get_peer_certificate(self._ssl)
        if x509 == ffi.NULL:
            return None
        return certificate_der(ffi.gc(x509, lib.X509_free))

    @property
    def pointer(self) -> Any:
        """The SSL itself, for the modules of this package."""
        return self._ssl

    def _replace_bios(self) -> None:
        self._incoming = lib.BIO_new(lib.BIO_s_mem())
        self._outgoing = lib.BIO_new(lib.BIO_s_mem())
        lib.SSL_set_bio(self._ssl, self._incoming, self._outgoing)

    def _failed(self, otherwise: str) -> TlsError:
        self.status = Status.FAILED
        self.failure = current_failure(otherwise)
        return self.failure
