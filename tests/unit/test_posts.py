"""What each worker of a generation does, and who stays over a reload."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from culvert.control import Request
from culvert.generation import Generation

from .generations import Loader, service

pytest.importorskip("pyroute2")

VPN = """\
[vpn]
accept = 127.0.0.1:{port}
allowSPKI = 0000000000000000000000000000000000000000000000000000000000000000
tun = cv0
tunAddress = 10.9.0.1
tunPeer = 10.9.0.2
{more}"""
OTHER = "[other]\nclient = yes\nconnect = 127.0.0.1:9\ntun = cv1\n"


@pytest.fixture
def loader(tmp_path: Path) -> Iterator[Loader]:
    """Builds generations, and lets go of them."""
    made = Loader(tmp_path)
    yield made
    made.close()


def vpn(more: str = "", port: int = 0) -> str:
    """A VPN's section."""
    return VPN.format(port=port, more=more)


def names(generation: Generation, index: int) -> list[str]:
    """The services of one post."""
    return [one.config.name for one in generation.posts.services_of(index)]


def test_every_vpn_has_a_post_of_its_own(loader: Loader) -> None:
    built = loader.build("workers = 2\n" + vpn() + service(0) + OTHER)
    assert list(built.posts.indices()) == [0, 1, 2, 3]
    assert [names(built, index) for index in range(4)] == [["one"], ["one"], ["vpn"], ["other"]]


def test_vpns_alone_need_nobody_else(loader: Loader) -> None:
    assert list(loader.build("workers = 2\n" + vpn()).posts.indices()) == [2]


def test_without_a_vpn_nobody_stays(loader: Loader) -> None:
    first = loader.build("workers = 2\n" + service(0))
    second = loader.build("workers = 2\n" + service(0), first)
    assert list(second.posts.missing(first.posts)) == [0, 1]


def test_a_vpn_that_is_the_same_stays_wherever_it_stands(loader: Loader) -> None:
    first = loader.build("workers = 2\n" + vpn() + OTHER)
    second = loader.build("workers = 3\n\n\n" + service(0) + OTHER + vpn(), first)
    assert first.posts.heir(2, second.posts) == 4
    assert first.posts.heir(3, second.posts) == 3
    assert list(second.posts.missing(first.posts)) == [0, 1, 2]


@pytest.mark.parametrize(
    "changed",
    [vpn("tunRoute = 10.0.0.0/8\n"), vpn("logId = unique\n"), "logFormat = json\n" + vpn()],
    ids=["its options", "an option of any service", "the daemon's log"],
)
def test_a_vpn_that_has_changed_is_replaced(loader: Loader, changed: str) -> None:
    first = loader.build("workers = 1\n" + vpn())
    second = loader.build("workers = 1\n" + changed, first)
    assert first.posts.heir(1, second.posts) is None
    assert list(second.posts.missing(first.posts)) == [1]


def test_a_renewed_certificate_replaces_a_vpn(loader: Loader) -> None:
    first = loader.build("workers = 1\n" + vpn())
    pem = loader.folder / "server.pem"
    pem.write_bytes(pem.read_bytes() + b"\n")
    second = loader.build("workers = 1\n" + vpn(), first)
    assert first.posts.heir(1, second.posts) is None


def test_another_level_of_the_log_is_told_and_no_reason_to_end(loader: Loader) -> None:
    first = loader.build("workers = 1\n" + vpn())
    second = loader.build("workers = 1\ndebug = 4\n" + vpn("debug = 6\n"), first)
    assert first.posts.heir(1, second.posts) == 1
    told = [Request.decode(word) for word in second.posts.words(1)]
    assert [(one.level, one.service) for one in told] == [(4, None), (6, "vpn")]
