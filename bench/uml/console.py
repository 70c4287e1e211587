"""What a guest tells its host: one record a line on the console, between whatever else is written there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

_MARK = "@guest "

Record = dict[str, Any]


def line(record: Mapping[str, Any]) -> str:
    """A record as one line, without its end."""
    return _MARK + json.dumps(record, ensure_ascii=True)


def records(output: str) -> list[Record]:
    """The records of a console's output in their order. Raises ValueError where one is damaged."""
    found = []
    for text in output.splitlines():
        _, mark, content = text.partition(_MARK)
        if mark:
            found.append(_record(content))
    return found


def _record(content: str) -> Record:
    try:
        record = json.loads(content)
    except (ValueError, RecursionError):
        record = None
    if not isinstance(record, dict):
        raise ValueError(f"a damaged record on the guest's console: {content!r}")
    return record
