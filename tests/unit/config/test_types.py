"""The tree holds what its annotations say: the loader builds it from the table, where mypy cannot look."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from culvert import config

VALID = sorted((Path(__file__).parents[2] / "corpus" / "valid").glob("*.conf"))


def fits(value: Any, annotation: Any) -> bool:
    """Whether a value is what an annotation of the model says; bool and int are not mixed up."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is types.UnionType:
        return any(fits(value, argument) for argument in arguments)
    if origin is Mapping:
        return all(fits(k, arguments[0]) and fits(v, arguments[1]) for k, v in value.items())
    if origin is tuple:
        items = (arguments[0],) * len(value) if arguments[-1] is Ellipsis else arguments
        return type(value) is tuple and len(value) == len(items) and all(map(fits, value, items))
    return type(value) is annotation


def misfits(node: Any) -> list[str]:
    """The fields of a dataclass, and of those inside it, that do not fit."""
    found = []
    hints = typing.get_type_hints(type(node))
    for field in dataclasses.fields(node):
        value = getattr(node, field.name)
        if not fits(value, hints[field.name]):
            found.append(f"{type(node).__name__}.{field.name} = {value!r}")
        for item in value if isinstance(value, tuple) else (value,):
            if dataclasses.is_dataclass(item):
                found += misfits(item)
    return found


@pytest.mark.parametrize("path", VALID, ids=lambda path: path.stem)
def test_types(path: Path) -> None:
    assert misfits(config.load(str(path))) == []
