"""Events as lines: there and back, and any line at all."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from culvert.trace import (
    Closed,
    Direction,
    FormatError,
    Joined,
    Lost,
    Opened,
    Record,
    Secret,
    TraceEvent,
    Wire,
    from_line,
    to_line,
)
from culvert.trace.events import LINE_LIMIT

NAMES = st.text(max_size=20)
TIMES = st.floats(0, 1e9)
NUMBERS = st.integers(0, 65535)
DIRECTIONS = st.sampled_from(Direction)
ENDPOINTS = st.tuples(NAMES, NUMBERS)
EVENTS = st.one_of(
    st.builds(Joined, TIMES, NUMBERS, NUMBERS),
    st.builds(Opened, NAMES, TIMES, TIMES, NAMES, ENDPOINTS, ENDPOINTS, NAMES),
    st.builds(
        Record,
        NAMES,
        TIMES,
        DIRECTIONS,
        NUMBERS,
        NUMBERS,
        NUMBERS,
        st.none() | NUMBERS,
        st.lists(st.binary(max_size=20), max_size=3).map(tuple),
        st.binary(max_size=20),
        NUMBERS,
        st.booleans(),
        NUMBERS,
    ),
    st.builds(Wire, NAMES, TIMES, DIRECTIONS, NUMBERS, st.binary(max_size=50)),
    st.builds(Secret, NAMES, TIMES, NAMES),
    st.builds(Closed, NAMES, TIMES),
    st.builds(Lost, TIMES, NUMBERS),
)


@given(EVENTS)
def test_an_event_survives_its_line(event: TraceEvent) -> None:
    line = to_line(event)
    assert "\n" not in line
    assert from_line(line) == event


@given(EVENTS, st.data())
def test_an_event_with_another_value_is_an_event_or_refused(event: TraceEvent, data: st.DataObject) -> None:
    fields = json.loads(to_line(event))
    name = data.draw(st.sampled_from(sorted(fields)))
    fields[name] = data.draw(
        st.none() | st.booleans() | st.integers() | st.floats() | NAMES | st.lists(NAMES)
    )
    with contextlib.suppress(FormatError):
        from_line(json.dumps(fields))


@given(st.binary(max_size=200) | st.text(max_size=200))
def test_any_line_is_an_event_or_refused(line: str | bytes) -> None:
    with pytest.raises(FormatError):
        from_line(line)


@pytest.mark.parametrize(
    "line",
    [
        "[" * 100_000,
        "1" * 10_000,
        "null",
        '{"event": "flood"}',
        '{"event": ["closed"]}',
        '{"event": "closed", "connection": "1"}',
        '{"event": "closed", "connection": "1", "time": NaN}',
        " " * (LINE_LIMIT + 1),
    ],
)
def test_what_is_refused(line: str) -> None:
    with pytest.raises(FormatError):
        from_line(line)
