"""A VPN at work: the interface on one side, the sessions of its peers on the other.

The hot path is here. A packet of the interface is read into the process's `Scratch`, its destination says
whose it is, and that one's transport encrypts it where it stands. A packet that has come is inspected, held
against what its sender may send, and written to the interface from where it was decrypted.

A destination that is nobody's is dropped, and so is what a busy link has no room for: as a router does it.
With one session alone the interface is not read meanwhile, so that the kernel holds the senders back.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import os
from collections.abc import Callable
from typing import Protocol

from culvert.config.vpn import Network, Vpn
from culvert.log import Channel
from culvert.tls.engine import Scratch
from culvert.vpn.directory import Directory
from culvert.vpn.icmp import QUOTED, unreachable
from culvert.vpn.session import Part, Peer, Session
from culvert.vpn.tally import IN, OUT, Drop, Tally
from culvert.vpn.transport import HEADROOM, PACKET_LIMIT, VIRTIO, Transport
from culvert.vpn.virtio import NO_HEADER, PacketError, inspect

BATCH = 32
"""Packets that are read from the interface for one readiness event: then it is the peers' turn."""

PASSED_LIMIT = 4096
"""Pairs of addresses that are kept as permitted, for each session."""

UNREACHABLE_PAUSE = 0.02
"""Seconds, at least, between two messages that nobody has a destination."""

_DESTINATION4 = slice(HEADROOM + 16, HEADROOM + 20)
_DESTINATION6 = slice(HEADROOM + 24, HEADROOM + 40)
_FLAGS, _KIND = HEADROOM - VIRTIO, HEADROOM - VIRTIO + 1
"""Where things stand in a packet that was read, and in its virtio header."""

OF_THE_LINK = tuple(map(ipaddress.ip_network, ("224.0.0.0/4", "255.255.255.255/32", "fe80::/10", "ff00::/8")))
"""Destinations that mean neighbours on a link (RFC 4291, 2.5.6 and 2.7; RFC 1112): behind a tunnel there are
none, and what hosts say to them by themselves is dropped here and not at the peer, who would call it spoofed.
"""

OF_THE_HOST = tuple(map(ipaddress.ip_network, ("127.0.0.0/8", "::1/128")))
"""Never a peer's to reach: with `route_localnet` (ip-sysctl) the kernel would hand it to local services."""


class Refuse(Protocol):
    """Counts a `Drop` and logs it, the log not too often: `Refusals.refuse` does."""

    def __call__(self, reason: str, text: str, log: Channel | None = None) -> object: ...


class Hub:
    """The interface's descriptor and the sessions. `open` it once there is an interface."""

    def __init__(self, config: Vpn, scratch: Scratch, refuse: Refuse, tally: Tally) -> None:
        self.config = config
        self.tally = tally
        self.sessions: set[Session] = set()
        self.directory: Directory[Session | None] = Directory()
        """Whose packets with these destinations are; None has nobody's."""
        for network in OF_THE_LINK:
            self.directory.put(network, None)
        self.local: Directory[bool] = Directory()
        """What peers may send to: this end's addresses, and the networks behind it. False stands for what is
        taken out of these: what clients have is not for others because it lies in a network of this end's.
        """
        for network in (*OF_THE_LINK, *OF_THE_HOST):
            self.local.put(network, False)
        self.on_resume: Callable[[], None] = lambda: None
        self.on_lost: Callable[[OSError], None] = lambda _: None
        self._refuse = refuse
        self._received = scratch.received
        self._into = [memoryview(scratch.received)[HEADROOM - VIRTIO :]]
        self._loop = asyncio.get_running_loop()
        self._fd = -1
        self._reading = False
        self._told = -UNREACHABLE_PAUSE

    def open(self, fd: int) -> None:
        """Carry packets from and to this interface from now on."""
        self._fd = fd
        self._read(wanted=True)

    def close(self) -> None:
        """Let go of the interface; the descriptor is the caller's."""
        self._read(wanted=False)
        self._fd = -1

    def session(self, part: Part, transport: Transport, peer: Peer, log: Channel) -> Session:
        """The session over a new link, whose transport's receiver it is to be; then `Session.begin` it."""
        session = Session(part, transport, peer, log, self)
        self.sessions.add(session)
        self._read(wanted=True)  # the others' packets do not wait for one who takes none
        return session

    def met(self, session: Session) -> None:
        self.tally.met(session.transport.name)

    def refused(self, session: Session) -> None:
        self.tally.refused()

    def dropped(self, why: Drop, number: int) -> None:
        self.tally.drop(why, number)

    def forget(self, session: Session) -> None:
        self.sessions.discard(session)
        if session.hello is not None:
            self.tally.left(session.transport.name)
        self.directory.remove(session)
        self.changed()
        self.resume()

    def permit(self, session: Session, networks: list[Network]) -> None:
        """Let these be the session's: packets to them go there, and it may send from them."""
        for network in networks:
            self.directory.put(network, session)
            session.sources.put(network, session)
        self.changed()

    def changed(self) -> None:
        """What was permitted must be looked at again."""
        for session in self.sessions:
            session.passed.clear()

    # --- from the interface ---

    def _read(self, *, wanted: bool) -> None:
        if self._fd >= 0 and wanted != self._reading:
            self._reading = wanted
            if wanted:
                self._loop.add_reader(self._fd, self.pump)
            else:
                self._loop.remove_reader(self._fd)

    def resume(self) -> None:
        self._read(wanted=True)
        self.on_resume()

    def pump(self) -> None:
        """Take what the interface has: the loop says so, or what was handed to it may have made it answer.

        The first packet goes out before another is read: it may be alone, and somebody waits for it.
        """
        if not self._reading:
            return
        fd, into, readv = self._fd, self._into, os.readv
        touched: list[Transport] = []
        for turn in range(BATCH):
            try:
                count = readv(fd, into)
            except BlockingIOError:
                break
            except OSError as error:
                self._lose(error)
                break
            transport = self._forward(count - VIRTIO, turn == 0)
            if transport is None:
                continue
            if turn and transport not in touched:
                touched.append(transport)
            if transport.busy and len(self.sessions) == 1:
                self._read(wanted=False)
                break
        for transport in touched:
            transport.flush()

    def _lose(self, error: OSError) -> None:
        """The interface was removed by somebody: its descriptor would be readable for ever."""
        if error.errno != errno.EINTR:
            self.close()
            self.on_lost(error)

    def _forward(self, count: int, first: bool) -> Transport | None:
        """Send the packet that was read to whose it is, the first one at once; whom it was given to."""
        received, tally = self._received, self.tally
        destination = received[_DESTINATION4 if received[HEADROOM] >> 4 == 4 else _DESTINATION6]
        session = self.directory.find(bytes(destination))
        if session is None or not 0 < count <= PACKET_LIMIT:
            tally.drop(Drop.UNROUTABLE)
            if 0 < count <= PACKET_LIMIT and self.local.find(bytes(destination)) is False:
                self._tell_unreachable(count)
            return None
        transport = session.transport
        if transport.busy:
            tally.drop(Drop.BUSY)
            return transport
        # As `virtio.is_whole`, in place: a checksum to complete, or segments to be cut.
        offloaded = bool(received[_FLAGS] & 1 or received[_KIND])
        if first:
            transport.send_alone(HEADROOM, count, offloaded)
        else:
            transport.send_packet(HEADROOM, count, offloaded)
        tally.packets[OUT] += 1
        tally.octets[OUT] += count
        return transport

    def _tell_unreachable(self, count: int) -> None:
        """Answer a packet to a client that is not there, but not every one of a flood (RFC 1812, 4.3.2.8)."""
        now = self._loop.time()
        packet = bytes(self._received[HEADROOM : HEADROOM + min(count, QUOTED)])
        if now - self._told >= UNREACHABLE_PAUSE and (message := unreachable(packet)) is not None:
            self._told = now
            with contextlib.suppress(OSError):  # taken down by somebody
                os.writev(self._fd, (NO_HEADER, message))

    # --- from the peers ---

    def deliver(self, session: Session, frame: memoryview, offloaded: bool) -> None:
        """Hand a peer's packet to the interface, if it is one that this peer may send."""
        tally = self.tally
        try:
            ends = inspect(frame, offloaded)
        except PacketError as error:
            self._refuse(Drop.MALFORMED.value, f"VPN: {session.peer.shown} sent {error}", session.log)
            return
        if ends not in session.passed and not self._permitted(session, ends):
            return
        tally.packets[IN] += 1
        tally.octets[IN] += len(frame)
        try:
            if offloaded:
                os.write(self._fd, frame)
            else:
                os.writev(self._fd, (NO_HEADER, frame))
        except OSError:  # taken down by somebody, or a segmentation that this kernel does not know
            tally.drop(Drop.MALFORMED)

    def _permitted(self, session: Session, ends: bytes) -> bool:
        """Whether the peer may send from the one end to the other; told in the log where it may not."""
        source, destination = ends[: len(ends) // 2], ends[len(ends) // 2 :]
        if session.sources.find(source) is None:
            text = (
                f"VPN: {session.peer.shown} sent from {_shown(source)}, which is not its address "
                "(nor in a tunRoute of its own within tunAccept here): dropped"
            )
            self._refuse(Drop.SPOOFED.value, text, session.log)
            return False
        if not (self.local.find(destination) or self._between(session, destination)):
            owner = self.directory.find(destination)
            other = owner is not None and owner is not session
            way = "another client's, without tunClientToClient" if other else "in no tunRoute of this end"
            text = f"VPN: {session.peer.shown} sent to {_shown(destination)}, which is {way}: dropped"
            self._refuse(Drop.STRAYED.value, text, session.log)
            return False
        if len(session.passed) >= PASSED_LIMIT:
            session.passed.clear()
        session.passed.add(ends)
        return True

    def _between(self, session: Session, destination: bytes) -> bool:
        """Whether that is another client's, which this one may reach."""
        owner = self.directory.find(destination) if self.config.between_clients else None
        return owner is not None and owner is not session


def _shown(address: bytes) -> str:
    return str(ipaddress.ip_address(address))
