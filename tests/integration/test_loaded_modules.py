"""What a running daemon carries: the modules of the command line for people are no part of it."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable

import pytest

from .harness import Culvert

SERVICE = """\
[tunnel]
client = yes
accept = 127.0.0.1:0
connect = 127.0.0.1:1
"""


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("command", [("run",), (), ("stunnel",)], ids=["run", "file", "stunnel"])
def test_neither_supervisor_nor_worker_loads_typer_or_rich(
    culvert: Callable[..., Culvert], command: tuple[str, ...], workers: int
) -> None:
    """With this variable Python writes a line for each module that any of the processes loads."""
    environment = {"PYTHONPROFILEIMPORTTIME": "1"}
    daemon = culvert(SERVICE, command=command, workers=workers, environment=environment)
    with (
        contextlib.suppress(ConnectionResetError),  # it may be quicker than the call that connects
        socket.create_connection(daemon.address("tunnel"), 10),
    ):
        daemon.await_log("Connection (closed|reset)|Connection refused")
    daemon.await_log("Connection (closed|reset)|Connection refused")
    daemon.stop()
    loaded = modules(daemon)
    assert {"culvert.worker", "culvert.supervisor"} <= loaded
    assert {name for name in loaded if name.split(".")[0] in ("typer", "click", "rich")} == set()


@pytest.mark.parametrize("workers", [0, 1])
def test_what_watches_files_is_loaded_by_its_own_process_alone(
    culvert: Callable[..., Culvert], workers: int
) -> None:
    environment = {"PYTHONPROFILEIMPORTTIME": "1"}
    daemon = culvert(f"watch = yes\n{SERVICE}", workers=workers, environment=environment)
    daemon.await_log("watches 0 path")
    daemon.stop()
    assert {name for name in modules(daemon) if name.split(".")[0] in ("watchfiles", "anyio")} == set()


def modules(daemon: Culvert) -> set[str]:
    """What the processes loaded that share the log's descriptor: all but the one that watches files."""
    return {line.rpartition("|")[2].strip() for line in daemon.log.lines if line.startswith("import time:")}
