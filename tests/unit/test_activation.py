"""Sockets that a service manager passed: what is taken, which service gets which, and what is refused."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from culvert import config
from culvert.activation import Activation, Passed, remarks
from culvert.config.model import Service
from culvert.errors import ConfigurationError
from culvert.listen import Binder, Bound, Owner

from .forked import in_child

Give = Callable[..., Activation]


@contextlib.contextmanager
def occupied(highest: int) -> Iterator[None]:
    """Have no descriptor up to this one be free: what is opened meanwhile is above."""
    with contextlib.ExitStack() as stack:
        while (fd := os.open(os.devnull, os.O_RDONLY)) <= highest:
            stack.callback(os.close, fd)
        os.close(fd)
        yield


def services(*accepts: str, more: str = "") -> tuple[Service, ...]:
    """Services that are named a, b, c ... and accept there; an empty one takes over clients by a name."""
    text = ""
    for name, accept in zip("abcde", accepts, strict=False):
        where = f"accept = {accept}" if accept else "exec = /bin/cat"
        text += f"[{name}]\nclient = yes\nconnect = 1\n{where}\n{more}\n"
    return config.loads(text, "test.conf").services


@pytest.fixture
def give(tmp_path: Path) -> Iterator[Give]:
    """Makes an activation of sockets with these names: each is `NAME`, or `NAME unix`."""
    made: list[socket.socket] = []

    def build(*names: str) -> Activation:
        passed = []
        for index, text in enumerate(names, 1):
            name, _, kind = text.partition(" ")
            sock = socket.socket(socket.AF_UNIX if kind == "unix" else socket.AF_INET)
            sock.bind(str(tmp_path / f"s{index}") if kind == "unix" else ("127.0.0.1", 0))
            sock.listen()
            made.append(sock)
            passed.append(Passed(index, name, Bound(sock, sock.getsockname(), (), passed=True)))
        return Activation(passed)

    yield build
    for sock in made:
        sock.close()


def indices(activation: Activation, found: Sequence[Service]) -> dict[str, list[int]]:
    """The numbers of the sockets that each service gets."""
    return {name: [one.index for one in given] for name, given in activation.assign(found).items()}


class TestAssign:
    def test_without_names_each_service_gets_one_in_order(self, give: Give) -> None:
        assert indices(give("", ""), services("1", "2")) == {"a": [1], "b": [2]}

    def test_services_that_get_none_bind_their_own(self, give: Give) -> None:
        assert indices(give(""), services("1", "2")) == {"a": [1]}

    def test_a_service_that_does_not_accept_gets_none(self, give: Give) -> None:
        assert indices(give(""), services("", "2")) == {"b": [1]}

    def test_a_name_goes_before_the_order(self, give: Give) -> None:
        assert indices(give("b", ""), services("1", "2")) == {"b": [1], "a": [2]}

    def test_a_service_may_have_several_of_its_name(self, give: Give) -> None:
        assert indices(give("b", "", "b"), services("1", "2")) == {"b": [1, 3], "a": [2]}

    def test_the_name_of_a_unit_is_no_services(self, give: Give) -> None:
        assert indices(give("culvert.socket", "culvert.socket"), services("1", "2")) == {"a": [1], "b": [2]}

    @pytest.mark.parametrize("names", [("", "", ""), ("a", "a", "b", "")])
    def test_one_too_many_is_refused(self, give: Give, names: tuple[str, ...]) -> None:
        with pytest.raises(
            ConfigurationError, match=rf"no service for socket {len(names)} of .*127\.0\.0\.1"
        ):
            give(*names).assign(services("1", "2"))

    @pytest.mark.parametrize(
        ("name", "accept", "kind"), [("a unix", "80", "Unix"), ("a", "/run/culvert/a", "IPv4")]
    )
    def test_another_kind_of_socket_is_refused(self, give: Give, name: str, accept: str, kind: str) -> None:
        with pytest.raises(
            ConfigurationError, match=rf'Service \[a\] .*socket 1 .*\(descriptor 3, named "a"\).*{kind}'
        ) as raised:
            give(name).assign(services(accept))
        (finding,) = raised.value.diagnostics
        assert finding.location is not None
        assert finding.location.text == f"accept = {accept}"


class TestRemarks:
    def told(self, activation: Activation, found: Sequence[Service]) -> list[str]:
        """All remarks."""
        given = activation.assign(found)
        return [text for service in found for text in remarks(service, given.get(service.name, ()))]

    def test_an_address_that_accept_does_not_name(self, give: Give) -> None:
        (told,) = self.told(give(""), services("127.0.0.1:80"))
        assert "not at 127.0.0.1:80 as 'accept' says" in told

    def test_the_address_of_accept(self, give: Give) -> None:
        activation = give("")
        port = activation.sockets[0].bound.sock.getsockname()[1]
        assert not self.told(activation, services(f"127.0.0.1:{port}"))
        assert self.told(activation, services(str(port)))  # every address, where the socket is for one

    def test_an_owner_that_is_not_ours_to_change(self, give: Give, tmp_path: Path) -> None:
        (told,) = self.told(give("a unix"), services(f"{tmp_path}/s1", more="setuid = 0"))
        assert "SocketUser=" in told


class TestListening:
    def test_a_service_that_binds_does_not_share_one(self, give: Give) -> None:
        passed = give("").sockets[0].bound
        address = "{}:{}".format(*passed.sock.getsockname())
        with pytest.raises(ConfigurationError, match="Address already in use"):
            Binder([passed]).listen(services(address)[0], Owner(None, None))

    def test_a_unix_sockets_file_is_the_managers(self, give: Give, tmp_path: Path) -> None:
        give("a unix").sockets[0].bound.close()
        assert (tmp_path / "s1").is_socket()


class TestTake:
    """In a process of its own, for the descriptors have fixed numbers."""

    @staticmethod
    def take(count: str = "1", names: str | None = None, make: str = "listening", pid: str = "own") -> str:
        """What the process raised, or `taken N NAMES`."""

        def body() -> None:
            for fd in (3, 4):
                sock = socket.socket(type=socket.SOCK_DGRAM if make == "datagram" else socket.SOCK_STREAM)
                if make == "listening":
                    sock.listen()
                if make != "file":
                    os.dup2(sock.fileno(), fd)
                else:
                    os.dup2(os.open("/dev/null", os.O_RDONLY), fd)
            environment = {"LISTEN_FDS": count, "LISTEN_PID": pid.replace("own", str(os.getpid())), "A": "b"}
            if names is not None:
                environment["LISTEN_FDNAMES"] = names
            activation = Activation.take(environment)
            assert environment == {"A": "b"}
            assert not any(os.get_inheritable(one.bound.sock.fileno()) for one in activation.sockets)
            raise RuntimeError([(one.name, one.bound.sock.fileno()) for one in activation.sockets])

        with occupied(4):
            status, said = in_child(body)
        assert status == 1
        return said

    def test_names_come_along(self) -> None:
        assert self.take("2", "x:y") == "RuntimeError: [('x', 3), ('y', 4)]"

    def test_without_names(self) -> None:
        assert self.take("2") == "RuntimeError: [('', 3), ('', 4)]"

    def test_those_of_another_process_are_not_ours(self) -> None:
        assert self.take("2", pid="1") == "RuntimeError: []"

    @pytest.mark.parametrize("count", ["-1", "two", "", "99999999999", "4097", "²"])
    def test_a_number_that_is_none(self, count: str) -> None:
        assert "expected how many sockets" in self.take(count)

    def test_names_that_are_not_as_many(self) -> None:
        assert "1 name(s) for 2 socket(s)" in self.take("2", "x")

    @pytest.mark.parametrize(
        ("make", "fault"),
        [
            ("datagram", "is no stream socket"),
            ("silent", "does not listen: Accept=no"),
            ("file", "is no socket"),
        ],
    )
    def test_what_cannot_be_accepted_on(self, make: str, fault: str) -> None:
        said = self.take("1", "web", make)
        assert said.startswith(
            'ConfigurationError: Socket 1 of the service manager (descriptor 3, named "web")'
        )
        assert fault in said
