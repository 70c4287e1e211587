"""`culvert status` and `culvert connections`: what a daemon tells."""

from __future__ import annotations

import json
import signal
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from culvert.cli.console import open_console
from culvert.cli.daemon.client import AdminClient
from culvert.cli.daemon.documents import Connections, Status
from culvert.cli.daemon.errors import DaemonError, NobodyListensError, RefusedError
from culvert.cli.daemon.outcomes import Outcome
from culvert.cli.daemon.showing import show_connections, show_status
from culvert.cli.daemon.whereabouts import Whereabouts
from culvert.cli.faults import say


def status(where: Whereabouts, *, as_json: bool) -> Outcome:
    """Show how the daemon fares."""
    try:
        return _by_endpoint(where, as_json=as_json) if where.client else _by_process(where, as_json=as_json)
    except DaemonError as error:
        if as_json:
            _print_json(None, None, str(error), None)
        say(str(error))
        return Outcome.UNKNOWN


def _by_endpoint(where: Whereabouts, *, as_json: bool) -> Outcome:
    assert where.client is not None  # noqa: S101  the caller has looked
    try:
        document = where.client.get("/status")
    except NobodyListensError as error:
        return _by_process(where, as_json=as_json, obstacle=str(error))
    found = Status.of(document)
    if as_json:
        _print_json(True, found.pid, None, document)
    else:
        show_status(found, open_console())
    return Outcome.DONE if found.ready and not found.draining else Outcome.NOT_YET


def _by_process(where: Whereabouts, *, as_json: bool, obstacle: str | None = None) -> Outcome:
    """What can be known without the endpoint, to which there is an `obstacle` where it should be there."""
    process = where.process()
    if process is None:
        reason = where.absence() if obstacle is None or where.pid_file is not None else obstacle
        if as_json:
            _print_json(False, None, reason, None)
        else:
            open_console().print(f"culvert does not run: {reason}", soft_wrap=True)
        return Outcome.NOT_RUNNING
    with process:
        reason = obstacle or "more is known where 'admin' is set"
        if as_json:
            _print_json(True, process.pid, reason, None)
        else:
            open_console().print(f"culvert runs, pid {process.pid}; {reason}", soft_wrap=True)
    return Outcome.DONE if obstacle is None else Outcome.NOT_YET


def _print_json(running: bool | None, pid: int | None, reason: str | None, document: Any) -> None:
    print(json.dumps({"running": running, "pid": pid, "reason": reason, "status": document}, indent=2))


def connections(where: Whereabouts, service: str | None, *, as_json: bool) -> Outcome:
    """List the connections that live; by the pid file alone the log lists them."""
    if where.client is None:
        if as_json or service is not None:
            say(
                "--json and --service need the admin endpoint: by a pid file alone, the log lists connections"
            )
            return Outcome.FAILED
        return _list_in_log(where)
    try:
        document = where.client.get("/connections" + (f"?service={quote(service, '')}" if service else ""))
        found = Connections.of(document)
    except DaemonError as error:
        return failed(error)
    if as_json:
        print(json.dumps(document, indent=2))
    else:
        show_connections(found, open_console())
    return Outcome.DONE


def _list_in_log(where: Whereabouts) -> Outcome:
    try:
        process = where.process()
        if process is None:
            say(f"culvert does not run: {where.absence()}")
            return Outcome.NOT_RUNNING
        with process:
            process.send(signal.SIGUSR2)
            print(f"Process {process.pid} was sent SIGUSR2: the connections are listed in its log")
    except DaemonError as error:
        return failed(error)
    return Outcome.DONE


def end_connection(where: Whereabouts, ident: str) -> Outcome:
    """End the connections that the log calls so."""
    if where.client is None:
        say("A single connection is ended over the admin endpoint, and none is known")
        return Outcome.FAILED
    try:
        ended = request_end(where.client, ident)
    except DaemonError as error:
        return failed(error)
    print(f"{ended} connection(s) ended")
    return Outcome.DONE


def request_end(client: AdminClient, ident: str) -> int:
    """Have a connection ended; how many there were of that name. Raises DaemonError."""
    _, document = client.post(f"/connections/{quote(ident, '')}/end")
    ended = document.get("ended")
    return ended if isinstance(ended, int) else 0


def failed(error: DaemonError) -> Outcome:
    """Say what is wrong; the outcome that it means."""
    say(str(error))
    if isinstance(error, NobodyListensError):
        return Outcome.NOT_RUNNING
    if isinstance(error, RefusedError) and error.status not in (
        HTTPStatus.UNAUTHORIZED,
        HTTPStatus.FORBIDDEN,
    ):
        return Outcome.FAILED
    return Outcome.UNKNOWN
