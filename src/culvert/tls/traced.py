"""An engine that tells a tap of all that passes through it: used while somebody looks, by nobody else.

OpenSSL takes the message callback and its argument over from the context when an SSL is made, so both are set
on the context for that moment alone: the connections beside a traced one never call back. Secrets are told to
the context's callback; it is there as long as a traced engine of the context lives.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterator
from typing import Any, Protocol

from culvert.tls._openssl import ffi, lib
from culvert.tls.engine import RECORD, Engine, Scratch, Status
from culvert.tls.failure import TlsError


class Tap(Protocol):
    """Who is told. No method may raise: OpenSSL is in the middle of its work."""

    def wire(self, data: memoryview, *, sent: bool) -> None:
        """Ciphertext."""

    def spoke(self, kind: int, data: bytes, *, sent: bool) -> None:
        """What SSL_CTX_set_msg_callback(3) says."""

    def read(self, data: bytes) -> None:
        """Plain text of the record that came last."""

    def written(self, data: bytes) -> None:
        """Plain text in the records that were written since `settle`."""

    def secret(self, line: str) -> None:
        """What SSL_CTX_set_keylog_callback(3) says."""

    def settle(self) -> None:
        """The engine's call is over."""


@ffi.callback("void (*)(int, int, int, void *, size_t, SSL *, void *)")  # type: ignore[untyped-decorator]
def _spoke(sent: int, _version: int, kind: int, data: Any, length: int, _ssl: Any, handle: Any) -> None:
    ffi.from_handle(handle).spoke(kind, bytes(ffi.buffer(data, length)), sent=bool(sent))


@contextlib.contextmanager
def listening(context: Any, tap: Tap) -> Iterator[Any]:
    """Have the SSL that is made meanwhile tell `tap`; gives what must be kept as long as the SSL lives."""
    handle = ffi.new_handle(tap)
    lib.SSL_CTX_set_msg_callback(context, _spoke)
    lib.SSL_CTX_set_msg_callback_arg(context, handle)
    try:
        yield handle
    finally:
        lib.SSL_CTX_set_msg_callback(context, ffi.NULL)
        lib.SSL_CTX_set_msg_callback_arg(context, ffi.NULL)


class SecretTaps:
    """The taps of one SSL_CTX's connections, told their secrets beside the key log of the service."""

    def __init__(self, context: Any) -> None:
        self._context = context
        self._taps: dict[int, Tap] = {}
        self._before: Any = ffi.NULL
        self._callback = ffi.callback("void (*)(const SSL *, const char *)", self._tell)

    def add(self, engine: Engine, tap: Tap) -> None:
        """Tell `tap` of this engine's secrets for as long as the engine lives."""
        address = _address(engine.pointer)
        if not self._taps:
            self._before = lib.SSL_CTX_get_keylog_callback(self._context)
            lib.SSL_CTX_set_keylog_callback(self._context, self._callback)
        self._taps[address] = tap
        weakref.finalize(engine, self._remove, address, tap).atexit = False

    def _remove(self, address: int, tap: Tap) -> None:
        if self._taps.get(address) is tap:  # the address may be another SSL's by now
            del self._taps[address]
            if not self._taps:
                lib.SSL_CTX_set_keylog_callback(self._context, self._before)

    def _tell(self, ssl: Any, line: Any) -> None:
        if self._before != ffi.NULL:
            self._before(ssl, line)
        tap = self._taps.get(_address(ssl))
        if tap is not None:
            tap.secret(ffi.string(line).decode("ascii", "replace"))


def _address(ssl: Any) -> int:
    return int(ffi.cast("uintptr_t", ssl))


class TracedEngine(Engine):
    """An engine with a tap."""

    __slots__ = ("_handle", "_tap")

    def __init__(self, ssl: Any, scratch: Scratch, tap: Tap, handle: Any, *, server: bool) -> None:
        """`ssl` was made within `listening`, which gave `handle`."""
        super().__init__(ssl, scratch, server=server)
        self._tap = tap
        self._handle = handle

    def feed(self, count: int) -> None:
        self._tap.wire(memoryview(self.scratch.received)[:count], sent=False)
        super().feed(count)

    def handshake(self) -> bool:
        try:
            return super().handshake()
        finally:
            self._tap.settle()

    def decrypt(self, count: int) -> int:
        self.feed(count)
        return self.drain()

    def first(self, count: int) -> int:
        self.feed(count)
        data = self.read(RECORD)
        self.scratch.transformed[: len(data)] = data
        return len(data)

    def drain(self) -> int:
        """As with any engine, but record by record."""
        parts: list[bytes] = []
        most = len(self.scratch.transformed)
        total = 0
        while total <= most - RECORD and (part := self.read(RECORD)):
            parts.append(part)
            total += len(part)
        if total > most - RECORD:
            self.status = Status.FAILED
            self.failure = TlsError("more plaintext than one read can bring")
        self.scratch.transformed[:total] = b"".join(parts)
        return total

    def read(self, most: int) -> bytes:
        data = super().read(most)
        if data:
            self._tap.read(data)
        if not lib.SSL_pending(self._ssl):  # else there is more of the same record
            self._tap.settle()
        return data

    def encrypt(self, count: int) -> int:
        data = bytes(memoryview(self.scratch.received)[:count])
        output = super().encrypt(count)
        if self.blocked is None:
            self._tap.written(data)
        self._tap.settle()
        return output

    def encrypt_at(self, start: int, count: int) -> int:
        data = bytes(memoryview(self.scratch.received)[start : start + count])
        self.write(start, count)
        if self.blocked is None:
            self._tap.written(data)
        self._tap.settle()
        return self.output()

    def resume(self) -> None:
        data = self.blocked
        super().resume()
        if data is not None and self.blocked is None:
            self._tap.written(data)
        self._tap.settle()

    def output(self) -> int:
        count = super().output()
        self._tap.wire(self.scratch.transformed[:count], sent=True)
        return count

    def close(self) -> None:
        super().close()
        self._tap.settle()
