"""Names to socket addresses, with one kind of failure."""

from __future__ import annotations

import socket
from typing import Any

InternetAddress = tuple[Any, ...]
SocketAddress = InternetAddress | str
"""What `connect` and `bind` take: a tuple for the internet families, a path for Unix sockets."""


def resolve(host: str, port: int | str, *, passive: bool = False) -> list[tuple[int, InternetAddress]]:
    """The families and addresses of a stream endpoint, in the system's order (getaddrinfo(3)).

    `passive` is for addresses to listen on. Raises OSError, also for what cannot be a host name at all.
    """
    flags = socket.AI_PASSIVE if passive else 0
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
    except ValueError:  # a NUL in it, or of the idna codec: an empty label, one of more than 63 characters
        raise socket.gaierror(socket.EAI_NONAME, "This cannot be a host name") from None
    except socket.gaierror as error:
        if error.errno == socket.EAI_SERVICE:
            raise socket.gaierror(error.errno, f"/etc/services has no port named {port}") from None
        raise
    return [(int(family), sockaddr) for family, _, _, _, sockaddr in found]
