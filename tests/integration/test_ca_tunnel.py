"""Certificates of `culvert ca` in tunnels between Culvert and Debian's stunnel4, which both verify them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .daemon import command, run
from .echo import EchoServer, await_end, open_plain, say_plain
from .harness import Culvert
from .stunnel import Stunnel

Start = Callable[[Path, str], contextlib.AbstractContextManager[tuple[int, Callable[[str], object]]]]


@contextlib.contextmanager
def culvert(folder: Path, services: str) -> Iterator[tuple[int, Callable[[str], object]]]:
    with Culvert(folder, services) as daemon:
        yield daemon.port("t"), daemon.await_log


@contextlib.contextmanager
def stunnel(folder: Path, services: str) -> Iterator[tuple[int, Callable[[str], object]]]:
    with Stunnel(folder, services) as daemon:
        yield daemon.ports["t"], daemon.log.wait


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a CA in `ca`, certificates for both ends, and one for another client, revoked."""
    folder = tmp_path_factory.mktemp("authority")
    for arguments in (
        ["init"],
        ["issue", "server.example", "--server"],
        ["issue", "spiffe://example/client", "--client", "--bundle"],
        ["issue", "lost.example", "--client", "--key", "rsa", "--bundle"],
        ["revoke", "lost.example"],
        ["crl"],
    ):
        done = run(command("ca", *arguments), folder=folder)
        assert done.returncode == 0, done.stderr
    return folder


def end(authority: Path, certificate: str, port: int, more: str = "") -> str:
    """One end of a tunnel that verifies the other."""
    return (
        f"[t]\naccept = 127.0.0.1:0\nconnect = 127.0.0.1:{port}\ncert = {authority}/{certificate}.pem\n"
        f"CAfile = {authority}/ca/ca.pem\nverifyChain = yes\n{more}"
    )


@pytest.mark.parametrize("server", [culvert, stunnel])
@pytest.mark.parametrize("client", [culvert, stunnel])
def test_both_ends_prove_themselves(tmp_path: Path, authority: Path, server: Start, client: Start) -> None:
    folders = [tmp_path / name for name in ("server", "client")]
    for folder in folders:
        folder.mkdir()
    key = f"key = {authority}/server.example.key\n"
    with contextlib.ExitStack() as stack:
        target = stack.enter_context(EchoServer())
        port, served = stack.enter_context(
            server(folders[0], end(authority, "server.example", target.port, key))
        )
        near = end(authority, "spiffe_example_client", port, "client = yes\ncheckHost = server.example\n")
        entry, connected = stack.enter_context(client(folders[1], near))
        say_plain(entry)
        served("Certificate accepted at depth=0: CN ?= ?spiffe://example/client")
        connected("Certificate accepted at depth=0: CN ?= ?server.example")


@pytest.mark.parametrize("server", [culvert, stunnel])
@pytest.mark.parametrize(
    "lists", ["CRLfile = {}/ca/crl.pem\n", "CRLpath = {}/ca/trust\n"], ids=["file", "path"]
)
def test_a_server_refuses_the_client_that_was_revoked(
    tmp_path: Path, authority: Path, server: Start, lists: str
) -> None:
    more = f"key = {authority}/server.example.key\n{lists.format(authority)}"
    with contextlib.ExitStack() as stack:
        target = stack.enter_context(EchoServer())
        port, served = stack.enter_context(
            server(tmp_path, end(authority, "server.example", target.port, more))
        )
        for certificate in ("spiffe_example_client", "lost.example"):
            folder = tmp_path / certificate
            folder.mkdir()
            near = end(authority, certificate, port, "client = yes\ncheckHost = server.example\n")
            entry, _ = stack.enter_context(culvert(folder, near))
            if certificate == "lost.example":
                await_end(open_plain(entry))
                served("certificate revoked")
            else:
                say_plain(entry)
