"""How a configuration becomes a generation: what it binds, what it shares, and what a failed build leaves."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from culvert.errors import ConfigurationError
from culvert.generation import Generation

from .forked import bound_life
from .generations import Loader, free_port, service

NOBODY = 65534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")

LISTENING_TTL = 77


@pytest.fixture
def busy() -> Iterator[int]:
    """A port that somebody else listens at."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        yield taken.getsockname()[1]


def sockets(generation: Generation) -> list[socket.socket]:
    """Every listening socket."""
    listeners = [prepared.listener for prepared in generation.services]
    return [sock for listener in listeners if listener is not None for sock in listener.sockets]


def descriptors() -> int:
    """How many descriptors this process has open."""
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - a count of names is all


class TestSharing:
    def test_what_is_bound_already_is_the_same_socket(self, loader: Loader) -> None:
        text = service(f"127.0.0.1:{free_port()}")
        first = loader.build(text)
        second = loader.build(text + service(f"127.0.0.1:{free_port()}", "two"), first)
        assert sockets(second)[0] is sockets(first)[0]
        first.retire(second)
        assert all(sock.fileno() >= 0 for sock in sockets(second))

    def test_the_end_of_a_generation_closes_what_is_not_shared(self, loader: Loader) -> None:
        kept, gone = free_port(), free_port()
        first = loader.build(service(f"127.0.0.1:{kept}") + service(f"127.0.0.1:{gone}", "two"))
        second = loader.build(service(f"127.0.0.1:{kept}"), first)
        first.retire(second)
        assert [sock.fileno() >= 0 for sock in sockets(first)] == [True, False]

    def test_another_name_is_no_other_socket(self, loader: Loader) -> None:
        port = free_port()
        first = loader.build(service(f"127.0.0.1:{port}", "one"))
        assert sockets(loader.build(service(f"127.0.0.1:{port}", "two"), first)) == sockets(first)

    def test_socket_options_follow_the_file_once_it_is_in_force(self, loader: Loader) -> None:
        accept = f"127.0.0.1:{free_port()}"
        first = loader.build(service(accept))
        [listening] = sockets(first)
        before = listening.getsockopt(socket.IPPROTO_IP, socket.IP_TTL)
        second = loader.build(service(accept, more=f"socket = a:IP_TTL={LISTENING_TTL}\n"), first)
        second.announce()
        assert listening.getsockopt(socket.IPPROTO_IP, socket.IP_TTL) == LISTENING_TTL
        loader.build(service(accept), second).announce()
        assert listening.getsockopt(socket.IPPROTO_IP, socket.IP_TTL) == before

    def test_another_spelling_of_the_address_is_no_other_socket(self, loader: Loader) -> None:
        port = free_port()
        first = loader.build(service(f"127.0.0.1:{port}"))
        second = loader.build(service(f"localhost:{port}"), first)
        assert sockets(second)[0] is sockets(first)[0]

    def test_connections_are_numbered_on(self, loader: Loader) -> None:
        text = service(f"127.0.0.1:{free_port()}")
        first = loader.build(text)
        assert next(iter(first.numbers)) < next(iter(loader.build(text, first).numbers))


class TestFailure:
    def test_what_was_bound_is_closed(self, loader: Loader, busy: int) -> None:
        port = free_port()
        before = descriptors()
        said = loader.refuse(service(f"127.0.0.1:{port}") + service(f"127.0.0.1:{busy}", "two"))
        assert "Binding service [two] failed" in said
        assert descriptors() == before
        socket.create_server(("127.0.0.1", port)).close()

    def test_a_unix_socket_is_removed_again(self, loader: Loader, tmp_path: Path, busy: int) -> None:
        loader.refuse(service(tmp_path / "socket") + service(f"127.0.0.1:{busy}", "two"))
        assert not (tmp_path / "socket").exists()

    def test_the_generation_before_keeps_its_sockets(self, loader: Loader, busy: int) -> None:
        text = service(f"127.0.0.1:{free_port()}")
        first = loader.build(text)
        loader.refuse(text + service(f"127.0.0.1:{busy}", "two"), first)
        assert all(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) for sock in sockets(first))

    def test_the_generation_before_keeps_its_socket_options(self, loader: Loader, busy: int) -> None:
        accept = f"127.0.0.1:{free_port()}"
        first = loader.build(service(accept))
        [listening] = sockets(first)
        before = listening.getsockopt(socket.IPPROTO_IP, socket.IP_TTL)
        changed = service(accept, more=f"socket = a:IP_TTL={LISTENING_TTL}\n")
        loader.refuse(changed + service(f"127.0.0.1:{busy}", "two"), first)
        assert listening.getsockopt(socket.IPPROTO_IP, socket.IP_TTL) == before != LISTENING_TTL

    def test_the_log_of_a_running_daemon_is_not_emptied_by_a_second(self, loader: Loader, busy: int) -> None:
        (loader.folder / "log").write_text("of the one that runs\n")
        loader.head += "log = overwrite\n"
        loader.refuse(service(f"127.0.0.1:{busy}"))
        assert loader.log().startswith("of the one that runs\n")


class TestFixedOptions:
    @pytest.mark.parametrize(
        ("before", "after"),
        [
            ("workers = 2\n", "workers = 0\n"),
            ("workers = 0\n", "workers = 2\n"),
            ("pid = /one.pid\n", "pid = /two.pid\n"),
            ("", "foreground = no\n"),
        ],
        ids=["to one process", "from one process", "pid", "foreground"],
    )
    def test_a_reload_keeps_the_value_and_says_so(self, loader: Loader, before: str, after: str) -> None:
        text = service(f"127.0.0.1:{free_port()}")
        first = loader.build(before + text)
        second = loader.build(after + text, first)
        name = after.partition(" ")[0]
        assert getattr(second.options, name) == getattr(first.options, name)
        assert second.workers == first.workers
        assert f"A reload does not change '{name}'" in loader.log()

    def test_the_number_of_workers_may_change(self, loader: Loader) -> None:
        text = service(f"127.0.0.1:{free_port()}")
        first = loader.build("workers = 1\n" + text)
        assert loader.build("workers = 3\n" + text, first).workers == 3


class TestUnixSockets:
    @needs_root
    def test_one_is_given_to_its_user_and_group(self, loader: Loader, tmp_path: Path) -> None:
        path = tmp_path / "socket"
        loader.build(service(path, more="setuid = nobody\nsetgid = nogroup\n"))
        assert (path.stat().st_uid, path.stat().st_gid) == (NOBODY, NOBODY)

    @needs_root
    def test_what_is_put_in_its_place_meanwhile_is_not_given_away(
        self, loader: Loader, tmp_path: Path
    ) -> None:
        treasure = tmp_path / "treasure"
        treasure.touch(mode=0o600)
        theirs = tmp_path / "theirs"
        theirs.mkdir()
        path = theirs / "socket"
        thief = background(lambda: replace_for_ever(path, treasure))
        try:
            for _ in range(60):
                try_to_build(lambda: loader.build(service(path, more="setuid = nobody\n")))
                if treasure.stat().st_uid == NOBODY:
                    break
        finally:
            os.kill(thief, 9)
            os.waitpid(thief, 0)
        assert treasure.stat().st_uid == 0

    @needs_root
    def test_a_reload_gives_it_to_another_user(self, loader: Loader, tmp_path: Path) -> None:
        path = tmp_path / "socket"
        first = loader.build(service(path))
        loader.build(service(path, more="setuid = nobody\n"), first).announce()
        assert path.stat().st_uid == NOBODY

    def test_one_is_removed_in_the_end(self, loader: Loader, tmp_path: Path) -> None:
        generation = loader.build(service(tmp_path / "socket"))
        assert stat.S_ISSOCK((tmp_path / "socket").stat().st_mode)
        generation.retire(None)
        assert not (tmp_path / "socket").exists()

    def test_what_took_its_place_is_not_removed(self, loader: Loader, tmp_path: Path) -> None:
        path = tmp_path / "socket"
        generation = loader.build(service(path))
        path.unlink()
        path.write_text("somebody else's")
        generation.retire(None)
        assert path.read_text() == "somebody else's"


def try_to_build(build: Callable[[], Generation]) -> None:
    """Build and end a generation; that it cannot be built is as good."""
    try:
        build().retire(None)
    except ConfigurationError:
        return


def background(body: Callable[[], None]) -> int:
    """The pid of a process that does this until it is killed."""
    child = os.fork()
    if child == 0:
        bound_life()
        try:
            body()
        finally:
            os._exit(1)
    return child


def replace_for_ever(path: Path, target: Path) -> None:
    """Put a link to `target` in the place of a socket as soon as there is one."""
    while True:
        try:
            if stat.S_ISSOCK(path.lstat().st_mode):
                path.unlink()
                path.symlink_to(target)
            else:
                path.unlink()
        except OSError:
            continue
