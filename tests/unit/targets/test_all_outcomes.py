"""Every combination of targets that answer, refuse and keep silent: who is reached, and how soon."""

from __future__ import annotations

import asyncio
import itertools
import socket

import pytest

from culvert.address import HostPort
from culvert.errors import ConnectError
from culvert.targets import Endpoint, Targets

from ..loops import Run
from .targets import Listening, Written, closed_port, connector_of, descriptors, service

TIMEOUT = 1.0

SLACK = 0.5
"""Seconds by which a busy machine may be late."""

COMBINATIONS = ["".join(states) for length in (1, 2, 3) for states in itertools.product("ars", repeat=length)]
"""Strings of a(nswers), r(efuses) and s(ilent)."""


@pytest.mark.parametrize("failover", ["prio", "rr", "leastconn"])
@pytest.mark.parametrize("shape", ["targets", "addresses"])
def test_a_living_target_is_reached_in_time(run: Run, log: Written, failover: str, shape: str) -> None:
    async def main() -> None:
        with Listening() as answering, Listening() as silent:
            silent.silence()
            ports = {"a": answering, "s": silent}
            refusing = closed_port()

            async def attempt(combination: str) -> None:
                lines: list[str] = []
                known: list[Endpoint] = []
                for number, state in enumerate(combination):
                    listening = ports.get(state)
                    port = refusing if listening is None else listening.port
                    name = "name.test" if shape == "addresses" else f"name{number}.test"
                    lines.append(f"connect = {name}:1")
                    known.append(Endpoint(HostPort(name, 1), socket.AF_INET, ("127.0.0.1", port)))
                groups: list[tuple[Endpoint, ...]] = [(one,) for one in known]
                if shape == "addresses":
                    lines, groups = lines[:1], [tuple(dict.fromkeys(known))]
                chosen = service(*lines, f"failover = {failover}", f"TIMEOUTconnect = {TIMEOUT}")
                connector = connector_of(chosen, log, tuple(groups))
                start = asyncio.get_running_loop().time()
                try:
                    sock, found = await connector.connect(log.channel)
                except ConnectError:
                    assert "a" not in combination
                else:
                    with sock:
                        assert sock.getpeername()[1] == answering.port
                    connector.release(found)
                assert asyncio.get_running_loop().time() - start < TIMEOUT + SLACK, combination
                assert all(state.open == 0 for state in connector.states()), combination

            before = descriptors()
            await asyncio.gather(*map(attempt, COMBINATIONS))
            assert descriptors() == before

    run(main())


def test_what_one_worker_finds_the_others_need_not(run: Run, log: Written) -> None:
    """Two connectors of the same targets, as two workers have them: one meets the dead target, once."""

    async def main() -> None:
        with Listening() as dying, Listening() as living:
            chosen = service(f"connect = 127.0.0.1:{dying.port}", f"connect = 127.0.0.1:{living.port}")
            known = tuple((one.endpoint("127.0.0.1"),) for one in (dying, living))
            shared = Targets(chosen.connect, known, ())
            first, second = (connector_of(chosen, log, shared) for _ in range(2))
            dying.close()
            for connector in (first, second, first, second):
                sock, found = await connector.connect(log.channel)
                sock.close()
                assert found.sockaddr[1] == living.port
                connector.release(found)
            assert log.attempts(dying.port) == 1
            dying.open()
            living.close()
            for connector in (second, first):
                sock, found = await connector.connect(log.channel)
                sock.close()
                assert found.sockaddr[1] == dying.port
                connector.release(found)
            assert log.text.count(f"127.0.0.1:{dying.port} is set aside") == 1
            assert log.text.count(f"127.0.0.1:{dying.port} answers again") == 1
            assert log.attempts(living.port) == 5, "the first one heeds that it is gone"

    run(main())
