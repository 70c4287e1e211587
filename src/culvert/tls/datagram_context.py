"""The context of a service's DTLS connections: the same identities, ciphers and verdicts as over TLS."""

from __future__ import annotations

import time
from typing import Any

from OpenSSL import SSL

from culvert.config.model import Service
from culvert.tls._openssl import ffi, lib
from culvert.tls.context import TlsContext
from culvert.tls.cookies import CookieCallbacks, Cookies
from culvert.tls.credentials import PassPhrases
from culvert.tls.datagram import DatagramEngine, DatagramScratch
from culvert.tls.failure import take_errors

DTLS1_2 = 0xFEFD
"""DTLS 1.2 by its number on the wire (RFC 6347, 4.1), the only version that is spoken."""

_NO_RENEGOTIATION = 1 << 30
_NO_TICKET = 1 << 14

_HELLO_MOST = 4096
"""Longest datagram that is looked at for a ClientHello, which must come in one."""


class DatagramContext(TlsContext):
    """Makes the DTLS engines of one service's connections, and knows what was found of their peers.

    Sessions are not resumed: each handshake proves anew who the peer is, and long connections are followed by
    new ones for that purpose.
    """

    def __init__(self, service: Service, phrases: PassPhrases) -> None:
        """Read every file and set every option. Raises ConfigurationError."""
        super().__init__(service, phrases)
        self._cookies = Cookies(time.monotonic())
        self._callbacks = CookieCallbacks(self._pointer, self._cookies)
        self._doorstep: DatagramEngine | None = None

    def datagram_engine(self, buffers: DatagramScratch, server_name: str | None = None) -> DatagramEngine:
        """The engine of a new connection. A server's come by `greet`."""
        return DatagramEngine(self._new_connection(server_name), buffers, server=not self._service.client)

    def greet(
        self, start: int, count: int, whose: bytes, buffers: DatagramScratch, now: float
    ) -> bytes | DatagramEngine:
        """Answer the datagram of `count` bytes at `start` of `arrived`, from somebody not known yet.

        Where it is a ClientHello without a valid cookie, that is the datagram to send back, which is shorter
        than what came; else it is empty. Where the cookie is that of `whose`, an address with all that is
        to be bound to it, it is the engine for a new connection: go on with its `handshake`. Nothing is
        kept until then. `now` is of the monotonic clock.
        """
        engine = self._doorstep
        if engine is None:
            engine = self._doorstep = self.datagram_engine(buffers)
        if not 0 < count <= _HELLO_MOST:
            return b""
        self._cookies.turn(now)
        self._callbacks.whose = whose
        engine.feed(count, start)
        result = lib.DTLSv1_listen(engine.pointer, _nowhere())
        self._callbacks.whose = None
        if result == 1:
            self._doorstep = None
            return engine
        take_errors()
        answer = b"".join(engine.datagrams())
        if result < 0 or engine.leftover():
            self._doorstep = None
        return answer if len(answer) <= count else b""

    def _method(self) -> int:
        return SSL.DTLS_CLIENT_METHOD if self._service.client else SSL.DTLS_SERVER_METHOD

    def _set_modes(self) -> None:
        # Record buffers are kept: connections are few, and giving them back costs each packet an allocation.
        lib.SSL_CTX_clear_mode(self._pointer, lib.SSL_MODE_ENABLE_PARTIAL_WRITE)
        lib.SSL_CTX_set_mode(self._pointer, lib.SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER)

    def _set_versions(self) -> None:
        self._context.set_min_proto_version(DTLS1_2)
        self._context.set_max_proto_version(DTLS1_2)
        wanted = _NO_RENEGOTIATION | lib.SSL_OP_NO_QUERY_MTU
        self._context.set_options(wanted | (0 if self._service.client else lib.SSL_OP_COOKIE_EXCHANGE))

    def _set_sessions(self) -> None:
        self._context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        self._context.set_options(_NO_TICKET)


def made(service: Service, phrases: PassPhrases) -> DatagramContext | None:
    """The context of a service that takes datagrams; None for another. Raises ConfigurationError."""
    if service.vpn is None or not service.vpn.datagrams:
        return None
    return DatagramContext(service, phrases)


def _nowhere() -> Any:
    """The place for an address that a memory BIO does not give, and DTLSv1_listen asks for."""
    return ffi.gc(lib.BIO_ADDR_new(), lib.BIO_ADDR_free)
