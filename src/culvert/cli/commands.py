"""The commands for people, by Typer; and the help on all of them.

`dispatch` takes the well-formed calls of `run` and everything under stunnel's name before this module is
imported. They stand here too for the help, the completion and the messages on a wrong use.
"""

from __future__ import annotations

import datetime
import enum
from collections.abc import Sequence
from typing import Annotated

import typer

from culvert.cli import check as checking
from culvert.cli import options as listing
from culvert.cli.ca import ca_app
from culvert.cli.console import open_console
from culvert.cli.daemon.commands import add_to
from culvert.cli.demo import run_demo
from culvert.cli.faults import CONFIGURATION_STATUS, say
from culvert.cli.invocation import invoke
from culvert.cli.running import run_file
from culvert.cli.stunnel import stunnel as run_stunnel
from culvert.cli.trace import trace
from culvert.cli.version import versions
from culvert.config.options import OPTIONS, find, names
from culvert.config.values import meant

app = typer.Typer(
    name="culvert",
    help="TLS tunnels for programs that know nothing of TLS. `culvert FILE` runs FILE.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(ca_app)
app.command()(trace)
add_to(app)


class Format(enum.StrEnum):
    """How `check` prints what it found."""

    TEXT = "text"
    JSON = "json"


def run_command(arguments: Sequence[str]) -> int:
    """Run one command and return its exit status."""
    return invoke(app, arguments)


@app.command()
def run(file: Annotated[str, typer.Argument(metavar="FILE")]) -> None:
    """Run the tunnels of a configuration."""
    raise typer.Exit(run_file(file))


@app.command()
def check(
    file: Annotated[str, typer.Argument(metavar="FILE")],
    form: Annotated[
        Format, typer.Option("--format", help="text for people, json for programs")
    ] = Format.TEXT,
) -> None:
    """Find what is wrong or insecure in a configuration."""
    report = checking.check(file, datetime.datetime.now(datetime.UTC))
    if form is Format.JSON:
        print(checking.to_json(report))
    else:
        checking.show_text(report, open_console())
    raise typer.Exit(0 if report.ok else CONFIGURATION_STATUS)


@app.command()
def demo() -> None:
    """Show a tunnel at work, both ends, on this machine."""
    raise typer.Exit(run_demo())


def _complete_option(incomplete: str) -> list[tuple[str, str]]:
    typed = incomplete.lower()
    return [(option.name, option.help) for option in OPTIONS if option.name.lower().startswith(typed)]


@app.command()
def options(
    name: Annotated[str | None, typer.Argument(metavar="NAME", autocompletion=_complete_option)] = None,
) -> None:
    """List the options of a configuration, or explain one."""
    if name is None:
        listing.show_table(open_console())
        return
    option = find(name)
    if option is None:
        hint = meant(name, names())
        say(f'No option is named "{name}"' + (f" ({hint})" if hint else ""))
        raise typer.Exit(CONFIGURATION_STATUS)
    listing.show_option(option, open_console())


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True}, add_help_option=False
)
def stunnel(context: typer.Context) -> None:
    """Take stunnel's own command line (see stunnel -help)."""
    raise typer.Exit(run_stunnel(context.args))


@app.command()
def version() -> None:
    """Show the versions of Culvert and what it stands on."""
    for part, number in versions().items():
        print(f"{part:<12} {number}")
