"""Whatever the bytes of a file: a configuration or a configuration error, and the same one each time."""

from __future__ import annotations

import contextlib

from hypothesis import given, settings
from hypothesis import strategies as st

from culvert import config
from culvert.config import OPTIONS, Configuration
from culvert.errors import ConfigurationError, Diagnostic, Severity

NAMES = sorted({name for option in OPTIONS for name in (option.name, *option.aliases)} - {"include"})

VALUES = st.one_of(
    st.sampled_from(
        [
            "",
            "yes",
            "no",
            "0",
            "1",
            "443",
            "::1:443",
            "/run/x",
            "all",
            "TLSv1.2",
            "a:SO_LINGER=1:2",
            "-NO_TICKET",
        ]
    ),
    st.text(max_size=30),
)

LINES = st.one_of(
    st.tuples(st.sampled_from(NAMES), VALUES).map(lambda pair: f"{pair[0]} = {pair[1]}".encode()),
    st.text(max_size=8).map(lambda name: f"[{name}]".encode()),
    st.binary(max_size=40),
)

FILES = st.one_of(
    st.binary(max_size=300),
    st.lists(LINES, max_size=25).map(b"\n".join),
)


def outcome(content: bytes | str) -> Configuration | tuple[Diagnostic, ...]:
    try:
        return config.loads(content, "any.conf")
    except ConfigurationError as error:
        assert any(d.severity is Severity.ERROR for d in error.diagnostics)
        return error.diagnostics


@given(FILES.filter(lambda content: b"include" not in content.lower()))
@settings(max_examples=500, deadline=None)
def test_any_bytes(content: bytes) -> None:
    first = outcome(content)
    assert outcome(content) == first
    with contextlib.suppress(UnicodeDecodeError):
        assert outcome(content.decode()) == first


@given(st.text(st.characters(), max_size=60).filter(lambda text: "include" not in text.lower()))
@settings(max_examples=200, deadline=None)
def test_any_text(text: str) -> None:
    outcome(text)
    outcome(f"[a]\nclient = yes\naccept = 1\nconnect = 2\n{text}")


@given(st.sampled_from(OPTIONS), VALUES)
@settings(max_examples=500, deadline=None)
def test_any_value_of_any_option(option: config.Option, value: str) -> None:
    if option.name != "include":
        outcome(f"[a]\nclient = yes\naccept = 1\nconnect = 2\n{option.name} = {value}")
