"""One worker at the other end of its channel: a real process that does as it is told."""

from __future__ import annotations

import os
import resource
import select
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from culvert import control
from culvert.control import Action, Request
from culvert.generation import Generation
from culvert.worker import HEED_AFTER

from .forked import PATIENCE, bound_life
from .generations import Loader, free_port, service

LOOPS = ("uvloop", "asyncio")


class Child:
    """A forked worker of a generation, and the supervisor's end of its channel."""

    def __init__(self, generation: Generation, index: int = 0) -> None:
        self.channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.channel.settimeout(PATIENCE)
        self.pid = os.fork()
        if self.pid == 0:
            status = 99
            try:
                bound_life()
                self.channel.close()
                status = generation.run_worker(theirs, index)
            finally:
                os._exit(status)
        theirs.close()
        self._watch = os.pidfd_open(self.pid)
        self._ended = False
        assert self.hear() == control.READY

    def hear(self) -> bytes:
        """The next thing that it says; empty at its end."""
        try:
            return self.channel.recv(control.MESSAGE_LIMIT)
        except ConnectionResetError:
            return b""

    def tell(self, message: bytes) -> None:
        """Say something to it."""
        self.channel.send(message)

    def lives(self) -> bool:
        """Whether it has not ended yet."""
        return not select.select([self._watch], [], [], 0)[0]

    def ask(self, request: Request) -> bytes:
        """Pass on what the admin endpoint asks for; what is answered until it is done."""
        answered = b""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours:
            with theirs:
                socket.send_fds(self.channel, [request.encode()], [theirs.fileno()])
            ours.settimeout(PATIENCE)
            while answer := ours.recv(65536):
                answered += answer
        return answered

    def wait(self) -> int:
        """Its exit status, once it ends by itself."""
        assert select.select([self._watch], [], [], PATIENCE)[0], "the worker goes on"
        self._ended = True
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def close(self) -> None:
        """End it, if nothing else did."""
        if not self._ended:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self._watch)
        self.channel.close()


@pytest.fixture(params=LOOPS)
def start(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Child]]:
    """Starts workers on each of the two event loops."""
    monkeypatch.setenv("CULVERT_LOOP", request.param)
    children: list[Child] = []

    def start(generation: Generation, index: int = 0) -> Child:
        children.append(Child(generation, index))
        return children[-1]

    yield start
    for child in children:
        child.close()


Start = Callable[..., Child]


@pytest.fixture
def port() -> int:
    """Where the service listens."""
    return free_port()


@pytest.fixture
def generation(loader: Loader, port: int) -> Generation:
    """A server that speaks TLS with whoever connects, and waits long for him to begin."""
    return loader.build("debug = 7\n" + service(f"127.0.0.1:{port}"))


def dial(port: int) -> socket.socket:
    """A client that says nothing."""
    return socket.create_connection(("127.0.0.1", port), PATIENCE)


def await_line(loader: Loader, words: str) -> str:
    """The log once these words are in it."""
    for _ in range(int(PATIENCE / 0.02)):
        if words in loader.log():
            return loader.log()
        select.select([], [], [], 0.02)
    raise AssertionError(f"{words!r} is not in the log:\n{loader.log()}")


def descriptors(pid: int) -> list[int]:
    """The numbers of a process's open descriptors."""
    return [int(entry.name) for entry in Path(f"/proc/{pid}/fd").iterdir()]


def starve(child: Child, port: int) -> list[socket.socket]:
    """Take all descriptors that a worker may have, by clients, which are returned."""
    limit = max(descriptors(child.pid)) + 4
    resource.prlimit(child.pid, resource.RLIMIT_NOFILE, (limit, limit))
    return [dial(port) for _ in range(limit)]


class TestStop:
    @pytest.mark.parametrize("farewell", ["word", "the supervisor's end"])
    def test_it_ends_at_once_with_0(
        self, start: Start, generation: Generation, loader: Loader, port: int, farewell: str
    ) -> None:
        child = start(generation)
        with dial(port) as client:
            await_line(loader, "accepted connection")
            if farewell == "word":
                child.tell(control.STOP)
            else:
                child.channel.close()
            assert child.wait() == 0
            assert client.recv(1) == b""

    @pytest.mark.parametrize(
        "number", [signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2]
    )
    def test_signals_are_the_supervisors(
        self, start: Start, generation: Generation, loader: Loader, number: signal.Signals
    ) -> None:
        child = start(generation)
        os.kill(child.pid, number)
        child.tell(control.LIST)
        await_line(loader, "0 open")
        assert child.lives()


class TestDrain:
    def test_it_says_that_it_accepts_nothing_more(
        self, start: Start, generation: Generation, port: int
    ) -> None:
        child = start(generation)
        child.tell(control.DRAIN)
        assert child.hear() == control.counted(control.DRAINING, 0)
        assert child.wait() == 0

    def test_it_ends_with_its_last_connection(
        self, start: Start, generation: Generation, loader: Loader, port: int
    ) -> None:
        child = start(generation)
        with dial(port):
            await_line(loader, "accepted connection")
            child.tell(control.DRAIN)
            assert child.hear() == control.counted(control.DRAINING, 1)
            child.tell(control.LIST)
            await_line(loader, "1 open")
            assert child.lives()
        assert child.wait() == 0

    def test_its_port_is_closed_once_nobody_else_has_it(
        self, start: Start, generation: Generation, loader: Loader, port: int
    ) -> None:
        child = start(generation)
        with dial(port):
            await_line(loader, "accepted connection")
            generation.retire(None)
            child.tell(control.DRAIN)
            assert child.hear() == control.counted(control.DRAINING, 1)
            with pytest.raises(ConnectionRefusedError):
                dial(port)

    def test_twice_is_once(self, start: Start, generation: Generation, loader: Loader, port: int) -> None:
        child = start(generation)
        with dial(port):
            await_line(loader, "accepted connection")
            child.tell(control.DRAIN)
            child.tell(control.DRAIN)
            assert child.hear() == control.counted(control.DRAINING, 1)
        assert child.hear() == b""
        assert child.wait() == 0

    def test_it_does_not_wait_for_a_program_whose_turn_another_has(
        self, start: Start, loader: Loader
    ) -> None:
        text = (
            f"[own]\nexec = /bin/sleep\nexecArgs = sleep 60\nconnect = 127.0.0.1:{free_port()}\nretry = yes\n"
        )
        generation = loader.build("debug = 7\n" + text)
        first = start(generation)
        await_line(loader, "Starting exec+connect service [own]")
        second = start(generation)
        second.tell(control.DRAIN)
        assert second.hear() == control.counted(control.DRAINING, 0)
        assert second.wait() == 0
        assert first.lives()


class TestTerminated:
    """SIGTERM to the worker itself."""

    def test_it_ends_one_whose_successors_serve(
        self, start: Start, generation: Generation, loader: Loader, port: int
    ) -> None:
        child = start(generation)
        with dial(port) as client:
            await_line(loader, "accepted connection")
            child.tell(control.DRAIN)
            assert child.hear() == control.counted(control.DRAINING, 1)
            os.kill(child.pid, signal.SIGTERM)
            assert child.hear() == control.counted(control.ENDING, 1)
            assert client.recv(1) == b""
        assert child.wait() == 0

    @pytest.mark.parametrize("order", ["signal first", "word first"])
    def test_it_is_the_supervisors_where_the_daemon_ends(
        self, start: Start, generation: Generation, loader: Loader, port: int, order: str
    ) -> None:
        child = start(generation)
        with dial(port):
            await_line(loader, "accepted connection")
            child.tell(control.DRAIN)
            assert child.hear() == control.counted(control.DRAINING, 1)
            if order == "signal first":
                os.kill(child.pid, signal.SIGTERM)
            child.tell(control.FINISH)
            assert child.hear() == control.counted(control.DRAINING, 1)
            os.kill(child.pid, signal.SIGTERM)
            time.sleep(2 * HEED_AFTER)
            child.tell(control.ASK)
            assert child.hear() == control.ALIVE
        assert child.wait() == 0

    def test_one_that_serves_leaves_it_to_the_supervisor(self, start: Start, generation: Generation) -> None:
        child = start(generation)
        os.kill(child.pid, signal.SIGTERM)
        time.sleep(2 * HEED_AFTER)
        child.tell(control.ASK)
        assert child.hear() == control.ALIVE


class TestLevel:
    def test_it_changes_for_open_connections_too(self, start: Start, loader: Loader, port: int) -> None:
        child = start(loader.build("debug = 5\n" + service(f"127.0.0.1:{port}")))
        with dial(port) as client:
            await_line(loader, "accepted connection")
            child.ask(Request(Action.LEVEL, level=7, service="one"))
            child.tell(control.LIST)
            await_line(loader, "1 open")
            client.close()
            await_line(loader, "Connection summary: ")

    def test_it_changes_for_nobody_where_the_service_is_another(
        self, start: Start, loader: Loader, port: int
    ) -> None:
        child = start(loader.build("debug = 5\n" + service(f"127.0.0.1:{port}")))
        child.ask(Request(Action.LEVEL, level=0, service="other"))
        with dial(port):
            await_line(loader, "accepted connection")


class TestLog:
    def test_it_goes_on_in_the_files_that_it_is_given(
        self, start: Start, generation: Generation, loader: Loader, tmp_path: Path
    ) -> None:
        child = start(generation)
        fresh = tmp_path / "fresh"
        fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC)
        socket.send_fds(child.channel, [control.LOG], [fd])
        os.close(fd)
        before = loader.log()
        child.tell(control.LIST)
        child.tell(control.STOP)
        assert child.wait() == 0
        assert "0 open" in fresh.read_text()
        assert loader.log() == before

    def test_it_takes_them_also_when_it_has_no_descriptor_left(
        self, start: Start, generation: Generation, loader: Loader, tmp_path: Path, port: int
    ) -> None:
        child = start(generation)
        clients = starve(child, port)
        fresh = tmp_path / "fresh"
        fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC)
        await_line(loader, "accepts nothing for")
        socket.send_fds(child.channel, [control.LOG], [fd])
        os.close(fd)
        child.tell(control.LIST)
        child.tell(control.STOP)
        assert child.wait() == 0
        for client in clients:
            client.close()
        assert " open; " in fresh.read_text()


class TestRequests:
    def test_one_is_heard_also_when_there_is_no_descriptor_left(
        self, start: Start, generation: Generation, loader: Loader, port: int
    ) -> None:
        child = start(generation)
        clients = starve(child, port)
        await_line(loader, "accepts nothing for")
        assert b'{"total": ' in child.ask(Request(Action.LIST, limit=1))
        for client in clients:
            client.close()
        child.tell(control.STOP)
        assert child.wait() == 0


class TestServices:
    def test_a_program_without_clients_is_run_by_the_first_worker_alone(
        self, start: Start, loader: Loader, port: int
    ) -> None:
        text = f"[own]\nexec = /bin/cat\nconnect = 127.0.0.1:{free_port()}\nretry = yes\n"
        generation = loader.build("debug = 7\n" + service(f"127.0.0.1:{port}") + text)
        second = start(generation, 1)
        second.tell(control.LIST)
        assert "Service [own] in process" not in await_line(loader, "Service [one] in process")
        second.tell(control.STOP)
        assert second.wait() == 0
        first = start(generation, 0)
        await_line(loader, "Starting exec+connect service [own]")
        first.tell(control.STOP)
        assert first.wait() == 0
