"""Keys of a terminal, however their bytes come."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from culvert.cli.top.keys import Keys


@pytest.mark.parametrize(
    ("data", "keys"),
    [
        (b"q", ["q"]),
        (b"\x1b[A\x1b[B", ["up", "down"]),
        (b"\x1bOA", ["up"]),
        (b"\x1b[5~\x1b[6~\x1b[3~", ["page up", "page down", "delete"]),
        (b"\x1b[Z\t\r\n", ["backtab", "tab", "enter", "enter"]),
        (b"\x7f\x08", ["backspace", "backspace"]),
        ("ä€".encode(), ["ä", "€"]),
        (b"\xff", ["\ufffd"]),
        (b"\x1b[1;5Aq", ["q"]),
        (b"\x1b[<0;1;1Mq", ["q"]),
        (b"\x1bq", ["escape", "q"]),
        (b"\x1b\x1b[A", ["escape", "up"]),
        (b"\x1b[1\x1b[A", ["up"]),
        (b"\x00\x01\x1c", []),
        (b"\x1b[" + b"1" * 100 + b"q", ["1"] * 69 + ["q"]),
    ],
)
def test_bytes_are_keys(data: bytes, keys: list[str]) -> None:
    assert Keys().feed(data) == keys


def test_a_lone_escape_is_one_when_nothing_follows() -> None:
    keys = Keys()
    assert (keys.feed(b"\x1b"), keys.pending) == ([], True)
    assert (keys.idle(), keys.pending) == (["escape"], False)


def test_half_a_sequence_is_no_key() -> None:
    keys = Keys()
    assert keys.feed(b"\x1b[1") == []
    assert (keys.idle(), keys.feed(b"q")) == ([], ["q"])


@settings(deadline=None)
@given(st.binary(max_size=60))
def test_bytes_mean_the_same_one_by_one(data: bytes) -> None:
    whole, single = Keys(), Keys()
    found = [key for byte in data for key in single.feed(bytes((byte,)))]
    assert whole.feed(data) == found
    assert whole.idle() == single.idle()
    assert all(key.isprintable() for key in found)
