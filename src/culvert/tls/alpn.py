"""Application-layer protocol negotiation (RFC 7301): what a client offers and what a server chooses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from culvert.tls._openssl import ffi, lib

_SIGNATURE = "int(SSL *, unsigned char **, unsigned char *, const unsigned char *, unsigned int, void *)"


def choose(preferred: Sequence[bytes], offered: bytes) -> bytes | None:
    """The first of `preferred` that the client offers; None where there is none.

    `offered` is a ProtocolNameList without its length (RFC 7301, 3.1). Raises ValueError where it is none.
    """
    names = set()
    position = 0
    while position < len(offered):
        end = position + 1 + offered[position]
        if end == position + 1 or end > len(offered):
            raise ValueError("not a list of protocol names")
        names.add(offered[position + 1 : end])
        position = end
    return next((name for name in preferred if name in names), None)


def offer(context: Any, protocols: Sequence[str]) -> None:
    """Let the connections of a client's SSL_CTX offer these protocols, the preferred one first."""
    names = [name.encode("ascii") for name in protocols]
    wire = b"".join(bytes((len(name),)) + name for name in names)
    # This call, unlike the others, gives 0 for success (SSL_CTX_set_alpn_protos(3)).
    if lib.SSL_CTX_set_alpn_protos(context, wire, len(wire)):
        raise MemoryError("no memory for the list of protocols")


def answer(context: Any, protocols: Sequence[str]) -> Any:
    """Let the connections of a server's SSL_CTX choose the first of these that the client offers.

    Where there is none, the handshake ends with the alert no_application_protocol (RFC 7301, 3.2); a client
    that offers no protocols at all gets none. Keep the result for as long as the SSL_CTX lives.
    """
    # What `out` points to is read after the callback has returned.
    lasting = {name.encode("ascii"): ffi.new("unsigned char[]", name.encode("ascii")) for name in protocols}

    def select(_ssl: Any, out: Any, size: Any, offered: Any, length: int, _argument: Any) -> int:
        name = choose(tuple(lasting), bytes(ffi.buffer(offered, length)))
        if name is None:
            return int(lib.SSL_TLSEXT_ERR_ALERT_FATAL)
        out[0], size[0] = lasting[name], len(name)
        return int(lib.SSL_TLSEXT_ERR_OK)

    callback = ffi.callback(_SIGNATURE, select, error=lib.SSL_TLSEXT_ERR_ALERT_FATAL)
    lib.SSL_CTX_set_alpn_select_cb(context, callback, ffi.NULL)
    return callback
