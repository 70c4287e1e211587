"""What a guest of user-mode Linux tells its host (bench/uml/console.py)."""

from __future__ import annotations

import pytest
from bench.uml import console
from hypothesis import given
from hypothesis import strategies as st

VALUES = st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False)


@given(st.lists(st.dictionaries(st.text(), VALUES)))
def test_records_arrive_as_they_were_between_other_lines(said: list[dict[str, object]]) -> None:
    output = "".join(f"the kernel says something\r\n{console.line(record)}\r\n" for record in said)
    assert console.records(output) == said


@given(st.text())
def test_any_output_has_records_or_is_damaged(output: str) -> None:
    for text in (output, f"@guest {output}"):
        try:
            assert all(isinstance(record, dict) for record in console.records(text))
        except ValueError as error:
            assert "a damaged record" in str(error)


@pytest.mark.parametrize("content", ["", "{", "3", "[]", '{"a": 1} more', "[" * 100_000])
def test_a_damaged_record_is_an_error(content: str) -> None:
    with pytest.raises(ValueError, match="a damaged record"):
        console.records(f"@guest {content}")
