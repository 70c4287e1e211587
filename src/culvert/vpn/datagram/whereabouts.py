"""Where a client is: a server goes along with one whose address changes.

It does so when a record that is newer than all before has come from another address, and a probe that was
sent there was answered: what somebody sends on who has only listened is no move, and nobody is sent more than
he has sent himself before he has answered.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from culvert.vpn.datagram import records
from culvert.vpn.datagram.udp import Way

MOVE_PAUSE = 0.5
"""Seconds, at least, between probes of new addresses of a peer."""


class Whereabouts:
    """Notices that one peer has moved. `send` sends it a record."""

    def __init__(self, loop: asyncio.AbstractEventLoop, send: Callable[[bytes, Way], object]) -> None:
        self._loop = loop
        self._send = send
        self._newest = 0
        self._candidate: tuple[Way, bytes] | None = None
        self._tried = 0.0

    def notice(self, number: int, came: Way, known: Way) -> None:
        """A record of this number is the peer's, and came from there; `known` is where it was before."""
        newer, self._newest = number > self._newest, max(number, self._newest)
        if came == known or not newer:
            return
        now = self._loop.time()
        if now - self._tried >= MOVE_PAUSE:
            self._tried = now
            self._candidate = (came, os.urandom(records.TOKEN))
            self._send(records.probe(self._candidate[1], 0), came)

    def answered(self, token: bytes, came: Way) -> bool:
        """A probe was answered from there; whether that is where the peer is now."""
        if self._candidate != (came, token):
            return False
        self._candidate = None
        return True
