"""The private binding: every function that Culvert calls is there, is named, and none is named in vain."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from culvert.tls import _openssl
from culvert.tls._openssl import REQUIRED, lib, missing

SOURCES = sorted(Path(_openssl.__file__).parent.glob("*.py"))


def names_used(path: Path) -> Iterator[str]:
    """The attributes of `lib` or `_lib` in a source file."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        match node:
            case ast.Attribute(value=ast.Name(id="lib" | "_lib"), attr=name):
                yield name


USED = frozenset(name for path in SOURCES for name in names_used(path))


def is_function(name: str) -> bool:
    return callable(getattr(lib, name))


def test_nothing_is_missing() -> None:
    assert missing() == []


def test_what_is_missing_is_said_by_name() -> None:
    assert missing(("SSL_read", "SSL_reads_minds")) == ["SSL_reads_minds"]


def test_every_function_in_use_is_required() -> None:
    assert sorted(name for name in USED if is_function(name) and name not in REQUIRED) == []


def test_every_constant_in_use_is_there() -> None:
    assert sorted(name for name in USED if not hasattr(lib, name)) == []


def test_every_required_function_is_in_use() -> None:
    assert sorted(set(REQUIRED) - USED) == []


def test_the_list_is_sorted_and_has_no_name_twice() -> None:
    assert list(REQUIRED) == sorted(set(REQUIRED))
