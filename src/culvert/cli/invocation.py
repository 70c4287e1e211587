"""How a Typer application is called."""

from __future__ import annotations

from collections.abc import Sequence

import typer


def invoke(app: typer.Typer, arguments: Sequence[str]) -> int:
    """Run one command and return its exit status."""
    try:
        app(args=list(arguments), prog_name="culvert")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0
    return 0
