"""A VPN service in its process: its interface, its part, and the links that connections make for it."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from cryptography import x509
from cryptography.x509.oid import NameOID

from culvert import capabilities
from culvert.address import IpAddress, show, unwrapped
from culvert.config.model import Service
from culvert.errors import ConfigurationError, os_reason
from culvert.log import Channel
from culvert.readiness import Readiness
from culvert.stream import Stream
from culvert.tls.engine import Engine
from culvert.tls.names import alternative_names
from culvert.turn import Turn
from culvert.vpn import device
from culvert.vpn.client_part import ClientPart, Outside
from culvert.vpn.datagram.link import DatagramLink
from culvert.vpn.datagram.udp import Way
from culvert.vpn.device import DeviceError, Offload
from culvert.vpn.hub import Hub
from culvert.vpn.network import NetworkError, Routing
from culvert.vpn.server_part import ServerPart
from culvert.vpn.session import Peer
from culvert.vpn.stream_link import StreamLink

TURN_PAUSE = 0.05
"""Seconds between looks whether the process of before a reload has let go of the interface."""

LAST_WORDS = 0.2
"""Seconds for what was told to peers to leave."""

LOST = 3
"""Exit status of a process that cannot have its interface, or has lost it: that of a start that failed."""


class Tunnel:
    """The VPN of one service. `start` it; it says `opened` once there is an interface."""

    def __init__(self, service: Service, hub: Hub, readiness: Readiness, log: Channel) -> None:
        self._service = service
        self._config = hub.config
        self._readiness = readiness
        self._log = log
        self._loop = readiness.loop
        self._hub = hub
        hub.on_resume = self._check_renewal
        hub.on_lost = self._lose
        self._fd = -1
        self._routing: Routing | None = None
        self._offload = Offload.NONE
        self._part: ServerPart | ClientPart
        self._opened: Callable[[], None] = lambda: None
        self.on_met: Callable[[], None] = lambda: None
        self.on_unanswered: Callable[[], None] = lambda: None
        """Called when a client's link ends because nothing is answered over datagrams any more."""
        self.on_gone: Callable[[], None] = lambda: None
        """Called when the interface was removed: nobody is to be let in any more."""
        self.on_due: Callable[[], None] = lambda: None
        """Called when it is time for a client's link with new keys."""
        self.targets: Callable[[], Iterable[IpAddress]] = lambda: ()
        """The addresses that are known of a client's targets."""

    @property
    def hub(self) -> Hub:
        """The interface and the sessions."""
        return self._hub

    def start(self, clone: int, turn: Turn, opened: Callable[[], None]) -> asyncio.Task[None] | None:
        """Have the interface made of the descriptor `clone`, and call `opened`.

        Where the process of before a reload has it still, a task waits for its turn. Raises
        ConfigurationError where it cannot be had.
        """
        self._opened = opened
        if not turn.take():
            return self._loop.create_task(self._wait(clone, turn))
        try:
            self._open(clone)
        except (DeviceError, NetworkError) as error:
            raise ConfigurationError.single(str(error), self._service.where("tun")) from None
        opened()
        return None

    async def _wait(self, clone: int, turn: Turn) -> None:
        while not turn.take():
            await asyncio.sleep(TURN_PAUSE)
        try:
            self._open(clone)
        except (DeviceError, NetworkError) as error:
            # Its successors try again, at growing intervals: what is half set up goes with the process.
            self._log.error(f"VPN: {error}")
            os._exit(LOST)
        self._opened()

    def _open(self, clone: int) -> None:
        """Make the interface and set it up. Raises DeviceError and NetworkError."""
        config = self._config
        self._offload = device.create(clone, config.device, device.ALL if config.offload else Offload.NONE)
        routing = Routing(config.device)
        part = self._make_part(routing)
        try:
            part.prepare()
        except NetworkError:
            routing.close()
            raise
        self._fd, self._routing, self._part = clone, routing, part
        self._hub.open(clone)
        if isinstance(part, ServerPart) and not config.accept:
            capabilities.relinquish(capabilities.CAP_NET_ADMIN)  # it is done: nothing is set from now on
        addresses = ", ".join(map(str, config.addresses)) or "an address that the server gives"
        self._log.info(
            f"Service [{self._service.name}] has the interface {config.device} with {addresses}, "
            f"packets up to {part.mtu} bytes, {'offload' if self._offload else 'no offload'}"
        )

    def _make_part(self, routing: Routing) -> ServerPart | ClientPart:
        if not self._service.client:
            return ServerPart(self._config, self._hub, routing)
        bound = any(
            one.target == "r" and one.name == "SO_BINDTODEVICE" for one in self._service.socket_options
        )
        outside = Outside(lambda: self.targets(), bound)  # noqa: PLW0108  of the day
        part = ClientPart(self._config, self._hub, routing, outside)
        part.on_met = lambda: self.on_met()  # noqa: PLW0108  of the day
        return part

    def _check_renewal(self) -> None:
        uplink = self._part.uplink if isinstance(self._part, ClientPart) else None
        if uplink is not None and uplink.due:
            self.on_due()

    def link(
        self, engine: Engine, stream: Stream, shown: str, certificate: bytes | None, log: Channel
    ) -> StreamLink:
        """The link over a connection that has shaken hands; to be run to its end.

        The peer is called `shown` in the log; `certificate` is its own in DER, if one was verified.
        """
        link = StreamLink(self._readiness, engine, stream)
        names = names_of(certificate) if certificate is not None else ()
        session = self._hub.session(self._part, link, Peer(shown, names, _outer(stream)), log)
        session.expires = not self._service.client
        link.attach(session)
        session.begin(self._config.keepalive)
        return link

    def associate(self, link: DatagramLink, shown: str, certificate: bytes | None, log: Channel) -> None:
        """Have a session over datagrams, as `link` makes one over a stream."""
        names = names_of(certificate) if certificate is not None else ()
        outer = unwrapped(link.way.peer[0])
        session = self._hub.session(self._part, link, Peer(shown, names, outer), log)
        session.expires = not self._service.client
        link.attach(session)
        link.on_path = lambda: self._part.path_changed(session)
        told = link.on_move

        def moved(way: Way) -> None:
            session.peer = replace(session.peer, shown=show(way.peer), outer=unwrapped(way.peer[0]))
            told(way)

        link.on_move = moved
        session.begin(self._config.keepalive)

    def lines(self) -> Iterator[str]:
        """What goes on, for the list of connections."""
        yield f"VPN {self._config.device}: {self._hub.tally}"
        known = self._hub.directory.items()
        for network, session in ((network, one) for network, one in known if one is not None):
            peer, way = session.peer.shown, session.transport.name
            yield f"VPN {self._config.device}: {network} is {peer} over {way}"

    def _lose(self, error: OSError) -> None:
        """End the process, which without its interface is of no use: its successor makes another one."""
        self._log.error(f"VPN: the interface {self._config.device} is gone: {os_reason(error)}")
        for session in tuple(self._hub.sessions):
            session.part("the interface is gone")
        self.on_gone()
        self._loop.call_later(LAST_WORDS, os._exit, LOST)


def names_of(certificate: bytes) -> tuple[str, ...]:
    """The names by which `tunClient` may know a certificate: its common names and its DNS names."""
    leaf = x509.load_der_x509_certificate(certificate)
    try:
        common = leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        names = [str(attribute.value) for attribute in common]
        names += alternative_names(leaf).get_values_for_type(x509.DNSName)
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
        return ()
    return tuple(names)


def _outer(stream: Stream) -> IpAddress | None:
    """Where the other end of the link is; None where that has no address."""
    if not isinstance(stream, socket.socket):
        return None
    try:
        return unwrapped(stream.getpeername()[0])
    except (OSError, ValueError, IndexError):
        return None
