"""What docs/troubleshooting.md quotes, for the tests that hold it against the source and real runs."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "troubleshooting.md"
PLACEHOLDER = (
    r"(?:NAME|ADDRESS|FILE|REASON|SUBJECT|OPTION|VALUE|NUMBER|VERSION|USER|SIGNAL|CODE|DATE|MODE|TEXT|N|M)"
)
"""A word of the page that stands for what varies."""


def _cells(heading: str, column: int) -> list[str]:
    """What stands in backticks in one column of the tables that have this heading there."""
    found: list[str] = []
    inside = False
    for row in PAGE.read_text().splitlines():
        cells = [cell.strip() for cell in row.split(" | ")] if row.startswith("| ") else []
        cells = [cell.strip("| ") for cell in cells]
        if not cells:
            inside = False
        elif len(cells) > column and cells[column] == heading:
            inside = True
        elif inside and not cells[0].startswith("---"):
            found += re.findall(r"`([^`]+)`", cells[column])
    return found


def quoted_lines() -> list[str]:
    """The log lines."""
    return _cells("line", 1)


def openssl_words() -> list[str]:
    """The reasons that OpenSSL gives."""
    return _cells("OpenSSL's words", 0)


def as_pattern(line: str) -> str:
    """What finds a quoted line in a real log: a placeholder is anything."""
    assert line in quoted_lines(), f"docs/troubleshooting.md does not quote: {line}"
    parts = re.split(rf"\b{PLACEHOLDER}\b", line)
    return ".+".join(re.escape(part) for part in parts)
