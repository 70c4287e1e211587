"""What carries the messages of one peer, and who takes them: the seam between a VPN and its way over the net.

Two things make a link: a `Transport` (a TLS stream, a DTLS association), which has proved who the peer is
before it is used, and its `Receiver` (the session), which knows addresses and liveness. A transport knows
nothing of addresses, and a session nothing of records.

The life of a link:

1. Whoever has shaken hands makes the transport, and the session over it (`Hub.session`), and then gives each
   message that comes to the receiver, in the order in which it came, from one thread.
2. Either end calls `Transport.close`: what is queued goes out, the peer is told the end (close_notify).
3. The transport calls `Receiver.ended` exactly once, whatever ended it: the peer, the network, or `close`.
   Nothing is received after it, and what is sent after it is lost without an error.

Packets are what a tunnel interface gives and takes: whole IP packets. With `offload`, a packet may be up to
64 kB long and stand for several segments; the interface's virtio header, 10 bytes, tells how it is to be cut
(`vpn.virtio`). A transport without `offload` is never given such a one: the hub cuts it first, and fills in
the checksum that a header without segmentation may ask for.

Buffers: both ends share the process's `Scratch` and keep nothing in it. A packet to be sent stands in
`scratch.received`, with HEADROOM bytes in front of it that the transport may overwrite: the virtio header,
and room for a frame's or a record's own. A packet that was received is a view that is valid during the call.
"""

from __future__ import annotations

import enum
from typing import Protocol

from culvert.config.vpn import IpAddress
from culvert.vpn.tally import Drop

VIRTIO = 10
"""Bytes of the header in front of a packet of an interface with IFF_VNET_HDR (struct virtio_net_hdr)."""

HEADROOM = 32
"""Bytes in front of each packet that is to be sent, its virtio header among them."""

PACKET_LIMIT = 65535
"""Longest packet: what the length field of IPv4 can say, and what segmentation is limited to."""

MESSAGE_LIMIT = 16 * 1024
"""Longest body of a message that is no packet, in bytes: a hello with hundreds of routes."""


class Kind(enum.IntEnum):
    """What a message is; the number goes over the wire."""

    HELLO = 1
    """Who speaks, its version, and what it asks for or grants: the first one each way (`vpn.hello`)."""
    PING = 2
    """Are you there? The body, which may be empty, comes back."""
    PONG = 3
    """Yes: with the body of the PING."""
    BYE = 4
    """The end, with its reason as text."""
    PACKET = 16
    """An IP packet as it is, its checksums complete."""
    OFFLOADED = 17
    """A virtio header, and the IP packet that it tells of."""


class Transport(Protocol):
    """One end of a link to one peer. Nothing here blocks, and nothing raises for what the network does."""

    @property
    def name(self) -> str:
        """What it is, for the log: `TLS` or `DTLS`."""

    @property
    def offload(self) -> bool:
        """Whether it carries OFFLOADED packets."""

    @property
    def path_mtu(self) -> int | None:
        """The longest packet that is best given to it at present, in bytes; None where that is unknown."""

    @property
    def busy(self) -> bool:
        """Whether what was given to it waits for the network: a packet more would only be queued or lost.

        The hub stops reading the interface meanwhile, if this is its only link; else it drops.
        """

    @property
    def worn(self) -> bool:
        """Whether its keys have served for as many records as they should: time for a link with new ones."""

    @property
    def overdue(self) -> bool:
        """Whether they have served so long that a peer that makes no new link will not do so any more."""

    def send_message(self, kind: Kind, body: bytes) -> None:
        """Send a message that is no packet, with at most MESSAGE_LIMIT bytes."""

    def send_packet(self, start: int, count: int, offloaded: bool) -> None:
        """Send the packet of `count` bytes in `scratch.received` from `start` on.

        `start` is HEADROOM at least. With `offloaded` the packet goes with its virtio header, which stands
        right in front of it. It may be held back until `flush`.
        """

    def cut_datagrams(self) -> None:
        """From now on give the peer no OFFLOADED packet that stands for several datagrams of UDP: its kernel
        cannot cut it.
        """

    def send_alone(self, start: int, count: int, offloaded: bool) -> None:
        """`send_packet` and `flush` in one, by the shortest way, for one that somebody may be waiting for.

        To be called while it is not `busy`.
        """

    def flush(self) -> None:
        """Hand to the network what was given: the interface has no more packets just now."""

    def close(self) -> None:
        """End the link in good order. `Receiver.ended` follows, perhaps before this returns."""

    def abort(self, reason: str) -> None:
        """End the link at once, for a peer that does not answer. `Receiver.ended` follows with the reason."""


class Receiver(Protocol):
    """Who takes what comes over a link. It raises `FrameError` where the peer broke the rules: the transport
    then ends the link, and has that for its reason.
    """

    def take_message(self, kind: Kind, body: bytes) -> None:
        """A message that is no packet has come: a HELLO, PING, PONG or BYE."""

    def take_packet(self, frame: memoryview, offloaded: bool) -> None:
        """A packet has come; with `offloaded`, `frame` begins with its virtio header."""

    def delivered(self) -> None:
        """All that one read has brought was given, and the buffers are free: the interface may have an answer
        by now, which is sent before the event loop is asked.
        """

    def ready_again(self) -> None:
        """The transport is not `busy` any more."""

    def dropped(self, why: Drop, number: int = 1) -> None:
        """Packets that the transport could not carry, or records that were none."""

    @property
    def addresses(self) -> tuple[IpAddress, ...]:
        """The peer's in the VPN; none before it was met."""

    def ended(self, reason: str) -> None:
        """The link is over. An empty reason is an end in good order."""


class FrameError(ValueError):
    """A peer sent what no peer may send: the link ends."""
