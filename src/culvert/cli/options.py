"""`culvert options`: the table of options, for people. Rich draws it on a terminal; elsewhere it is lines."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.table import Table
from rich.text import Text

from culvert.cli.option_text import availability_text, default_text
from culvert.config.options import OPTIONS, Availability, Option, Scope

_TITLES = {
    Scope.GLOBAL: "Options of the daemon, before the first [section]",
    Scope.BOTH: "Options of the daemon and of a service",
    Scope.SERVICE: "Options of a service (before the first [section]: defaults for all; what may be repeated "
    "counts beside a section's own)",
}
_PLACES = {
    Scope.GLOBAL: "before the first [section]",
    Scope.BOTH: "before the first [section] for the daemon, in a section for its service",
    Scope.SERVICE: "in a [section], or before the first as the default of all",
}


def show_table(console: Console) -> None:
    """Every option with its default and its purpose, by where it may stand."""
    for scope, title in _TITLES.items():
        options = [option for option in OPTIONS if option.scope is scope]
        if console.is_terminal:
            _draw_table(console, title, options)
        else:
            _print_lines(console, title, options)


def _draw_table(console: Console, title: str, options: Iterable[Option]) -> None:
    table = Table(title=title, title_justify="left", title_style="bold")
    for heading in ("Option", "Default", "Purpose"):
        table.add_column(heading, overflow="fold")
    for option in options:
        style = "" if option.availability is Availability.AVAILABLE else "dim"
        cells = (Text(option.name, "bold"), Text(default_text(option)), Text(_purpose(option)))
        table.add_row(*cells, style=style)
    console.print(table)


def _print_lines(console: Console, title: str, options: Iterable[Option]) -> None:
    console.print(f"{title}:", soft_wrap=True)
    for option in options:
        default = default_text(option)
        suffix = f" (default: {default})" if default else ""
        console.print(f"{option.name:<22} = {_purpose(option)}{suffix}", soft_wrap=True)
    console.print()


def show_option(option: Option, console: Console) -> None:
    """All that the table says of one option."""
    stands = _PLACES[option.scope]
    if option.repeatable and option.scope is Scope.SERVICE:
        stands = "in a [section], or before the first, where it counts for all of them, beside their own"
    facts = {
        "purpose": option.help,
        "takes": option.form.takes,
        "default": default_text(option) or "none",
        "stands": stands,
        "repeatable": "yes" if option.repeatable else "no",
        "also named": ", ".join(option.aliases),
        "since": option.since,
        "note": availability_text(option),
    }
    console.print(Text(option.name, "bold"), soft_wrap=True)
    for label, value in facts.items():
        if value:
            console.print(Text(f"  {label:<12}{value}"), soft_wrap=True)


def _purpose(option: Option) -> str:
    note = availability_text(option)
    return f"{option.help} [{note}]" if note else option.help
