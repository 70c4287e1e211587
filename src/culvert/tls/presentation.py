"""The presentation language of TLS (RFC 8446, 3), read from the front: numbers, and vectors with a length."""

from __future__ import annotations


class MalformedError(ValueError):
    """Bytes that are not what they are to be read as."""


class Reader:
    """Bytes taken from the front. Every method raises MalformedError where there are not as many."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, count: int) -> bytes:
        taken = self._data[self._at : self._at + count]
        if len(taken) < count:
            raise MalformedError(f"cut off: {count} byte(s) expected, {len(taken)} there")
        self._at += count
        return taken

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def vector(self, size: int) -> Reader:
        """What follows a length of `size` bytes."""
        return Reader(self.take(self.number(size)))

    def __bool__(self) -> bool:
        return self._at < len(self._data)

    def __len__(self) -> int:
        return len(self._data) - self._at

    def rest(self) -> bytes:
        """All that is left."""
        return self.take(len(self))

    def end(self) -> None:
        """Hold that nothing is left."""
        if self:
            raise MalformedError(f"{len(self)} byte(s) too many")
