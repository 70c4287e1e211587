"""The demo's TLS-aware server that is not Culvert: an echo on the standard library's `ssl` module.

    python -m culvert.cli.demo.foreign CERTIFICATE

Its port, chosen by the kernel, is the first line on standard output. It serves until its standard input
ends, so that it cannot outlive the demo that holds the other end.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import sys
import threading

_TIME_LIMIT = 30.0


def serve(certificate: str) -> None:
    """Announce the port and answer until standard input ends."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        print(listener.getsockname()[1], flush=True)
        threading.Thread(target=_accept, args=(listener, context), daemon=True).start()
        sys.stdin.read()


def _accept(listener: socket.socket, context: ssl.SSLContext) -> None:
    while True:
        try:
            client, _ = listener.accept()
        except OSError:
            return
        client.settimeout(_TIME_LIMIT)
        # A client that refuses the certificate ends its connection, not the server.
        with client, contextlib.suppress(OSError), context.wrap_socket(client, server_side=True) as tls:
            while data := tls.recv(4096):
                tls.sendall(data)
            tls.unwrap()


if __name__ == "__main__":
    serve(sys.argv[1])
