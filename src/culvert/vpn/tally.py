"""What a VPN has carried and refused, among the numbers of its service.

The cells are those that other processes read (`culvert.tally`): counting here costs no more than with numbers
of one's own, and who looks costs nothing.
"""

from __future__ import annotations

import enum

from culvert.metrics import Counters
from culvert.tally import Cell

OUT, IN = 0, 1
"""In `Tally.packets` and `Tally.octets`: to the peers, and from them to the interface."""

DROPPED, MET, REPLACED = "vpn dropped", "vpn met", "vpn replaced"
"""Families of labels: a `Drop`, a `Carrier` and a `Replacement`."""


class Drop(enum.Enum):
    """Why a packet went no further."""

    BUSY = "busy"
    """The link of the peer whose it is had no room."""
    UNROUTABLE = "unroutable"
    """Nobody has its destination."""
    TOO_LONG = "too long"
    """No datagram holds it, and it may not be cut."""
    MALFORMED = "malformed"
    """It is none, or none that a kernel takes."""
    SPOOFED = "spoofed"
    """Its source was not its sender's."""
    STRAYED = "strayed"
    """Its destination was not for its sender to reach."""
    UNREADABLE = "unreadable"
    """A record over datagrams that was forged, repeated, too late, or came before the first message."""


class Carrier(enum.Enum):
    """What carries a link, by the name of its transport in small letters."""

    TLS = "tls"
    DTLS = "dtls"


class Replacement(enum.Enum):
    """What a link was that took an older one's place."""

    RENEWED = "renewed"
    """It goes the same way: with new keys, or after the old one was lost unnoticed."""
    OTHER_WAY = "other transport"


_PEERS = {"TLS": Cell.VPN_PEERS_TLS, "DTLS": Cell.VPN_PEERS_DTLS}


class Tally:
    """The numbers of one VPN. A packet that stands for several segments counts once."""

    __slots__ = ("_met", "_replaced", "_row", "dropped", "octets", "packets")

    def __init__(self, counters: Counters) -> None:
        self._row = counters.row
        self.octets = counters.carried
        self.packets = self._row[Cell.VPN_PACKETS_TO_TLS : Cell.VPN_PACKETS_TO_PLAIN + 1]
        self.dropped = counters.family(DROPPED)
        self._met = counters.family(MET)
        self._replaced = counters.family(REPLACED)

    def drop(self, why: Drop, number: int = 1) -> None:
        """Count packets that went no further."""
        self.dropped[why.value] += number

    def met(self, transport: str) -> None:
        """A peer was met over a transport of this name, and is there."""
        self._met[transport.lower()] += 1
        self._row[_PEERS[transport]] += 1

    def left(self, transport: str) -> None:
        """It is not there any more."""
        self._row[_PEERS[transport]] -= 1

    def replaced(self, before: str, now: str) -> None:
        """A link takes the place of an older one of the same peer; both by the names of their transports."""
        kind = Replacement.RENEWED if before == now else Replacement.OTHER_WAY
        self._replaced[kind.value] += 1

    def refused(self) -> None:
        """A peer that was proven does not fit."""
        self._row[Cell.VPN_REFUSED] += 1

    def fell_back(self) -> None:
        """Datagrams do not get through."""
        self._row[Cell.VPN_FALLBACKS] += 1

    def moved(self) -> None:
        """A peer has another address than before."""
        self._row[Cell.VPN_MOVES] += 1

    def __str__(self) -> str:
        (to, back), (out, come) = self.packets, self.octets
        return (
            f"{back} packet(s) and {come} byte(s) in, {to} packet(s) and {out} byte(s) out; "
            f"dropped: {str(self.dropped) or 'none'}; met: {str(self._met) or 'none'}; "
            f"{self._row[Cell.VPN_REFUSED]} refused"
        )
