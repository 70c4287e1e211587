"""docs/troubleshooting.md against the source: what it quotes is there, and what is logged is quoted.

A line of the page is made of the source's strings: a string as it stands, or a template whose gaps are
filled by a placeholder in capitals or by such a line in turn.
"""

from __future__ import annotations

import ast
import errno
import functools
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from OpenSSL import SSL

from culvert import config
from culvert.tls._openssl import lib, text
from page_lines import PLACEHOLDER, openssl_words, quoted_lines

SOURCE = Path(config.__file__).parents[1]
GAP = "\0"
PLACEHOLDERS = re.compile(rf"{PLACEHOLDER}(?:[ :,]+{PLACEHOLDER})*")
TELLS = {
    **dict.fromkeys(
        ("error", "warning", "critical", "single", "BackendError", "ConnectError", "TlsError"), 0
    ),
    **dict.fromkeys(("DeviceError", "NetworkError", "MeetingError", "RefusedByServerError"), 0),
    **dict.fromkeys(("NoRoomError", "RefusedError", "OcspError", "Finding"), 1),
    "_refuse": 2,
}
"""What the log's lines come from, and which of its arguments is the text."""
ELSEWHERE = ("config", "cli", "client", "trace", "server.py")
"""Findings on options explain themselves, with their line; the others are no daemon's."""


@dataclass(frozen=True)
class Told:
    """A text that the source logs or raises, with gaps."""

    where: str
    text: str


def text_of(node: ast.expr) -> str:
    """A string's text, with a gap for what is only known when it runs."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            return "".join(text_of(part) for part in parts)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return text_of(left) + text_of(right)
    return GAP


@functools.cache
def trees() -> dict[Path, ast.Module]:
    return {path: ast.parse(path.read_text()) for path in sorted(SOURCE.rglob("*.py"))}


@functools.cache
def strings() -> frozenset[str]:
    """Every string of the source, with its gaps."""
    found = (
        text_of(node) for tree in trees().values() for node in ast.walk(tree) if isinstance(node, ast.expr)
    )
    return frozenset(text for text in found if text.strip(GAP))


def pattern(text: str) -> re.Pattern[str]:
    parts = re.sub(f"{GAP}+", GAP, text).split(GAP)
    return re.compile("(.*?)".join(re.escape(part) for part in parts), re.DOTALL)


@functools.cache
def templates() -> tuple[re.Pattern[str], ...]:
    """Those with gaps, and with enough beside them to be told by."""
    return tuple(
        pattern(text) for text in strings() if GAP in text and re.search(r"[A-Za-z]{2}|: | \(", text)
    )


@functools.cache
def others_words() -> frozenset[str]:
    """What the system and OpenSSL say of errors."""
    system = {os.strerror(number) for number in errno.errorcode}
    return frozenset(system | {str(number) for number in errno.errorcode} | verification_words())


def verification_words() -> set[str]:
    return {str(text(lib.X509_verify_cert_error_string(number))) for number in range(200)}


@functools.cache
def is_made_of_the_source(line: str) -> bool:
    if not line or PLACEHOLDERS.fullmatch(line) or line in strings():
        return True
    before, space, last = line.rpartition(" ")
    if PLACEHOLDERS.fullmatch(last) and before + space in strings():
        return True
    return any(
        all(part in others_words() or is_made_of_the_source(part) for part in match.groups())
        for template in templates()
        if (match := template.fullmatch(line))
    )


def told(tree: ast.Module, where: str) -> Iterator[Told]:
    """What a module logs as a warning or worse, and the reasons that it raises for the log."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not node.args:
            continue
        function = node.func
        name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
        if name in TELLS and len(node.args) > TELLS[name]:
            text = text_of(node.args[TELLS[name]])
            if name == "Finding" and ast.unparse(node.args[0]) != "Outcome.REJECTED":
                continue
            if re.search(r"[A-Za-z]{3}", text):
                yield Told(f"{where}:{node.lineno}", text)


def everything_told() -> list[Told]:
    return [
        one
        for path, tree in trees().items()
        if path.relative_to(SOURCE).parts[0] not in ELSEWHERE
        for one in told(tree, str(path.relative_to(SOURCE)))
    ]


@pytest.mark.parametrize("line", quoted_lines())
def test_a_quoted_line_is_one_of_the_source(line: str) -> None:
    assert is_made_of_the_source(line)


def test_what_is_quoted_of_openssl_are_its_words() -> None:
    SSL.Context(SSL.TLS_METHOD)  # which has OpenSSL load its words
    of_ssl = 20 << 23
    known = {text(lib.ERR_reason_error_string(of_ssl | number)) for number in range(1, 2000)}
    assert [words for words in openssl_words() if words not in known] == []


def test_every_warning_and_error_of_the_log_is_quoted() -> None:
    lines = quoted_lines()
    missing = [
        one for one in everything_told() if not any(pattern(one.text).fullmatch(line) for line in lines)
    ]
    assert missing == []


@pytest.mark.parametrize(
    "line", ["Certificate acepted at depth=N: SUBJECT", "No such line", "NAME does nothing"]
)
def test_a_line_that_no_source_has_is_told(line: str) -> None:
    assert not is_made_of_the_source(line)
