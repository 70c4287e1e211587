"""Messages that must come, and come in order, over datagrams that need not: few, and short.

Each is cut into numbered pieces, which are sent again until the other end says that it has them. Times are
seconds of any one monotonic clock.
"""

from __future__ import annotations

from culvert.vpn.datagram.records import Piece
from culvert.vpn.transport import MESSAGE_LIMIT, Kind

PIECE_LIMIT = 1000
"""Bytes of a message in one piece: its datagram fits every path."""

WINDOW = 16
"""Pieces that are under way at once: a burst that no path minds."""

FIRST_PATIENCE = 0.5
LONGEST_PATIENCE = 8.0
MOST_TRIES = 12
"""Times that nothing of the window was acknowledged: about a minute. Then the peer is taken for gone."""

_NUMBERS = 2**32


class DeliveryError(ValueError):
    """The peer sent pieces that make no message, or takes none: the link ends."""


class Outgoing:
    """What one end has to say."""

    def __init__(self) -> None:
        self._waiting: list[Piece] = []
        self._next = 0
        self._patience = FIRST_PATIENCE
        self._tries = 0
        self.deadline: float | None = None
        """When `due` must be asked again."""

    def put(self, kind: Kind, body: bytes, now: float) -> None:
        """Take a message on. Raises ValueError for one that is too long."""
        if len(body) > MESSAGE_LIMIT:
            raise ValueError(f"{kind.name} with {len(body)} bytes: {MESSAGE_LIMIT} at most")
        data = bytes((kind,)) + body
        for start in range(0, len(data), PIECE_LIMIT):
            last = start + PIECE_LIMIT >= len(data)
            self._waiting.append(Piece(self._next, last, data[start : start + PIECE_LIMIT]))
            self._next = (self._next + 1) % _NUMBERS
        self.deadline = now

    def due(self, now: float) -> list[Piece]:
        """The pieces to send now. Raises DeliveryError where the peer has taken none for too long."""
        if self.deadline is None or now < self.deadline:
            return []
        self._tries += 1
        if self._tries > MOST_TRIES:
            raise DeliveryError("the peer acknowledges nothing")
        self.deadline = now + self._patience
        self._patience = min(2 * self._patience, LONGEST_PATIENCE)
        return self._waiting[:WINDOW]

    def acknowledged(self, number: int, now: float) -> None:
        """All before the piece of this number has arrived. What never was sent changes nothing."""
        count = (number - self._waiting[0].number) % _NUMBERS if self._waiting else 0
        if not 0 < count <= min(len(self._waiting), WINDOW):
            return
        del self._waiting[:count]
        self._patience, self._tries = FIRST_PATIENCE, 0
        self.deadline = now if self._waiting else None


class Incoming:
    """What comes of the other end's messages."""

    def __init__(self) -> None:
        self._early: dict[int, Piece] = {}
        self._parts: list[bytes] = []
        self._size = 0
        self.expected = 0
        """The number of the piece that is missing next, for an ACK after each piece."""

    def take(self, piece: Piece) -> list[tuple[Kind, bytes]]:
        """The messages that are complete with this piece. Raises DeliveryError for what makes none."""
        if len(piece.data) > PIECE_LIMIT:
            raise DeliveryError(f"a piece of {len(piece.data)} bytes, {PIECE_LIMIT} at most")
        if (piece.number - self.expected) % _NUMBERS >= WINDOW:
            return []  # one that has come before, or that nobody may send yet
        self._early.setdefault(piece.number, piece)
        complete = []
        while (found := self._early.pop(self.expected, None)) is not None:
            self.expected = (self.expected + 1) % _NUMBERS
            self._size += len(found.data)
            if self._size > MESSAGE_LIMIT + 1:
                raise DeliveryError(f"a message of more than {MESSAGE_LIMIT} bytes")
            self._parts.append(found.data)
            if found.last:
                complete.append(self._message())
        return complete

    def _message(self) -> tuple[Kind, bytes]:
        data = b"".join(self._parts)
        self._parts, self._size = [], 0
        if not data or data[0] not in (Kind.HELLO, Kind.BYE):
            raise DeliveryError("a message of an unknown kind")
        return Kind(data[0]), data[1:]
