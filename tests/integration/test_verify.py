"""Whose certificate is accepted: the truth table of the verify options, in both roles."""

from __future__ import annotations

import itertools
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from OpenSSL import SSL

from .certificates import Certificates, Leaf
from .greeters import Greeters, greeting
from .harness import Culvert, require
from .peers import Peers, client_context, read_all

KINDS = ["none", "pinned", "other", "stranger", "self", "expired"]
"""No certificate; one of the CA that stands in CAfile itself; one of the CA that does not; one of another CA;
a self-signed one that stands in CAfile; one of the CA that has expired."""

CHAIN = {"pinned", "other", "self"}
PEER = {"pinned", "self"}
EVERY = set(KINDS)

POLICIES: dict[str, tuple[str, str, set[str]]] = {
    "nothing": ("full", "", EVERY),
    "verify-0": ("full", "verify = 0", EVERY),
    "verify-1": ("full", "verify = 1", CHAIN | {"none"}),
    "verify-2": ("full", "verify = 2", CHAIN),
    "verify-3": ("full", "verify = 3", PEER),
    "verify-3-without-ca": ("leaves", "verify = 3", {"self"}),
    "verify-4": ("full", "verify = 4", PEER),
    "verify-4-without-ca": ("leaves", "verify = 4", PEER),
    "chain": ("full", "verifyChain = yes", CHAIN),
    "chain-optional": ("full", "verifyChain = yes\nrequireCert = no", CHAIN | {"none"}),
    "peer": ("leaves", "verifyPeer = yes", PEER),
    "peer-with-ca": ("full", "verifyPeer = yes", PEER),
    "peer-optional": ("leaves", "verifyPeer = yes\nrequireCert = no", PEER | {"none"}),
    "both": ("full", "verifyChain = yes\nverifyPeer = yes", PEER),
    "both-without-ca": ("leaves", "verifyChain = yes\nverifyPeer = yes", {"self"}),
}
"""What stands in CAfile, the options, and whom they accept."""


def leaves(certificates: Certificates) -> dict[str, Leaf]:
    return {
        "pinned": certificates.client,
        "other": certificates.server,
        "stranger": certificates.stranger,
        "self": certificates.self_signed,
        "expired": certificates.expired,
    }


@pytest.fixture(scope="module")
def trusted(certificates: Certificates) -> dict[str, Path]:
    """The files for CAfile."""
    pinned = (certificates.client, certificates.self_signed)
    return {
        "full": certificates.trust("full", certificates.ca, *pinned),
        "leaves": certificates.trust("leaves", *pinned),
    }


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory, certificates: Certificates, trusted: dict[str, Path]
) -> Iterator[Culvert]:
    """A server that has a service for each policy; who is accepted is greeted."""
    text = f"cert = {certificates.server.cert}\nkey = {certificates.server.key}\n"
    for name, (trust, options, _) in POLICIES.items():
        text += f"[{name}]\naccept = 127.0.0.1:0\nexec = /bin/echo\nexecArgs = echo welcome\n"
        text += f"CAfile = {trusted[trust]}\n{options}\n"
    with Culvert(tmp_path_factory.mktemp("server"), text) as daemon:
        yield daemon


def accepted(daemon: Culvert, peers: Peers, service: str, context: SSL.Context) -> bool:
    """Whether the service greets this TLS client."""
    try:
        return read_all(peers.tls(daemon.port(service), context)) == b"welcome\n"
    except (SSL.Error, ConnectionError):
        return False


@pytest.mark.parametrize("policy", POLICIES)
def test_which_clients_a_server_accepts(
    server: Culvert, certificates: Certificates, peers: Peers, policy: str, version: str
) -> None:
    clients: dict[str, Leaf | None] = {"none": None, **leaves(certificates)}
    found = {
        kind
        for kind, leaf in clients.items()
        if accepted(server, peers, policy, client_context(version, leaf=leaf))
    }
    assert found == POLICIES[policy][2]


@pytest.fixture(scope="module")
def greeters(certificates: Certificates) -> Iterator[Greeters]:
    """A TLS server for each kind of certificate."""
    with Greeters(leaves(certificates)) as greeters:
        yield greeters


@pytest.fixture(scope="module")
def client(
    tmp_path_factory: pytest.TempPathFactory, trusted: dict[str, Path], greeters: Greeters
) -> Iterator[Culvert]:
    """A client that has a service for each policy and each kind of server."""
    text = "client = yes\n"
    for (name, (trust, options, _)), (kind, port) in itertools.product(
        POLICIES.items(), greeters.ports.items()
    ):
        text += f"[{name}-{kind}]\naccept = 127.0.0.1:0\nconnect = 127.0.0.1:{port}\n"
        text += f"CAfile = {trusted[trust]}\n{options}\n"
    with Culvert(tmp_path_factory.mktemp("client"), text) as daemon:
        yield daemon


@pytest.mark.parametrize("policy", POLICIES)
def test_which_servers_a_client_accepts(client: Culvert, policy: str) -> None:
    found = {
        kind for kind in KINDS[1:] if greeting(client.port(f"{policy}-{kind}")) == f"I am {kind}".encode()
    }
    assert found == POLICIES[policy][2] - {"none"}


def test_a_refusal_names_depth_and_subject(client: Culvert) -> None:
    mark = client.log.mark()
    greeting(client.port("chain-stranger"))
    client.await_log(r"LOG4\[\S+\]: .*Rejected by CERT at depth=\d: .*CN ?= ?stranger", since=mark)
    client.await_log(r"LOG3\[\S+\]: SSL_connect: .*certificate verify failed", since=mark)


def test_a_client_that_verifies_nothing_is_warned_about(client: Culvert) -> None:
    warned = client.log.find(r"LOG4\[\S+\]: Service \[(\S+)\] needs authentication to prevent MITM attacks")
    names = {match.group(1) for match in warned}
    assert {f"nothing-{kind}" for kind in KINDS[1:]} <= names
    assert not {name for name in names if name.startswith(("chain-", "peer-", "both-", "verify-2"))}


CHECKS: dict[str, tuple[str, bool]] = {
    "host": ("checkHost = a.example", True),
    "case": ("checkHost = A.Example", True),
    "wrong-host": ("checkHost = b.example", False),
    "one-of-two-hosts": ("checkHost = b.example\ncheckHost = a.example", True),
    "wildcard": ("checkHost = x.wild.example", True),
    "above-the-wildcard": ("checkHost = wild.example", False),
    "address": ("checkIP = 10.1.2.3", True),
    "address-6": ("checkIP = 2001:db8::7", True),
    "wrong-address": ("checkIP = 10.1.2.4", False),
    "email": ("checkEmail = post@a.example", True),
    "wrong-email": ("checkEmail = post@b.example", False),
    "wrong-host-right-address": ("checkHost = b.example\ncheckIP = 10.1.2.3", True),
    "wrong-host-right-email": ("checkHost = b.example\ncheckEmail = post@a.example", True),
    "all-wrong": ("checkHost = b.example\ncheckIP = 10.1.2.4\ncheckEmail = post@b.example", False),
}
"""Any one match is enough, across all of them."""


@pytest.fixture(scope="module")
def checking(tmp_path_factory: pytest.TempPathFactory, certificates: Certificates) -> Iterator[Culvert]:
    """A client that has a service for each check, all to one server."""
    leaf = certificates.ca.leaf(
        "named",
        hosts=("a.example", "*.wild.example"),
        addresses=("10.1.2.3", "2001:db8::7"),
        emails=("post@a.example",),
    )
    with Greeters({"named": leaf}) as greeters:
        text = f"client = yes\nCAfile = {certificates.ca.cert}\nverifyChain = yes\n"
        for name, (options, _) in CHECKS.items():
            text += (
                f"[{name}]\naccept = 127.0.0.1:0\nconnect = 127.0.0.1:{greeters.ports['named']}\n{options}\n"
            )
        with Culvert(tmp_path_factory.mktemp("checking"), text) as daemon:
            yield daemon


@pytest.mark.parametrize("check", CHECKS)
def test_checks_of_the_subject(checking: Culvert, check: str) -> None:
    assert (greeting(checking.port(check)) == b"I am named") == CHECKS[check][1]


def test_checks_of_a_clients_subject(
    culvert: Callable[..., Culvert], certificates: Certificates, peers: Peers
) -> None:
    daemon = culvert(
        f"cert = {certificates.server.cert}\nkey = {certificates.server.key}\n"
        f"CAfile = {certificates.ca.cert}\nverifyChain = yes\n"
        "[right]\naccept = 127.0.0.1:0\nexec = /bin/echo\nexecArgs = echo welcome\n"
        "checkEmail = other@example.com\ncheckEmail = client@example.com\n"
        "[wrong]\naccept = 127.0.0.1:0\nexec = /bin/echo\nexecArgs = echo welcome\n"
        "checkEmail = other@example.com\n"
    )
    context = client_context(leaf=certificates.client)
    assert accepted(daemon, peers, "right", context)
    assert not accepted(daemon, peers, "wrong", context)


def test_a_hashed_directory_of_authorities(
    culvert: Callable[..., Culvert], certificates: Certificates, peers: Peers, tmp_path: Path
) -> None:
    """CApath holds the CA and one pinned leaf, by subject hash."""
    directory = tmp_path / "authorities"
    directory.mkdir()
    for certificate in (certificates.ca.cert, certificates.client.cert):
        command = [require("openssl"), "x509", "-hash", "-noout", "-in", str(certificate)]
        name = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        shutil.copy(certificate, directory / f"{name}.0")
    common = f"accept = 127.0.0.1:0\nexec = /bin/echo\nexecArgs = echo welcome\nCApath = {directory}\n"
    daemon = culvert(
        f"cert = {certificates.server.cert}\nkey = {certificates.server.key}\n"
        f"[chain]\n{common}verifyChain = yes\n[peer]\n{common}verifyPeer = yes\n"
    )
    clients = leaves(certificates)
    found = {
        (policy, kind)
        for policy, kind in itertools.product(("chain", "peer"), clients)
        if accepted(daemon, peers, policy, client_context(leaf=clients[kind]))
    }
    assert found == {("chain", "pinned"), ("chain", "other"), ("peer", "pinned")}
