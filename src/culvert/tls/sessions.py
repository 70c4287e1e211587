"""The client's sessions for resumption: the newest one for each target, bounded in number and in age."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Any

from culvert.tls._openssl import ffi, lib
from culvert.tls.engine import Engine


class SessionCache:
    """Sessions by target. Times come in as seconds of any one monotonic clock."""

    def __init__(self, limit: int, lifetime: float) -> None:
        self._limit = limit
        self._lifetime = lifetime
        self._sessions: OrderedDict[Hashable, tuple[float, Any]] = OrderedDict()

    def offer(self, target: Hashable, engine: Engine, now: float) -> None:
        """Let the handshake that is about to begin offer the session of an earlier connection, if any."""
        entry = self._sessions.get(target)
        if entry is None:
            return
        if now - entry[0] > self._lifetime:
            del self._sessions[target]
        elif not lib.SSL_set_session(engine.pointer, entry[1]):
            lib.ERR_clear_error()

    def forget(self, target: Hashable) -> None:
        """Keep nothing of the target: the next handshake with it is a full one."""
        self._sessions.pop(target, None)

    def remember(self, target: Hashable, engine: Engine, now: float) -> None:
        """Keep the connection's session; in TLS 1.3 it comes after the handshake (RFC 8446, 4.6.1)."""
        session = lib.SSL_get1_session(engine.pointer)
        if session == ffi.NULL:
            return
        self._sessions[target] = (now, ffi.gc(session, lib.SSL_SESSION_free))
        self._sessions.move_to_end(target)
        while len(self._sessions) > self._limit:
            self._sessions.popitem(last=False)
