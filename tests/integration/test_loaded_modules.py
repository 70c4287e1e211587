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
    loaded = {line.rpartition("|")[2].strip() for line in daemon.log.lines if line.startswith("import time:")}
    assert {"culvert.worker", "culvert.supervisor"} <= loaded
    assert {name for name in loaded if name.split(".")[0] in ("typer", "click", "rich")} == set()
