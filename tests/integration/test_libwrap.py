"""TCP wrappers: hosts.allow and hosts.deny as the system's libwrap reads them, in a jail of their own."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from ctypes.util import find_library
from pathlib import Path

import pytest

from .certificates import Certificates
from .daemon import needs_root, run
from .harness import PATIENCE, Culvert, require
from .outcomes import WELCOME, Sayer
from .peers import background, client_context
from .proxies import CLIENT, come, greeted, services

pytestmark = needs_root

OTHER = "127.0.0.10"
NAMED = b"PROXY TCP4 192.0.2.7 198.51.100.1 50000 443\r\n"


class Wrapped:
    """A jailed daemon with libwrap, and its tables."""

    def __init__(self, folder: Path, certificates: Certificates, backend: Sayer) -> None:
        self._tables = folder / "jail/etc"
        self._tables.mkdir(parents=True)
        (self._tables / "hosts").write_text(f"{CLIENT} friend.example\n{OTHER} stranger.example\n")
        (self._tables / "nsswitch.conf").write_text("hosts: files\n")
        self._context = client_context(trust=certificates.ca.cert)
        leaf, options = certificates.server, f"connect = 127.0.0.1:{backend.port}\nlibwrap = yes\n"
        sections = {
            "first": options,
            "second": options,
            "proxied": options + "acceptProxy = yes\ntrustProxy = 127.0.0.0/8",
        }
        text = services(sections, f"cert = {leaf.cert}\nkey = {leaf.key}\n")
        text += f"[third]\nsni = second:third.example\n{options}cert = {leaf.cert}\nkey = {leaf.key}\n"
        self.daemon = Culvert(folder, text, options=f"chroot = {folder}/jail\n")

    def write(self, allow: str, deny: str) -> None:
        """The tables from now on: they are read for each client."""
        (self._tables / "hosts.allow").write_text(allow)
        (self._tables / "hosts.deny").write_text(deny)

    def lets_in(self, service: str, source: str = CLIENT, name: str = "", first: bytes = b"") -> bool:
        """Whether a client from this address comes through."""
        return greeted(come(self.daemon.port(service), source=source), self._context, name, first)


@pytest.fixture(scope="module")
def wrapped(tmp_path_factory: pytest.TempPathFactory, certificates: Certificates) -> Iterator[Wrapped]:
    if find_library("wrap") is None:
        require("libwrap0")
    with Sayer(WELCOME) as backend:
        wrapped = Wrapped(tmp_path_factory.mktemp("libwrap"), certificates, backend)
        with wrapped.daemon:
            yield wrapped


@pytest.mark.parametrize(
    ("allow", "deny", "expected"),
    [
        ("", "", {CLIENT: True, OTHER: True}),
        ("", "ALL: ALL\n", {CLIENT: False, OTHER: False}),
        (f"first: {CLIENT}\n", "ALL: ALL\n", {CLIENT: True, OTHER: False}),
        (f"second: {CLIENT}\n", "ALL: ALL\n", {CLIENT: False, OTHER: False}),
        ("", "first: 127.0.0.10/255.255.255.254\n", {CLIENT: True, OTHER: False}),
        ("first: friend.example\n", "ALL: ALL\n", {CLIENT: True, OTHER: False}),
        ("first: .example EXCEPT stranger.example\n", "ALL: ALL\n", {CLIENT: True, OTHER: False}),
        # No ident server is asked: of users nothing is known.
        (f"first: root@{CLIENT}\n", "ALL: ALL\n", {CLIENT: False, OTHER: False}),
        # It would take the worker's place.
        (f"first: {CLIENT}: twist /bin/echo\n", "", {CLIENT: False, OTHER: True}),
    ],
)
def test_the_tables(wrapped: Wrapped, allow: str, deny: str, expected: dict[str, bool]) -> None:
    wrapped.write(allow, deny)
    assert {source: wrapped.lets_in("first", source) for source in expected} == expected


def test_a_refusal_has_its_line(wrapped: Wrapped) -> None:
    wrapped.write("", "ALL: ALL\n")
    mark = wrapped.daemon.log.mark()
    assert not wrapped.lets_in("second")
    wrapped.daemon.await_log(
        rf"LOG4\[\d+\]: Service \[second\] refused connection from {CLIENT}:\d+: hosts.allow and hosts.deny",
        since=mark,
    )


def test_a_service_that_is_chosen_by_name_has_its_own_rules(wrapped: Wrapped) -> None:
    wrapped.write("", "third: ALL\n")
    assert wrapped.lets_in("second", name="other.example")
    assert not wrapped.lets_in("second", name="third.example")


def test_the_client_that_a_proxy_names_is_the_one_that_is_asked_for(wrapped: Wrapped) -> None:
    wrapped.write("", "ALL: 192.0.2.7\n")
    assert not wrapped.lets_in("proxied", first=NAMED)
    wrapped.write("proxied: 192.0.2.\n", "ALL: ALL\n")
    assert wrapped.lets_in("proxied", first=NAMED)


def test_a_name_server_that_is_silent_holds_up_nobody_else(
    tmp_path: Path, certificates: Certificates
) -> None:
    """A rule on names has libwrap ask for the client's, which the event loop does not wait for."""
    etc, leaf = tmp_path / "jail/etc", certificates.server
    etc.mkdir(parents=True)
    (etc / "hosts.deny").write_text("slow: .example\n")
    (etc / "nsswitch.conf").write_text("hosts: dns\n")
    (etc / "resolv.conf").write_text("nameserver 127.0.7.53\noptions timeout:3 attempts:1\n")
    context = client_context(trust=certificates.ca.cert)
    with Sayer(WELCOME) as backend, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.7.53", 53))
        options = f"connect = 127.0.0.1:{backend.port}\n"
        text = services(
            {"slow": f"{options}libwrap = yes\nTIMEOUTbusy = 1", "quick": options},
            f"cert = {leaf.cert}\nkey = {leaf.key}\n",
        )
        with Culvert(tmp_path, text, options=f"chroot = {tmp_path}/jail\n") as daemon:
            asking = background(lambda: greeted(come(daemon.port("slow")), context))
            silent.settimeout(PATIENCE)
            silent.recv(512)
            assert greeted(come(daemon.port("quick")), context)
            assert not asking.done()
            assert not asking.result(PATIENCE)
            daemon.await_log(r"refused connection .*: libwrap had no answer: TIMEOUTbusy \(1 s\) exceeded")


def test_a_jail_without_tables_is_warned_about(tmp_path: Path, certificates: Certificates) -> None:
    jail = tmp_path / "jail"
    jail.mkdir()
    cert = certificates.server.bundle
    text = f"[s]\naccept = 127.0.0.1:0\nconnect = 127.0.0.1:9\nlibwrap = yes\ncert = {cert}\n"
    with Culvert(tmp_path, text, options=f"chroot = {jail}\n") as daemon:
        daemon.await_log(r"LOG4\[main\]: Service \[s\]: libwrap lets everybody in")


@pytest.mark.parametrize("command", ["run", "check"])
def test_without_the_library_the_package_is_named(
    tmp_path: Path, certificates: Certificates, command: str
) -> None:
    """In a mount namespace of its own, where the library is an empty file."""
    library = next(
        (path for folder in ("/lib", "/usr/lib") for path in Path(folder).glob("*/libwrap.so.0")), None
    )
    if library is None:
        require("libwrap0")
    empty, path, leaf = tmp_path / "empty", tmp_path / "culvert.conf", certificates.server
    empty.touch()
    path.write_text(
        "foreground = quiet\nsyslog = no\n[s]\naccept = 127.0.0.1:0\nconnect = 127.0.0.1:9\nlibwrap = yes\n"
        f"cert = {leaf.cert}\nkey = {leaf.key}\n"
    )
    script = 'mount --bind "$1" "$2" && shift 2 && exec "$@"'
    culvert = (sys.executable, "-m", "culvert", command, str(path))
    ran = run([require("unshare"), "-m", "sh", "-c", script, "sh", str(empty), str(library), *culvert])
    assert ran.returncode == 1
    assert "libwrap = yes" in ran.stdout + ran.stderr
    assert "install the package libwrap0" in ran.stdout + ran.stderr
