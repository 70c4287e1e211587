"""What the tests of connecting share: services, listeners that answer or keep silent, names, and a log."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from culvert import config
from culvert.address import Address, HostPort
from culvert.config.model import Service
from culvert.log import Channel, FileSink, Level, Log
from culvert.targets import Connector, Endpoint, Targets, prepare


def service(*options: str) -> Service:
    """A service with these options; each is a line."""
    text = "\n".join(["[tunnel]", "client = yes", "accept = 127.0.0.1:0", *options])
    return config.loads(text, "test.conf").services[0]


class Written:
    """A log of which the text can be read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC)
        self._log = Log([FileSink(fd, None)])
        self.channel: Channel = self._log.channel(config.model.Debug(Level.DEBUG, 3), "test")

    @property
    def text(self) -> str:
        return self._path.read_text()

    def attempts(self, port: int) -> int:
        """How often a client was sent to a port."""
        return self.text.count(f"s_connect: connecting 127.0.0.1:{port}\n")

    def close(self) -> None:
        self._log.close()


def closed_port() -> int:
    """A port on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
    return port


class Listening:
    """A listening socket; `port` is its own. It can keep silent, close, and come back."""

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        self._stack = ExitStack()
        self.host = host
        self.port = port
        self.open()

    def open(self) -> None:
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        self.sock = self._stack.enter_context(
            socket.create_server((self.host, self.port), family=family, backlog=128)
        )
        self.port = self.sock.getsockname()[1]

    def silence(self) -> Listening:
        """Fill its queue: the kernel drops what comes then, and who connects waits."""
        self.sock.listen(0)
        for _ in range(8):
            waiting = self._stack.enter_context(socket.socket(self.sock.family))
            waiting.setblocking(False)
            waiting.connect_ex(self.sock.getsockname())
        return self

    def wake(self) -> None:
        """Let those in who wait."""
        self.sock.listen(128)
        self.sock.setblocking(False)
        try:
            while True:
                self.sock.accept()[0].close()
        except BlockingIOError:
            return

    def endpoint(self, name: str) -> Endpoint:
        return Endpoint(HostPort(name, self.port), self.sock.family, self.sock.getsockname())

    def close(self) -> None:
        self._stack.close()

    def __enter__(self) -> Listening:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Names:
    """Answers look-ups from a table, in the resolver's place; `hold` makes them wait."""

    def __init__(self, **answers: tuple[Endpoint, ...]) -> None:
        self.answers = answers
        self.asked: list[str] = []
        self.hold = threading.Event()
        self.hold.set()

    def find(self, target: Address) -> tuple[Endpoint, ...]:
        assert isinstance(target, HostPort)
        self.asked.append(str(target.host))
        self.hold.wait(20)
        answer = self.answers.get(str(target.host))
        if answer is None:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return answer


def endpoint(name: str, listening: Listening, port: int) -> Endpoint:
    """A listener's address as that of a name with this port."""
    return Endpoint(HostPort(name, port), listening.sock.family, listening.sock.getsockname())


def connector_of(
    chosen: Service,
    log: Written,
    endpoints: Targets | tuple[tuple[Endpoint, ...] | None, ...] | None = None,
    names: Names | None = None,
) -> Connector:
    """A service's connector; `endpoints` in place of what its names are resolved to at start."""
    if isinstance(endpoints, Targets):
        targets = endpoints
    elif endpoints is None:
        targets = prepare(chosen, chosen.connect, log.channel)
    else:
        targets = Targets(chosen.connect, endpoints, ())
    loop = asyncio.get_running_loop()
    if names is None:
        return Connector(loop, chosen, targets, log.channel)
    return Connector(loop, chosen, targets, log.channel, names.find)


async def reached(connector: Connector, log: Written, times: int = 1) -> list[int]:
    """The ports that this many connections, one after the other, came to."""
    ports = []
    for _ in range(times):
        sock, found = await connector.connect(log.channel)
        with sock:
            assert sock.gettimeout() == 0.0
            assert sock.getpeername() == found.sockaddr
            ports.append(int(found.sockaddr[1]))
        connector.release(found)
    return ports


async def until(log: Written, text: str) -> None:
    """Wait for words in the log; the test as a whole is bounded."""
    while text not in log.text:
        await asyncio.sleep(0.01)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208


def opened(tmp_path: Path) -> Iterator[Written]:
    """The body of the fixture `log`."""
    written = Written(tmp_path / "log")
    yield written
    written.close()
