"""Listening sockets from one generation to the next: what is shared, what is handed over, what is refused."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from culvert import config
from culvert.config.model import Service
from culvert.errors import ConfigurationError
from culvert.listen import Binder, Bound, Listener, Owner

from .forked import in_child

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

ANYONE = Owner(None, None)

Generation = Callable[..., list[Listener]]


def service(accept: object, *options: str) -> Service:
    """A service that accepts here, with these `socket` options."""
    lines = [
        f"[s]\naccept = {accept}\nclient = yes\nconnect = 9\n",
        *(f"socket = {one}\n" for one in options),
    ]
    return config.loads("".join(lines).encode(), "test").services[0]


def bound(listeners: list[Listener]) -> list[Bound]:
    return [one for listener in listeners for one in listener.bound]


def answers(host: str, port: int) -> bool:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as sock:
        sock.settimeout(5)
        return sock.connect_ex((host, port)) == 0


@pytest.fixture
def generation() -> Iterator[Generation]:
    """Makes the listeners of a generation of services after `running`; all are closed at the end."""
    made: list[Bound] = []

    def make(*services: Service, running: list[Listener] | None = None) -> list[Listener]:
        binder = Binder(bound(running or []))
        try:
            listeners = [binder.listen(one, ANYONE) for one in services]
        except ConfigurationError:
            binder.undo()
            raise
        made.extend(bound(listeners))
        return listeners

    yield make
    for one in made:
        one.close()


def retire(old: list[Listener], new: list[Listener]) -> None:
    for one in bound(old):
        if one not in bound(new):
            one.close()


def port_of(listeners: list[Listener]) -> int:
    return int(listeners[0].sockets[0].getsockname()[1])


def options_of(sock: socket.socket) -> dict[str, int | bytes]:
    """The socket's options that the tests set, and what comes along with them."""
    return {
        "keepalive": sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE),
        "linger": sock.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER),
        "receive buffer": sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF),
        "send buffer": sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF),
        "buffer locks": sock.getsockopt(socket.SOL_SOCKET, 72),
        "receive time": sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, 16),
        "device": sock.getsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, 16),
        "ttl": sock.getsockopt(socket.IPPROTO_IP, socket.IP_TTL),
        "tos": sock.getsockopt(socket.IPPROTO_IP, socket.IP_TOS),
        "idle": sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE),
        "nodelay": sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY),
        "reuse": sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR),
        "reuse port": sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT),
    }


class TestSharing:
    @pytest.mark.parametrize("spelling", ["127.0.0.1:{}", "localhost:{}", "127.1:{}"])
    def test_the_same_address_is_shared_however_it_is_written(
        self, generation: Generation, spelling: str
    ) -> None:
        old = generation(service("127.0.0.1:0"))
        new = generation(service(spelling.format(port_of(old))), running=old)
        assert new[0].bound[0] is old[0].bound[0]

    def test_a_port_that_the_kernel_chose_is_kept(self, generation: Generation) -> None:
        old = generation(service("127.0.0.1:0"))
        new = generation(service("127.0.0.1:0"), running=old)
        assert bound(new) == bound(old)

    def test_every_address_of_a_port_alone_is_shared(self, generation: Generation) -> None:
        old = generation(service(0))
        assert len(bound(old)) == 2
        assert bound(generation(service(port_of(old)), running=old)) == bound(old)

    def test_what_two_services_want_goes_to_one(self, generation: Generation) -> None:
        old = generation(service("127.0.0.1:0"))
        port = port_of(old)
        with pytest.raises(ConfigurationError, match="Address already in use \\(98\\)"):
            generation(service(f"127.0.0.1:{port}"), service(f"localhost:{port}"), running=old)
        assert answers("127.0.0.1", port)

    def test_nothing_is_shared_between_families(self, generation: Generation) -> None:
        old = generation(service(0))
        new = generation(service(f":::{port_of(old)}", "a:IPV6_V6ONLY=yes"), running=old)
        assert bound(new) == bound(old)[1:]

    def test_what_the_failed_generation_shared_stays_open(self, generation: Generation) -> None:
        old = generation(service("127.0.0.1:0"))
        with socket.create_server(("127.0.0.1", 0)) as busy, pytest.raises(ConfigurationError):
            generation(
                service(f"127.0.0.1:{port_of(old)}"),
                service("127.0.0.1:0"),
                service(f"127.0.0.1:{busy.getsockname()[1]}"),
                running=old,
            )
        assert answers("127.0.0.1", port_of(old))


class TestOverlapping:
    @pytest.mark.parametrize(("before", "after"), [("127.0.0.1:{}", "{}"), ("{}", "127.0.0.1:{}")])
    def test_the_port_is_open_all_the_time(self, generation: Generation, before: str, after: str) -> None:
        old = generation(service(before.format(0)))
        port = port_of(old)
        assert answers("127.0.0.1", port)
        new = generation(service(after.format(port)), running=old)
        assert not new[0].refusals
        assert answers("127.0.0.1", port)
        retire(old, new)
        assert answers("127.0.0.1", port)
        assert len([one for one in bound(new) if one.sock.fileno() >= 0]) == len(bound(new))

    @pytest.mark.parametrize("before", [":::{}", "{}"])
    def test_ipv6_with_and_without_ipv4(self, generation: Generation, before: str) -> None:
        after = "{}" if before == ":::{}" else ":::{}"
        old = generation(service(before.format(0)))
        port = port_of(old)
        new = generation(service(after.format(port)), running=old)
        assert not new[0].refusals
        retire(old, new)
        assert answers("127.0.0.1", port)
        assert answers("::1", port)

    def test_one_gives_way_to_several(self, generation: Generation) -> None:
        old = generation(service("0.0.0.0:0"))
        port = port_of(old)
        new = generation(service(f"127.0.0.1:{port}"), service(f"127.0.0.2:{port}"), running=old)
        retire(old, new)
        assert answers("127.0.0.1", port)
        assert answers("127.0.0.2", port)
        assert not answers("127.0.0.3", port)

    @pytest.mark.parametrize("reverse", [False, True])
    def test_two_services_of_one_generation_may_not_overlap(
        self, generation: Generation, reverse: bool
    ) -> None:
        old = generation(service("127.0.0.1:0"))
        port = port_of(old)
        wanted = [service(f"127.0.0.1:{port}"), service(f"0.0.0.0:{port}")]
        with pytest.raises(ConfigurationError, match=r"Address already in use \(98\)"):
            generation(*(reversed(wanted) if reverse else wanted), running=old)
        assert answers("127.0.0.1", port)

    def test_a_port_is_still_no_one_elses(self, generation: Generation) -> None:
        old = generation(service("127.0.0.1:0"))
        port = port_of(old)
        new = generation(service(f"0.0.0.0:{port}"), running=old)
        retire(old, new)
        for sock in (*new[0].sockets, *old[0].sockets):
            assert sock.fileno() < 0 or sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT) == 0
        for host in ("127.0.0.1", "0.0.0.0"):
            with pytest.raises(ConfigurationError, match="Address already in use"):
                generation(service(f"{host}:{port}"))

    def test_a_strangers_port_is_not_taken_over(self, generation: Generation) -> None:
        old = generation(service("127.0.0.2:0"))
        port = port_of(old)
        with socket.create_server(("127.0.0.1", port)), pytest.raises(ConfigurationError):
            generation(service(f"0.0.0.0:{port}"), running=old)
        assert answers("127.0.0.2", port)
        assert old[0].sockets[0].getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT) == 0

    @needs_root
    def test_without_the_right_to_it_a_restart_is_asked_for(self, generation: Generation) -> None:
        old = generation(service("127.0.0.1:0"))

        def powerless() -> None:
            os.setresuid(65534, 65534, 65534)
            generation(service(f"0.0.0.0:{port_of(old)}"), running=old)

        status, said = in_child(powerless)
        assert status == 1
        assert "overlaps with what the running configuration accepts on: restart for it" in said


class TestOptions:
    CHANGED = (
        "a:SO_KEEPALIVE=yes",
        "a:SO_LINGER=1:7",
        "a:SO_RCVBUF=30000",
        "a:SO_SNDBUF=40000",
        "a:SO_RCVTIMEO=3:500000",
        "a:IP_TTL=7",
        "a:IP_TOS=16",
        "a:TCP_KEEPIDLE=123",
        "a:TCP_NODELAY=yes",
        "a:SO_REUSEADDR=no",
    )

    def test_they_stay_until_the_new_generation_takes_over(self, generation: Generation) -> None:
        old = generation(service("127.0.0.1:0"))
        sock = old[0].sockets[0]
        before = options_of(sock)
        (new,) = generation(service(f"127.0.0.1:{port_of(old)}", *self.CHANGED), running=old)
        assert options_of(sock) == before
        assert new.take_over() == []
        assert sock.getsockopt(socket.IPPROTO_IP, socket.IP_TTL) == 7
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) == 60000
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR) == 0

    def test_those_that_are_dropped_go_back(self, generation: Generation) -> None:
        pristine = options_of(generation(service("127.0.0.1:0"))[0].sockets[0])
        old = generation(service("127.0.0.1:0", *self.CHANGED))
        assert old[0].take_over() == []
        (new,) = generation(service("127.0.0.1:0"), running=old)
        assert new.take_over() == []
        assert options_of(new.sockets[0]) == pristine

    def test_those_of_an_undone_generation_leave_no_trace(self, generation: Generation) -> None:
        old = generation(service("127.0.0.1:0", "a:IP_TTL=9"))
        generation(service("127.0.0.1:0", *self.CHANGED), running=old)
        (new,) = generation(service("127.0.0.1:0", "a:IP_TTL=9"), running=old)
        assert new.take_over() == []
        assert options_of(new.sockets[0])["ttl"] == 9
        assert options_of(new.sockets[0])["keepalive"] == 0

    @needs_root
    def test_a_device_is_let_go(self, generation: Generation) -> None:
        old = generation(service("127.0.0.1:0", "a:SO_BINDTODEVICE=lo"))
        (new,) = generation(service("127.0.0.1:0"), running=old)
        assert new.take_over() == []
        assert options_of(new.sockets[0])["device"] == b""

    def test_what_the_kernel_refuses_is_found_before_the_take_over(self, generation: Generation) -> None:
        old = generation(service("127.0.0.1:0"))
        before = options_of(old[0].sockets[0])
        with pytest.raises(ConfigurationError, match="Invalid argument"):
            generation(service("127.0.0.1:0", "a:SO_KEEPALIVE=yes", "a:IP_TTL=1000"), running=old)
        assert options_of(old[0].sockets[0]) == before

    def test_ipv6_only_cannot_change_and_needs_not(self, generation: Generation) -> None:
        old = generation(service(":::0"))
        (new,) = generation(service(f":::{port_of(old)}", "a:IPV6_V6ONLY=no"), running=old)
        assert new.bound == old[0].bound
        assert new.take_over() == []


class TestUnix:
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        """Where the service accepts."""
        return tmp_path / "folder" / "socket"

    @pytest.fixture
    def old(self, generation: Generation, path: Path) -> list[Listener]:
        """The generation that runs."""
        path.parent.mkdir()
        return generation(service(path))

    def test_another_spelling_is_shared(
        self, generation: Generation, old: list[Listener], path: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "other").symlink_to(path.parent)
        new = generation(service(tmp_path / "other" / "socket"), running=old)
        assert bound(new) == bound(old)

    def test_one_that_was_removed_is_bound_anew(
        self, generation: Generation, old: list[Listener], path: Path
    ) -> None:
        path.unlink()
        new = generation(service(path), running=old)
        assert bound(new) != bound(old)
        retire(old, new)
        assert path.is_socket()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))

    def test_what_replaced_it_is_not_removed(self, old: list[Listener], path: Path) -> None:
        path.unlink()
        path.write_text("another's")
        bound(old)[0].close()
        assert path.read_text() == "another's"

    def test_it_is_not_removed_through_a_link(self, old: list[Listener], path: Path, tmp_path: Path) -> None:
        (tmp_path / "victim").mkdir()
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(str(tmp_path / "victim" / "socket"))
            path.parent.rename(tmp_path / "moved")
            path.parent.symlink_to(tmp_path / "victim")
            bound(old)[0].close()
        assert (tmp_path / "victim" / "socket").exists()

    def test_one_that_is_in_use_with_a_full_queue_is_refused_at_once(
        self, generation: Generation, path: Path
    ) -> None:
        path.parent.mkdir()
        with socket.socket(socket.AF_UNIX) as owner, socket.socket(socket.AF_UNIX) as waiting:
            owner.bind(str(path))
            owner.listen(0)
            waiting.connect(str(path))
            with pytest.raises(ConfigurationError, match="Address already in use"):
                generation(service(path))
        assert path.is_socket()

    def test_a_stale_one_is_replaced(self, generation: Generation, path: Path) -> None:
        path.parent.mkdir()
        with socket.socket(socket.AF_UNIX) as owner:
            owner.bind(str(path))
        generation(service(path))
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))

    def test_what_is_no_socket_is_left_alone(self, generation: Generation, path: Path) -> None:
        path.parent.mkdir()
        path.write_text("a file")
        with pytest.raises(ConfigurationError, match=f"to {path} failed: File exists"):
            generation(service(path))
        assert path.read_text() == "a file"


@needs_root
class TestOwner:
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        """Where the service accepts."""
        return tmp_path / "socket"

    def test_it_follows_a_reload_at_the_take_over(self, path: Path) -> None:
        old = Binder().listen(service(path), Owner(65534, 65534))
        assert (path.stat().st_uid, path.stat().st_gid) == (65534, 65534)
        for owner, ids in (
            (Owner(5, None), (5, os.getegid())),
            (Owner(None, 60), (os.geteuid(), 60)),
            (ANYONE, (os.geteuid(), os.getegid())),
        ):
            new = Binder(old.bound).listen(service(path), owner)
            before = path.stat()
            assert (before.st_uid, before.st_gid) != ids
            assert new.take_over() == []
            assert (path.stat().st_uid, path.stat().st_gid) == ids
            old = new
        old.bound[0].close()

    @pytest.mark.parametrize("plant", ["symlink_to", "hardlink_to"])
    def test_no_link_in_its_place_gives_a_file_away(self, path: Path, tmp_path: Path, plant: str) -> None:
        target = tmp_path / "secret"
        target.touch(0o600)
        listener = Binder().listen(service(path), ANYONE)
        shared = Binder(listener.bound).listen(service(path), Owner(65534, 65534))
        path.unlink()
        getattr(path, plant)(target)
        (failure,) = shared.take_over()
        assert str(path) in failure
        assert target.stat().st_uid == os.geteuid()
        assert path.lstat().st_uid == os.geteuid()
        assert stat.S_ISREG(target.stat().st_mode)
        listener.bound[0].close()
        assert path.exists()
