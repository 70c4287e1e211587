"""Addresses that are taken over: how they are written, bound, and told from this machine's own."""

from __future__ import annotations

import errno
import os
import socket

import pytest

from culvert import config, transparent
from culvert.errors import BackendError
from culvert.transparent import ClientSource, family_of, original_destination, unmapped

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        (("192.0.2.1", 7), ("192.0.2.1", 7)),
        (("::ffff:192.0.2.1", 7, 0, 0), ("192.0.2.1", 7)),
        (("2001:db8::1", 7, 0, 0), ("2001:db8::1", 7, 0, 0)),
        (("fe80::1%2", 7, 0, 2), ("fe80::1%2", 7, 0, 2)),
    ],
)
def test_an_address_is_written_in_its_own_family(
    address: tuple[object, ...], expected: tuple[object, ...]
) -> None:
    assert unmapped(address) == expected
    assert family_of(unmapped(address)) == (socket.AF_INET if len(expected) == 2 else socket.AF_INET6)


def test_a_client_without_an_address_has_none_to_give() -> None:
    with pytest.raises(BackendError, match="no internet address"):
        ClientSource.of(None, keep_port=True)


@needs_root
@pytest.mark.parametrize("client", [("192.0.2.1", 50007), ("2001:db8::1", 50007, 0, 0)])
def test_a_source_is_another_machine_s(client: tuple[str, int]) -> None:
    source = ClientSource.of(client, keep_port=True)
    with socket.socket(source.family, socket.SOCK_STREAM) as sock:
        source.bind(sock)
        assert sock.getsockname()[:2] == client[:2]


@needs_root
def test_a_port_that_is_in_use_is_left_to_its_owner() -> None:
    with socket.create_server(("127.0.0.1", 0)) as owner:
        source = ClientSource.of(owner.getsockname(), keep_port=True)
        with socket.socket() as sock:
            source.bind(sock)
            sock.connect(owner.getsockname())
            assert sock.getsockname()[0] == "127.0.0.1"
            assert sock.getsockname()[1] != owner.getsockname()[1]


@needs_root
@pytest.mark.parametrize(("port", "keep"), [(50007, False), (1023, True)])
def test_some_ports_are_not_kept(port: int, keep: bool) -> None:
    with socket.socket() as sock:
        ClientSource.of(("192.0.2.1", port), keep_port=keep).bind(sock)
        assert sock.getsockname() == ("192.0.2.1", 0)


def test_a_refusal_of_the_system_is_told() -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        with pytest.raises(OSError) as caught:
            ClientSource(("127.0.0.1", 50007), keep_port=True).bind(sock)
        assert caught.value.errno in (errno.EINVAL, errno.EPERM)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "::ffff:127.0.0.1"])
def test_who_comes_to_this_service_itself_goes_nowhere_else(host: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as listening:
        if family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listening.bind((host, 0))
        listening.listen()
        with socket.socket(family) as client:
            client.connect(listening.getsockname())
            accepted, _ = listening.accept()
            with accepted, pytest.raises(BackendError, match="which is this service itself"):
                original_destination(accepted)


def test_nothing_is_wrong_with_services_that_are_not_transparent() -> None:
    services = config.loads("client = yes\n[s]\naccept = 1\nconnect = 2\n", "x").services
    assert transparent.limits(services) == []
