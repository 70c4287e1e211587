"""Keys of a terminal: bytes in, names out. A key that nobody knows gives nothing."""

from __future__ import annotations

import codecs

_ESCAPE = 0x1B
_SEQUENCE_LIMIT = 32
"""Bytes of a sequence: the longest that a terminal sends for a key has half a dozen."""

_CONTROLS = {
    0x08: "backspace",
    0x09: "tab",
    0x0A: "enter",
    0x0C: "redraw",
    0x0D: "enter",
    0x15: "erase",
    0x7F: "backspace",
}
_SEQUENCES = {
    b"[A": "up",
    b"[B": "down",
    b"[C": "right",
    b"[D": "left",
    b"[H": "home",
    b"[F": "end",
    b"[Z": "backtab",
    b"[1~": "home",
    b"[3~": "delete",
    b"[4~": "end",
    b"[5~": "page up",
    b"[6~": "page down",
    b"[7~": "home",
    b"[8~": "end",
    b"OA": "up",
    b"OB": "down",
    b"OC": "right",
    b"OD": "left",
    b"OH": "home",
    b"OF": "end",
}


class Keys:
    """Takes bytes as they come. A printable character is its own name."""

    def __init__(self) -> None:
        self._sequence: bytearray | None = None
        """What came behind an escape."""
        self._text = codecs.getincrementaldecoder("utf-8")("replace")

    @property
    def pending(self) -> bool:
        """Whether an escape has come that may be the beginning of a key, or the key itself."""
        return self._sequence is not None

    def feed(self, data: bytes) -> list[str]:
        """The keys that are complete."""
        found: list[str] = []
        for byte in data:
            found += self._take(byte)
        return found

    def idle(self) -> list[str]:
        """The keys where nothing has followed: a lone escape is one."""
        sequence, self._sequence = self._sequence, None
        return ["escape"] if sequence is not None and not sequence else []

    def _take(self, byte: int) -> list[str]:
        if self._sequence is not None:
            return self._continue(self._sequence, byte)
        if byte == _ESCAPE:
            self._sequence = bytearray()
        if byte < 0x20 or byte == 0x7F:
            self._text.reset()
            return [_CONTROLS[byte]] if byte in _CONTROLS else []
        return [one for one in self._text.decode(bytes((byte,))) if one.isprintable()]

    def _continue(self, sequence: bytearray, byte: int) -> list[str]:
        if not sequence and byte not in b"[O":
            self._sequence = None
            return ["escape", *self._take(byte)]
        if byte == _ESCAPE:  # the one before was cut off
            self._sequence = bytearray()
            return []
        sequence.append(byte)
        if len(sequence) == 1:
            return []
        if len(sequence) < _SEQUENCE_LIMIT and sequence[:1] == b"[" and 0x20 <= byte <= 0x3F:
            return []  # a parameter: the end is still to come (ECMA-48, 5.4)
        self._sequence = None
        name = _SEQUENCES.get(bytes(sequence))
        return [] if name is None else [name]
