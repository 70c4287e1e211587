"""Connecting to targets that clients ask for, where these are permitted.

What is connected to is the address that was judged: a name is not looked up twice, for its owner may answer
differently the second time.
"""

from __future__ import annotations

import socket

from culvert.address import HostPort
from culvert.config.model import Service
from culvert.errors import BackendError, ConnectError, Unreached
from culvert.log import Channel
from culvert.negotiate.socks_targets import SocksTargets
from culvert.own_addresses import is_own
from culvert.resolve import SocketAddress
from culvert.targets import Connector, Endpoint, Source


class RequestedTargets:
    """The way to wherever the clients of one service want to go."""

    def __init__(self, service: Service, connector: Connector) -> None:
        self._connector = connector
        self._permitted = SocksTargets(service.socks_allow)

    async def connect(
        self, target: HostPort, log: Channel, source: Source | None = None
    ) -> tuple[socket.socket, Endpoint]:
        """A connected non-blocking socket and where it leads, within TIMEOUTconnect. Raises ConnectError."""
        host, port = target.host or "", int(target.port)

        def permit(sockaddr: SocketAddress) -> None:
            address = str(sockaddr[0])
            refusal = self._permitted.refusal(host, address, port, own=is_own(tuple(sockaddr)))
            if refusal is not None:
                raise BackendError(refusal)

        impossible = self._permitted.refusal_of_name(host, port)
        if impossible is not None:
            raise ConnectError(impossible, Unreached.FORBIDDEN)
        return await self._connector.connect_to(target, permit, log, source)
