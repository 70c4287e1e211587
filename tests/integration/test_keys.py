"""`cert` and `key` in every form, in both roles, and pass phrases asked for on the terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .certificates import Certificates
from .harness import Culvert, require
from .peers import Peers, TlsPeer, client_context, read_all, server_context
from .terminal import Terminal

Start = Callable[..., Culvert]


def credentials(certificates: Certificates) -> dict[str, str]:
    """The same certificate, below an intermediate one, in every form that `cert` and `key` take."""
    leaf = certificates.chained
    return {
        "one-file": f"cert = {leaf.bundle}\n",
        "chain-and-key": f"cert = {leaf.chain}\nkey = {leaf.key}\n",
        "key-of-the-bundle": f"cert = {leaf.chain}\nkey = {leaf.bundle}\n",
        "pkcs12": f"cert = {leaf.pkcs12()}\n",
    }


FORMS = ["one-file", "chain-and-key", "key-of-the-bundle", "pkcs12"]


@pytest.mark.parametrize("form", FORMS)
def test_a_server_shows_the_whole_chain(
    culvert: Start, certificates: Certificates, peers: Peers, form: str
) -> None:
    """The client knows the root alone."""
    daemon = culvert(f"[s]\naccept = 127.0.0.1:0\nexec = /bin/true\n{credentials(certificates)[form]}")
    peer = peers.tls(daemon.port("s"), client_context(trust=certificates.ca.cert))
    assert read_all(peer) == b""


@pytest.mark.parametrize("form", FORMS)
def test_a_client_shows_the_whole_chain(
    culvert: Start, certificates: Certificates, peers: Peers, form: str
) -> None:
    listener = peers.listen()
    daemon = culvert(
        f"[c]\nclient = yes\naccept = 127.0.0.1:0\nconnect = 127.0.0.1:{listener.port}\n"
        f"{credentials(certificates)[form]}"
    )
    peers.dial(daemon.port("c"))
    context = server_context(certificates.server, ask_trust=certificates.ca.cert)
    peer = TlsPeer(listener.accept(), context, server=True)
    peer.handshake()
    shown = peer.engine.get_peer_certificate()
    assert shown is not None
    assert shown.to_cryptography() == certificates.chained.certificate


def test_key_and_certificate_that_do_not_match(certificates: Certificates, tmp_path: Path) -> None:
    daemon = Culvert(
        tmp_path,
        f"[s]\naccept = 127.0.0.1:0\nexec = /bin/true\n"
        f"cert = {certificates.server.cert}\nkey = {certificates.client.key}\n",
    )
    daemon.launch()
    assert daemon.wait() == 1
    assert daemon.log.find(rf"culvert\.conf:\d+: .*{certificates.client.key}.*{certificates.server.cert}")


def protected(certificates: Certificates, form: str) -> tuple[str, str]:
    """Options whose key is encrypted, and the name that a prompt must show."""
    leaf = certificates.chained
    if form == "pkcs12":
        path = leaf.pkcs12("open sesame")
        return f"cert = {path}\n", str(path)
    path = leaf.encrypted_key("open sesame")
    return f"cert = {leaf.chain}\nkey = {path}\n", str(path)


@pytest.fixture
def on_terminal(
    certificates: Certificates, tmp_path: Path, terminal: Terminal
) -> Iterator[Callable[[str], tuple[Culvert, str]]]:
    """Launches a daemon with an encrypted key on a terminal, and gives it and the key's path."""
    launched: list[Culvert] = []

    def launch(form: str) -> tuple[Culvert, str]:
        options, path = protected(certificates, form)
        daemon = Culvert(
            tmp_path,
            f"[s]\naccept = 127.0.0.1:0\nexec = /bin/true\n{options}",
            prefix=[require("setsid"), "--ctty"],
            stdin=terminal.slave,
        )
        launched.append(daemon)
        daemon.launch()
        return daemon, path

    yield launch
    for daemon in launched:
        daemon.kill()


@pytest.mark.parametrize("form", ["pem", "pkcs12"])
def test_an_encrypted_key_asks_on_the_terminal_and_names_its_file(
    *,
    on_terminal: Callable[[str], tuple[Culvert, str]],
    terminal: Terminal,
    certificates: Certificates,
    peers: Peers,
    form: str,
) -> None:
    daemon, path = on_terminal(form)
    terminal.answer(path, "open sesame")
    daemon.await_log("Accepting new connections")
    peer = peers.tls(daemon.port("s"), client_context(trust=certificates.ca.cert))
    assert read_all(peer) == b""
    assert "open sesame" not in terminal.shown, "what is typed is not shown"
    assert not daemon.log.find("open sesame")
    daemon.stop()


@pytest.mark.parametrize("form", ["pem", "pkcs12"])
def test_a_wrong_pass_phrase_fails_the_start(
    on_terminal: Callable[[str], tuple[Culvert, str]], terminal: Terminal, form: str
) -> None:
    daemon, path = on_terminal(form)
    for _ in range(3):
        terminal.answer(path, "wrong guess")
        if daemon.log.ended or daemon.process.poll() is not None:
            break
        try:
            daemon.log.wait("Configuration failed|LOG3", timeout=1)
            break
        except AssertionError:
            continue
    assert daemon.wait() == 1
    assert not daemon.log.find("wrong guess")


@pytest.mark.parametrize("form", ["pem", "pkcs12"])
def test_an_encrypted_key_without_a_terminal_fails_the_start(
    certificates: Certificates, tmp_path: Path, form: str
) -> None:
    options, path = protected(certificates, form)
    daemon = Culvert(
        tmp_path, f"[s]\naccept = 127.0.0.1:0\nexec = /bin/true\n{options}", prefix=[require("setsid")]
    )
    daemon.launch()
    assert daemon.wait() == 1
    assert daemon.log.find(path)
