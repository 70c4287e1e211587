"""Whatever stands in an entry, a line stays one line, and a JSON line one object."""

from __future__ import annotations

import datetime
import json
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from culvert.log import TEXT_LIMIT, Entry, JsonLines, Level, TextLines
from culvert.log.lines import FIELD_LIMIT

ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=2 * TEXT_LIMIT)
PIPE_BUF = 4096


def parsed(entry: Entry) -> dict[str, object]:
    """The object of an entry's line, which is printable text and nothing else."""
    line = JsonLines().line(entry).decode()
    assert len(line.splitlines()) == 1
    found: dict[str, object] = json.loads(line)
    return found


@given(ANY_TEXT, ANY_TEXT, ANY_TEXT, ANY_TEXT)
def test_any_text_gives_one_object(text: str, service: str, ident: str, field: str) -> None:
    found = parsed(Entry(Level.NOTICE, 3, ident, text, service, True, {"sni": field}))
    assert set(found) == {"time", "level", "service", "connection", "message", "sni"}
    assert len(str(found["message"]).encode()) <= TEXT_LIMIT
    assert len(str(found["sni"]).encode()) <= FIELD_LIMIT


@given(ANY_TEXT, ANY_TEXT)
def test_any_text_gives_one_line(text: str, ident: str) -> None:
    line = TextLines().line(Entry(Level.NOTICE, 3, ident, text)).decode()
    assert line.startswith("LOG5[")
    assert len(line.splitlines()) == 1


@pytest.mark.parametrize("character", ['"', "\\", "\udcff", "é", "\x00"])
def test_the_summary_of_a_connection_fits_into_one_write_to_a_pipe(character: str) -> None:
    fields: dict[str, str | int | float | bool | None] = dict.fromkeys(
        ("peer", "target", "sni", "alpn", "identity", "rule"), character * 5000
    )
    fields |= {"sent_to_tls": 2**63, "sent_to_socket": 2**63, "duration": 1234567.123, "resumed": False}
    fields |= {"version": "TLSv1.3", "cipher": "x" * 40, "group": "x" * 20, "reason": "x" * 40}
    closing = f"Connection closed: {2**63} byte(s) sent to TLS, {2**63} byte(s) sent to socket"
    entry = Entry(Level.NOTICE, 3, "i" * 22, closing, character * 5000, True, fields)
    assert len(JsonLines().line(entry)) < PIPE_BUF


def test_a_long_message_fits_too() -> None:
    assert len(JsonLines().line(Entry(3, 3, "1", '"' * 5000, '"' * 5000, True))) < PIPE_BUF


def test_what_there_is_nothing_to_tell_of_is_left_out() -> None:
    found = parsed(Entry(Level.ERR, 3, "main", "text", fields={"sni": None, "resumed": False}))
    assert set(found) == {"time", "level", "message", "resumed"}
    assert (found["level"], found["message"], found["resumed"]) == ("err", "text", False)


class TestTime:
    @pytest.fixture(params=["UTC", "Asia/Kolkata", "America/St_Johns", "<-03>3"])
    def zone(self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        """Local time."""
        monkeypatch.setenv("TZ", request.param)
        time.tzset()
        yield
        monkeypatch.undo()
        time.tzset()

    @pytest.mark.usefixtures("zone")
    def test_it_is_that_of_rfc_3339(self) -> None:
        before = time.time()
        written = datetime.datetime.fromisoformat(str(parsed(Entry(5, 3, "main", "text"))["time"]))
        assert before - 0.01 <= written.timestamp() <= time.time()
        assert written.utcoffset() == datetime.datetime.now().astimezone().utcoffset()
