"""Who may pass: allowCN and its kin, in both roles, for new and for resumed sessions."""

from __future__ import annotations

import hashlib
import itertools
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from OpenSSL import SSL

from .certificates import Authority, Certificates, Leaf
from .greeters import Greeters, greeting
from .harness import PATIENCE, Culvert, eventually, require
from .peers import Peers, TlsPeer, client_context, read_all

Start = Callable[..., Culvert]

KINDS = ("web", "db", "stranger", "self", "expired")
"""Two of the CA; with the names of the first, one of another CA, a self-signed one and an expired one."""

RULES: dict[str, tuple[str, set[str]]] = {
    "cn": ("{chain}allowCN = web", {"web"}),
    "dns": ("{chain}allowDNS = *.svc.example", {"web", "db"}),
    "one-dns": ("{chain}allowDNS = db.svc.example", {"db"}),
    "uri": ("{chain}allowURI = spiffe://t.example/ns/*/sa/web", {"web"}),
    "email": ("{chain}allowEmail = web@svc.example", {"web"}),
    "ip": ("{chain}allowIP = 192.0.2.0/24", {"web"}),
    "either": (
        "{chain}allowCN = nobody\nallowURI = spiffe://t.example/ns/a/sa/db\nallowCN = web",
        {"web", "db"},
    ),
    "nobody": ("{chain}allowCN = nobody\nallowDNS = *.example", set()),
    "case": ("{chain}allowCN = Web", set()),
    "with-check": ("{chain}checkHost = db.svc.example\nallowDNS = *.svc.example", {"db"}),
    "pinned": ("CAfile = {pins}\nverifyPeer = yes\nallowCN = web", {"web", "self"}),
    "key": ("allowSPKI = {spki[stranger]}", {"stranger"}),
    "own-key": ("allowSPKI = sha256:{spki[self]}", {"self"}),
    "expired-key": ("allowSPKI = {spki[expired]}", set()),
    "two-keys": ("allowSPKI = {spki[web]}\nallowSPKI = {spki[self]}", {"web", "self"}),
    "key-and-chain": ("{chain}allowSPKI = {spki[stranger]}\nallowSPKI = {spki[db]}", {"db"}),
}
"""The options, and whom they let pass. A peer without a certificate never passes."""


def spki(leaf: Leaf) -> str:
    key = leaf.certificate.public_key()
    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def issue(authority: Authority, kind: str, name: str, *, days: int = 60, self_signed: bool = False) -> Leaf:
    """A leaf with names of every sort; its files, called by its name, are in a folder of their own."""
    folder = authority.cert.parent / f"rules-{kind}"
    folder.mkdir()
    return authority.leaf(
        name,
        hosts=[f"{name}.svc.example"],
        addresses=["192.0.2.7" if name == "web" else "198.51.100.7"],
        emails=[f"{name}@svc.example"],
        uris=[f"spiffe://t.example/ns/a/sa/{name}"],
        days=days,
        self_signed=self_signed,
        folder=folder,
    )


@pytest.fixture(scope="module")
def leaves(certificates: Certificates) -> dict[str, Leaf]:
    return {
        "web": issue(certificates.ca, "web", "web"),
        "db": issue(certificates.ca, "db", "db"),
        "stranger": issue(certificates.other_ca, "stranger", "web"),
        "self": issue(certificates.ca, "self", "web", self_signed=True),
        "expired": issue(certificates.ca, "expired", "web", days=-1),
    }


@pytest.fixture(scope="module")
def options(certificates: Certificates, leaves: dict[str, Leaf]) -> dict[str, str]:
    """The options of each entry of RULES."""
    values = {
        "chain": f"CAfile = {certificates.ca.cert}\nverifyChain = yes\n",
        "pins": str(certificates.trust("pins", leaves["web"], leaves["db"], leaves["self"])),
        "spki": {kind: spki(leaf) for kind, leaf in leaves.items()},
    }
    return {name: text.format(**values) for name, (text, _) in RULES.items()}


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory, certificates: Certificates, options: dict[str, str]
) -> Iterator[Culvert]:
    """A server that has a service for each entry of RULES; who may pass is greeted."""
    text = f"cert = {certificates.server.cert}\nkey = {certificates.server.key}\n"
    for name, lines in options.items():
        text += f"[{name}]\naccept = 127.0.0.1:0\nexec = /bin/echo\nexecArgs = echo welcome\n{lines}\n"
    with Culvert(tmp_path_factory.mktemp("server"), text) as daemon:
        yield daemon


def admitted(daemon: Culvert, peers: Peers, service: str, context: SSL.Context) -> bool:
    try:
        return read_all(peers.tls(daemon.port(service), context)) == b"welcome\n"
    except (SSL.Error, ConnectionError):
        return False


@pytest.mark.parametrize("name", RULES)
def test_which_clients_pass(
    *, server: Culvert, leaves: dict[str, Leaf], peers: Peers, name: str, version: str
) -> None:
    clients: dict[str, Leaf | None] = {"none": None, **leaves}
    found = {
        kind
        for kind, leaf in clients.items()
        if admitted(server, peers, name, client_context(version, leaf=leaf))
    }
    assert found == RULES[name][1]


@pytest.fixture(scope="module", params=["TLSv1.2", "TLSv1.3"])
def client(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    leaves: dict[str, Leaf],
    options: dict[str, str],
) -> Iterator[Culvert]:
    """A client that has a service for each entry of RULES and each kind of server."""
    with Greeters(leaves, request.param) as greeters:
        text = "client = yes\n"
        for (name, lines), (kind, port) in itertools.product(options.items(), greeters.ports.items()):
            text += f"[{name}-{kind}]\naccept = 127.0.0.1:0\nconnect = 127.0.0.1:{port}\n{lines}\n"
        with Culvert(tmp_path_factory.mktemp("client"), text) as daemon:
            yield daemon


@pytest.mark.parametrize("name", RULES)
def test_which_servers_pass(client: Culvert, name: str) -> None:
    found = {kind for kind in KINDS if greeting(client.port(f"{name}-{kind}")) == f"I am {kind}".encode()}
    assert found == RULES[name][1]
    # A second time, from a resumed session where there is one.
    again = {kind for kind in KINDS if greeting(client.port(f"{name}-{kind}")) == f"I am {kind}".encode()}
    assert again == found


def test_a_decision_is_logged_with_identity_and_rule(
    server: Culvert, leaves: dict[str, Leaf], peers: Peers, version: str
) -> None:
    mark = server.log.mark()
    assert admitted(server, peers, "uri", client_context(version, leaf=leaves["web"]))
    server.await_log(
        r"LOG5\[\S+\]: Identity accepted by allowURI = spiffe://t\.example/ns/\*/sa/web: "
        r"URI:spiffe://t\.example/ns/a/sa/web$",
        since=mark,
    )
    assert not admitted(server, peers, "uri", client_context(version, leaf=leaves["db"]))
    server.await_log(
        rf"LOG4\[\S+\]: CERT: No allow rule matches the peer's identities: SPKI:sha256:{spki(leaves['db'])}, "
        r"CN=db, DNS:db\.svc\.example, IP:198\.51\.100\.7, email:db@svc\.example, "
        r"URI:spiffe://t\.example/ns/a/sa/db$",
        since=mark,
    )
    server.await_log(r"LOG4\[\S+\]: Rejected by CERT at depth=0: C=CH, O=Test, CN=db$", since=mark)


def test_a_resumed_session_keeps_its_identity(
    server: Culvert, leaves: dict[str, Leaf], peers: Peers, version: str
) -> None:
    context = client_context(version, leaf=leaves["web"])
    mark, session = server.log.mark(), None
    for _ in range(3):
        peer = TlsPeer(peers.dial(server.port("cn")), context, server=False)
        if session is not None:
            peer.engine.set_session(session)
        peer.handshake()
        assert read_all(peer) == b"welcome\n"
        session = peer.engine.get_session()
        peer.end()
    accepted = r"LOG5\[\S+\]: Identity accepted by allowCN = web: CN=web$"
    eventually(lambda: len(server.log.find(accepted, mark)) == 3, "three decisions", timeout=5)
    reused = r"TLS accepted: previous session reused"
    eventually(lambda: len(server.log.find(reused, mark)) == 2, "two resumed sessions", timeout=5)


def test_a_session_of_one_service_does_not_pass_another(
    server: Culvert, leaves: dict[str, Leaf], peers: Peers, version: str
) -> None:
    """Both services are one process, and the second lets nobody pass."""
    context = client_context(version, leaf=leaves["web"])
    peer = peers.tls(server.port("cn"), context)
    assert read_all(peer) == b"welcome\n"
    session = peer.engine.get_session()
    assert session is not None
    again = TlsPeer(peers.dial(server.port("nobody")), context, server=False)
    again.engine.set_session(session)
    with pytest.raises((SSL.Error, ConnectionError)):
        again.handshake()
        read_all(again)


@pytest.mark.parametrize("flag", ["-tls1_2", "-tls1_3"])
def test_openssl_is_told_why(server: Culvert, leaves: dict[str, Leaf], tmp_path: Path, flag: str) -> None:
    def s_client(service: str, *arguments: str) -> str:
        target = f"127.0.0.1:{server.port(service)}"
        command = [require("openssl"), "s_client", "-ign_eof", "-connect", target, flag, *arguments]
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE, check=False
        )
        return (done.stdout + done.stderr).decode("utf-8", "replace")

    def shown(kind: str) -> tuple[str, ...]:
        return ("-cert", str(leaves[kind].cert), "-key", str(leaves[kind].key))

    assert "welcome" in s_client("key", *shown("stranger"))
    refused = s_client("key", *shown("web"))
    assert "welcome" not in refused
    assert "alert bad certificate" in refused
    bare = s_client("key")
    assert "welcome" not in bare
    assert ("certificate required" if flag == "-tls1_3" else "handshake failure") in bare


def test_a_server_that_shows_no_certificate_does_not_pass(
    culvert: Start, peers: Peers, options: dict[str, str]
) -> None:
    """An anonymous cipher suite has none; a client that permits it is protected by its rules."""
    listener = peers.listen()
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_max_proto_version(SSL.TLS1_2_VERSION)
    context.set_cipher_list(b"AECDH-AES256-SHA:@SECLEVEL=0")
    daemon = culvert(
        f"[c]\nclient = yes\naccept = 127.0.0.1:0\nconnect = 127.0.0.1:{listener.port}\n"
        f"sslVersionMax = TLSv1.2\nciphers = AECDH-AES256-SHA\nsecurityLevel = 0\n{options['key']}\n"
    )
    peers.dial(daemon.port("c"))
    server = TlsPeer(listener.accept(), context, server=True)
    server.handshake()
    daemon.await_log("peer did not return a certificate")
    assert not daemon.log.find("connected: new session")
