"""Listening sockets: what an `accept` comes to, what is shared, what is left behind."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from culvert import config
from culvert.config.model import Service
from culvert.errors import ConfigurationError, Diagnostic
from culvert.listen import Binder, Bound, Listener, Owner

NOBODY_ELSE = Owner(None, None)


def service(accept: str, *options: str) -> Service:
    """A service that accepts there."""
    text = "\n".join(["[tunnel]", "client = yes", "connect = 1", f"accept = {accept}", *options])
    return config.loads(text, "test.conf").services[0]


class Bindings:
    """Makes listeners and closes what they hold at the end."""

    def __init__(self) -> None:
        self._made: list[Bound] = []

    def __call__(self, accept: str, *options: str, running: tuple[Bound, ...] = ()) -> Listener:
        listener = Binder(running).listen(service(accept, *options), NOBODY_ELSE)
        self._made += [bound for bound in listener.bound if bound not in self._made]
        return listener

    def refused(self, accept: str) -> Diagnostic:
        with pytest.raises(ConfigurationError) as failure:
            self(accept)
        (finding,) = failure.value.diagnostics
        assert finding.location is not None
        assert finding.location.text == f"accept = {accept}"
        return finding

    def close(self) -> None:
        for bound in self._made:
            bound.close()


@pytest.fixture
def bind() -> Iterator[Bindings]:
    bindings = Bindings()
    yield bindings
    bindings.close()


def connects(family: int, address: tuple[str, int] | str) -> bool:
    with socket.socket(family) as sock:
        return sock.connect_ex(address) == 0


def port_of(listener: Listener) -> int:
    port: int = listener.sockets[0].getsockname()[1]
    return port


def test_an_address_is_listened_on(bind: Bindings) -> None:
    listener = bind("127.0.0.1:0")
    (sock,) = listener.sockets
    assert sock.family == socket.AF_INET
    assert sock.gettimeout() == 0.0
    assert not sock.get_inheritable()
    assert connects(socket.AF_INET, ("127.0.0.1", port_of(listener)))
    assert not connects(socket.AF_INET, ("127.0.0.2", port_of(listener)))


def test_a_port_alone_is_every_address_of_both_families(bind: Bindings) -> None:
    listener = bind("0")
    assert [sock.family for sock in listener.sockets] == [socket.AF_INET, socket.AF_INET6]
    assert {sock.getsockname()[1] for sock in listener.sockets} == {port_of(listener)}
    assert connects(socket.AF_INET, ("127.0.0.7", port_of(listener)))
    assert connects(socket.AF_INET6, ("::1", port_of(listener)))
    assert listener.refusals == ()


def test_an_ipv4_client_does_not_come_as_an_ipv6_one(bind: Bindings) -> None:
    listener = bind("0")
    with socket.create_connection(("127.0.0.1", port_of(listener))):
        accepted, address = listener.sockets[0].accept()
        accepted.close()
        assert address[0] == "127.0.0.1"


@pytest.mark.parametrize("accept", ["::1:0", "[::1]:0"])
def test_an_ipv6_address_may_stand_in_brackets(bind: Bindings, accept: str) -> None:
    listener = bind(accept)
    assert connects(socket.AF_INET6, ("::1", port_of(listener)))


def test_a_port_that_is_taken_is_the_operators_fault(bind: Bindings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        finding = bind.refused(f"127.0.0.1:{taken.getsockname()[1]}")
    assert "Binding service [tunnel] failed" in finding.message
    assert "Address already in use (98)" in finding.message
    assert finding.hint is not None
    assert "ss -ltnp" in finding.hint


def test_an_address_of_another_machine_is_the_operators_fault(bind: Bindings) -> None:
    finding = bind.refused("192.0.2.1:0")
    assert "Cannot assign requested address (99)" in finding.message
    assert finding.hint is not None
    assert "ip addr" in finding.hint


def test_one_family_is_enough(bind: Bindings) -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as taken:
        listener = bind(str(taken.getsockname()[1]))
        (sock,) = listener.sockets
        assert sock.family == socket.AF_INET
        (refusal,) = listener.refusals
        assert (refusal.address, refusal.errno) == (f":::{taken.getsockname()[1]}", 98)


@pytest.mark.parametrize("accept", ["a..b:0", "127.0.0.1:nosuchservice"])
def test_what_cannot_be_resolved_is_the_operators_fault(bind: Bindings, accept: str) -> None:
    assert "Cannot resolve" in bind.refused(accept).message


def test_options_of_the_accept_socket_are_in_force(bind: Bindings) -> None:
    listener = bind("127.0.0.1:0", "socket = a:SO_KEEPALIVE=yes", "socket = a:SO_REUSEADDR=no")
    (sock,) = listener.sockets
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR) == 0
    assert bind("127.0.0.1:0").sockets[0].getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR) == 1


def test_a_failure_leaves_no_descriptor(bind: Bindings, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
        bind.refused(f"127.0.0.1:{taken.getsockname()[1]}")
        bind.refused(f"{tmp_path}/none/s")
        assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def test_a_unix_socket_is_listened_on_and_its_file_goes_with_it(bind: Bindings, tmp_path: Path) -> None:
    path = tmp_path / "s"
    listener = bind(str(path))
    assert stat.S_ISSOCK(path.stat().st_mode)
    assert connects(socket.AF_UNIX, str(path))
    listener.bound[0].close()
    assert not path.exists()


def test_a_socket_that_nobody_listens_on_is_replaced(bind: Bindings, tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    assert path.exists()
    bind(str(path))
    assert connects(socket.AF_UNIX, str(path))


def test_a_socket_that_somebody_listens_on_is_not(bind: Bindings, tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as alive:
        alive.bind(str(path))
        alive.listen()
        assert "in use" in bind.refused(str(path)).message
        assert path.exists()


def test_a_listener_with_a_full_queue_is_alive(bind: Bindings, tmp_path: Path) -> None:
    """A connect that waits for room would hold up a start, or a whole supervisor at a reload."""
    path = tmp_path / "s"
    with contextlib.ExitStack() as stack:
        alive, *waiting = (stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(3))
        alive.bind(str(path))
        alive.listen(0)
        for sock in waiting:
            sock.setblocking(False)
            sock.connect_ex(str(path))
        assert "in use" in bind.refused(str(path)).message


@pytest.mark.parametrize("kind", ["file", "folder", "fifo", "link"])
def test_what_is_no_socket_is_left_alone(bind: Bindings, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "s"
    match kind:
        case "file":
            path.write_text("precious")
        case "folder":
            path.mkdir()
        case "fifo":
            os.mkfifo(path)
        case "link":
            path.symlink_to(tmp_path / "elsewhere")
    before = path.lstat()
    assert "Binding service [tunnel]" in bind.refused(str(path)).message
    assert path.lstat() == before


def test_another_daemons_socket_is_not_removed(bind: Bindings, tmp_path: Path) -> None:
    path = tmp_path / "s"
    first = bind(str(path))
    path.unlink()
    second = bind(str(path))
    first.bound[0].close()
    assert connects(socket.AF_UNIX, str(path))
    second.bound[0].close()
    assert not path.exists()


def test_what_is_bound_already_is_shared(bind: Bindings, tmp_path: Path) -> None:
    for accept in ("127.0.0.1:0", str(tmp_path / "s")):
        running = bind(accept)
        again = bind(accept, running=running.bound)
        assert again.bound == running.bound


def test_what_another_service_already_shares_is_not_shared_twice(bind: Bindings) -> None:
    running = bind("127.0.0.1:0")
    binder = Binder(running.bound)
    first = binder.listen(service("127.0.0.1:0"), NOBODY_ELSE)
    second = binder.listen(service("127.0.0.1:0"), NOBODY_ELSE)
    assert first.bound == running.bound
    assert second.bound != running.bound
    binder.undo()
    assert connects(socket.AF_INET, ("127.0.0.1", port_of(first)))
    assert second.sockets[0].fileno() == -1
