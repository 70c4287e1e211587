"""What nobody waits for in an event loop, told to the log: whole, at a critical level, and harmless."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from culvert.config.model import Debug
from culvert.log import FileSink, Log
from culvert.worker import LOOP_VARIABLE, report_faults, running_loop

Body = Callable[[asyncio.AbstractEventLoop], Coroutine[Any, Any, None]]

HOSTILE = "a peer's bytes \x1b[2J\nLOG5[main]: forged"


@pytest.fixture(params=["uvloop", "asyncio"])
def reported(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Body], list[str]]:
    """Runs a coroutine function in an event loop that reports to a log, and gives the log's lines."""
    monkeypatch.setenv(LOOP_VARIABLE, request.param)

    def run(body: Body) -> list[str]:
        path = tmp_path / "log"
        with path.open("ab") as file:
            log = Log([FileSink(file.fileno(), None)])
            with running_loop() as loop:
                report_faults(loop, log.channel(Debug(2, 3), "main"))
                loop.run_until_complete(body(loop))
        return path.read_text().splitlines()

    return run


def fail() -> None:
    raise ValueError(HOSTILE)


async def pass_turns() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


async def failing_callback(loop: asyncio.AbstractEventLoop) -> None:
    loop.call_soon(fail)
    await pass_turns()


async def forgotten_task(loop: asyncio.AbstractEventLoop) -> None:
    async def work() -> None:
        fail()

    loop.create_task(work())
    await pass_turns()
    gc.collect()


@pytest.mark.parametrize("body", [failing_callback, forgotten_task])
def test_it_is_in_the_log_and_not_on_standard_error(
    reported: Callable[[Body], list[str]], body: Body, capfd: pytest.CaptureFixture[str]
) -> None:
    lines = reported(body)
    assert "failed by a fault of culvert itself" in lines[0]
    assert any(", in fail" in line for line in lines), "the traceback is there"
    assert all("LOG2[main]: " in line for line in lines)
    assert capfd.readouterr() == ("", "")


def test_a_peers_bytes_forge_no_line(reported: Callable[[Body], list[str]]) -> None:
    lines = reported(failing_callback)
    assert any("ValueError: a peer's bytes .[2J" in line for line in lines)
    assert not any("\x1b" in line for line in lines)
    assert all(line.split(" ")[2] == "LOG2[main]:" for line in lines)


def test_what_comes_without_an_exception_is_one_line(
    reported: Callable[[Body], list[str]], capfd: pytest.CaptureFixture[str]
) -> None:
    async def complain(loop: asyncio.AbstractEventLoop) -> None:
        loop.call_exception_handler({"message": "Task was destroyed but it is pending!"})

    (line,) = reported(complain)
    assert line.endswith("LOG2[main]: Task was destroyed but it is pending!")
    assert capfd.readouterr() == ("", "")
