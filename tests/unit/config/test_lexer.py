"""The dialect line by line: what is a setting, a section, a comment, and what is none of them."""

from __future__ import annotations

import pytest

from culvert.config.findings import MAX_ERRORS, Findings
from culvert.config.lexer import MAX_BYTES, MAX_LINE, Lexer, Section, Setting, read_file, without_comment
from culvert.config.options import hides
from culvert.errors import ConfigurationError, Location

from .reading import shown


def lex(content: bytes) -> tuple[list[tuple[str, str]], list[str]]:
    """The items of a file, sections as ("[]", name), and the errors."""
    findings = Findings()
    items = list(Lexer(findings, hides).items(content, "test.conf"))
    pairs = [("[]", i.name) if isinstance(i, Section) else (i.name, i.value) for i in items]
    return pairs, [shown(d) for d in findings.in_order()]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"", []),
        (b"   \t ", []),
        (b"; comment", []),
        (b"# comment", []),
        (b"  ; comment = 1", []),
        (b"# caf\xe9 \x00", []),
        (b"a=b", [("a", "b")]),
        (b"\ta \t = \t b c \t", [("a", "b c")]),
        (b"a = b = c", [("a", "b = c")]),
        (b"a =", [("a", "")]),
        (b"a = b\r", [("a", "b")]),
        (b"a = b ; c", [("a", "b ; c")]),
        ("a = café".encode(), [("a", "café")]),
        ("a = \u00a0b".encode(), [("a", "\u00a0b")]),
        (b"[service]", [("[]", "service")]),
        (b"[ two words ]", [("[]", "two words")]),
        (b"[a] ; comment", [("[]", "a")]),
        (b"[a]# comment [b]", [("[]", "a")]),
        (b"[a ; b]", [("[]", "a ; b")]),
        (b"[a]b]", [("[]", "a]b")]),
        (b"[a=b]", [("[]", "a=b")]),
    ],
)
def test_line(line: bytes, expected: list[tuple[str, str]]) -> None:
    assert lex(line) == (expected, [])


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (b"word", '1: this is neither "name = value" nor "[service]": there is no "="'),
        (b"= value", '1: there is no option name in front of "="'),
        (b"[service", '1: the name of a service ends with "]"'),
        (b"[service] x", '1: the name of a service ends with "]"'),
        (b"[ ]", "1: a service needs a name between the brackets"),
        (b"a = \xe9", "1: byte 0xe9 is not UTF-8; save the file as UTF-8"),
        (b"a = b\x00", "1: the line holds the control character 0x00"),
        (b"a = b\rc = d", "1: the line holds the control character 0x0d"),
        (b"a = \xc2\x9b", "1: the line holds the control character 0x9b"),
        (
            b"a = " + b"x" * MAX_LINE,
            f"1: the line has {MAX_LINE + 4} bytes; at most {MAX_LINE} are read",
        ),
    ],
)
def test_faulty_line(line: bytes, error: str) -> None:
    items, errors = lex(line)
    assert errors == [error]
    assert all(name == "[]" for name, _ in items)


def test_lines_are_counted_over_comments_and_faults() -> None:
    findings = Findings()
    content = b"\xef\xbb\xbf\r\n; one\r\nfault\r\na = 1\r\n"
    (setting,) = Lexer(findings, hides).items(content, "x")
    assert setting == Setting("a", "1", Location("x", 4, "a = 1"))
    assert [shown(d)[:2] for d in findings.in_order()] == ["3:"]


def test_longest_line_is_read() -> None:
    items, errors = lex(b"a = " + b"x" * (MAX_LINE - 4))
    assert errors == []
    assert len(items[0][1]) == MAX_LINE - 4


def test_settings_below_a_faulty_section_are_not_those_of_the_one_above() -> None:
    items, _ = lex(b"[a]\n[b\x07]\nx = 1")
    assert items == [("[]", "a"), ("[]", "[b.]"), ("x", "1")]


def test_shown_line_is_cut_and_harmless() -> None:
    findings = Findings()
    list(Lexer(findings, hides).items(b"a = \x1b[31m" + b"x" * 1000, "x"))
    (error,) = findings.in_order()
    assert error.location is not None
    assert error.location.text == "a = .[31m" + "x" * 191 + "..."


@pytest.mark.parametrize(
    "name", ["protocolPassword", "PROTOCOLPASSWORD", "protocolPasword", "ticketKeySecrets"]
)
def test_secret_is_not_shown(name: str) -> None:
    findings = Findings()
    (item,) = Lexer(findings, hides).items(f"{name} = hunter2".encode(), "x")
    assert item.location.text == f"{name} = (hidden)"


def test_reading_stops_after_too_many_errors() -> None:
    findings = Findings()
    assert list(Lexer(findings, hides).items(b"fault\n" * 10_000, "x")) == []
    assert len(findings.in_order()) == MAX_ERRORS


def test_endless_file() -> None:
    with pytest.raises(ConfigurationError, match="/dev/zero: a configuration has at most 16 MB"):
        read_file("/dev/zero", MAX_BYTES)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("5010   # local end", "5010"),
        ("5010\t;x", "5010"),
        ("5010", "5010"),
        ("a#b;c", "a#b;c"),
        ("# all of it", ""),
        ("a ;b #c", "a"),
        ("", ""),
    ],
)
def test_without_comment(value: str, expected: str) -> None:
    assert without_comment(value) == expected
