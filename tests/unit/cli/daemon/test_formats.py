"""Numbers for people."""

from __future__ import annotations

import pytest

from culvert.cli.daemon.formats import duration, rate, size, throughput


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (9949, "9.9 kB"),
        (9950, "10 kB"),
        (999499, "999 kB"),
        (999500, "1.0 MB"),
        (2_500_000_000, "2.5 GB"),
        (10**21, "1000 EB"),
    ],
)
def test_a_size_has_three_digits(count: float, text: str) -> None:
    assert size(count) == text


@pytest.mark.parametrize(("value", "text"), [(None, "-"), (0, "0.0"), (12.34, "12.3"), (100.2, "100")])
def test_a_rate(value: float | None, text: str) -> None:
    assert rate(value) == text


def test_a_throughput_that_is_not_known() -> None:
    assert (throughput(None), throughput(1500)) == ("-", "1.5 kB/s")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-3, "0 s"), (8.9, "8 s"), (200, "3 min 20 s"), (18240, "5 h 4 min"), (1047600, "12 d 3 h")],
)
def test_a_duration_has_two_units(seconds: float, text: str) -> None:
    assert duration(seconds) == text
