"""The commands about a daemon that runs, by Typer: status, connections, reload, stop, level, top."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from culvert.cli.daemon import orders, reading
from culvert.cli.daemon.whereabouts import Asked, locate
from culvert.cli.faults import say
from culvert.cli.invocation import invoke
from culvert.config.values import LEVELS

_USAGE_STATUS = 2

File = Annotated[
    str | None,
    typer.Argument(metavar="FILE", help="the daemon's configuration, for its 'admin' and 'pid'"),
]
Admin = Annotated[
    str | None,
    typer.Option("--admin", metavar="ADDRESS", help="the admin endpoint: [HOST:]PORT, or a socket's path"),
]
TokenFile = Annotated[
    str | None,
    typer.Option(
        metavar="FILE", help="holds the endpoint's token; or CULVERT_ADMIN_TOKEN in the environment"
    ),
]
PidFile = Annotated[str | None, typer.Option(metavar="FILE", help="the daemon's pid file")]
AsJson = Annotated[bool, typer.Option("--json", help="as a JSON document")]


def status(
    file: File = None,
    admin: Admin = None,
    token_file: TokenFile = None,
    pid_file: PidFile = None,
    as_json: AsJson = False,
) -> None:
    """Show how a daemon fares.

    Exit status: 0 it is ready, 3 it does not run, 4 not known, 5 it runs and is not ready.
    """
    where = locate(Asked(file, admin, token_file, pid_file))
    raise typer.Exit(reading.status(where, as_json=as_json))


def connections(  # noqa: PLR0917 - Typer gives them by name
    file: File = None,
    admin: Admin = None,
    token_file: TokenFile = None,
    pid_file: PidFile = None,
    service: Annotated[str | None, typer.Option(metavar="NAME", help="of this service alone")] = None,
    end: Annotated[str | None, typer.Option(metavar="ID", help="end this one, as the log calls it")] = None,
    as_json: AsJson = False,
) -> None:
    """List the connections of a daemon, or end one."""
    where = locate(Asked(file, admin, token_file, pid_file))
    if end is not None:
        if as_json or service is not None:
            say("--end goes alone (culvert connections --help tells more)")
            raise typer.Exit(_USAGE_STATUS)
        raise typer.Exit(reading.end_connection(where, end))
    raise typer.Exit(reading.connections(where, service, as_json=as_json))


def reload(
    file: File = None,
    admin: Admin = None,
    token_file: TokenFile = None,
    pid_file: PidFile = None,
) -> None:
    """Have a daemon read its configuration.

    Exit status: 0 done, 1 failed, 3 no daemon, 4 not known, 5 still under way.
    """
    raise typer.Exit(orders.reload(locate(Asked(file, admin, token_file, pid_file))))


def stop(  # noqa: PLR0917 - Typer gives them by name
    file: File = None,
    admin: Admin = None,
    token_file: TokenFile = None,
    pid_file: PidFile = None,
    now: Annotated[bool, typer.Option("--now", help="do not let connections finish")] = False,
    timeout: Annotated[float, typer.Option(min=0, metavar="SECONDS", help="how long to wait")] = 90,
) -> None:
    """Have a daemon finish and end; wait for it.

    Exit status: 0 it does not run any more, 4 not known, 5 it still drains.
    """
    where = locate(Asked(file, admin, token_file, pid_file))
    raise typer.Exit(orders.stop(where, now=now, timeout=timeout))


def level(
    level: Annotated[
        str, typer.Argument(metavar="LEVEL", autocompletion=lambda: list(LEVELS), help="0 to 7, or its name")
    ],
    file: File = None,
    admin: Admin = None,
    token_file: TokenFile = None,
    service: Annotated[str | None, typer.Option(metavar="NAME", help="of this service alone")] = None,
) -> None:
    """Change what a daemon logs, until its next reload."""
    raise typer.Exit(orders.set_level(locate(Asked(file, admin, token_file)), level, service))


def top(  # noqa: PLR0917 - Typer gives them by name
    file: File = None,
    admin: Admin = None,
    token_file: TokenFile = None,
    interval: Annotated[
        float, typer.Option(min=0.2, max=3600, metavar="SECONDS", help="between two looks")
    ] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="print one view and end")] = False,
    batch: Annotated[bool, typer.Option("--batch", help="print view after view, without a terminal")] = False,
    count: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="end after so many views of --batch")
    ] = None,
) -> None:
    """Show a daemon live: its services, connections and failures."""
    from culvert.cli.top.running import Wishes, run_top  # noqa: PLC0415  the others need nothing of it

    where = locate(Asked(file, admin, token_file))
    raise typer.Exit(run_top(where, Wishes(interval, once=once, batch=batch, count=count)))


def add_to(app: typer.Typer) -> None:
    """Make these commands of the application's."""
    for command in (status, connections, reload, stop, level, top):
        app.command()(command)


def run_daemon_command(arguments: Sequence[str]) -> int:
    """Run one of them, without what the other commands of culvert load, and return its exit status."""
    app = typer.Typer(name="culvert", pretty_exceptions_enable=False, rich_markup_mode=None)
    add_to(app)
    return invoke(app, arguments)
