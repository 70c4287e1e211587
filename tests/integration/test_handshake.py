"""What is negotiated: versions, ciphers, groups, the server's name; and the log line that tells it."""

from __future__ import annotations

import datetime
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from OpenSSL import SSL

from .certificates import Certificates
from .greeters import Greeters, greeting
from .harness import Culvert, require
from .peers import Peers, client_context, read_all

Start = Callable[..., Culvert]


@pytest.fixture
def serve(culvert: Start, certificates: Certificates) -> Callable[[str], Culvert]:
    """Starts a server [s] with these options; who gets in is greeted."""
    credentials = f"cert = {certificates.server.cert}\nkey = {certificates.server.key}\n"
    greeting = "[s]\naccept = 127.0.0.1:0\nexec = /bin/echo\nexecArgs = echo welcome\n"

    def start(options: str = "") -> Culvert:
        return culvert(f"{greeting}{credentials}{options}\n")

    return start


def s_client(daemon: Culvert, *arguments: str) -> str:
    """What Debian's openssl says of a connection to [s]."""
    target = f"127.0.0.1:{daemon.port('s')}"
    command = [require("openssl"), "s_client", "-ign_eof", "-connect", target, *arguments]
    finished = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20, check=False
    )
    return finished.stdout + finished.stderr


CIPHERS = {"TLSv1.2": "ECDHE-ECDSA-AES256-GCM-SHA384", "TLSv1.3": "TLS_AES_256_GCM_SHA384"}


def test_the_log_names_version_cipher_and_group_of_a_server(
    serve: Callable[..., Culvert], peers: Peers, version: str
) -> None:
    daemon = serve()
    assert read_all(peers.tls(daemon.port("s"), client_context(version))) == b"welcome\n"
    group = "X25519MLKEM768" if version == "TLSv1.3" else "(?i:x25519)"
    daemon.await_log(rf"LOG6\[\S+\]: {version} .*{CIPHERS[version]} .*{group}$")
    daemon.await_log(r"LOG6\[\S+\]: TLS accepted: new session negotiated")


def test_the_log_names_version_cipher_and_group_of_a_client(
    culvert: Start, certificates: Certificates, version: str
) -> None:
    with Greeters({"server": certificates.server}, version) as greeters:
        daemon = culvert(
            f"[c]\nclient = yes\naccept = 127.0.0.1:0\nconnect = 127.0.0.1:{greeters.ports['server']}\n"
        )
        assert greeting(daemon.port("c")) == b"I am server"
        group = "X25519MLKEM768" if version == "TLSv1.3" else "(?i:x25519)"
        daemon.await_log(rf"LOG6\[\S+\]: {version} .*{CIPHERS[version]} .*{group}$")
        daemon.await_log(r"LOG6\[\S+\]: TLS connected: new session negotiated")


def test_ciphers(serve: Callable[..., Culvert], peers: Peers) -> None:
    daemon = serve("ciphers = ECDHE-ECDSA-AES128-GCM-SHA256\noptions = DONT_INSERT_EMPTY_FRAGMENTS")
    peer = peers.tls(daemon.port("s"), client_context("TLSv1.2"))
    assert peer.engine.get_cipher_name() == "ECDHE-ECDSA-AES128-GCM-SHA256"
    assert read_all(peer) == b"welcome\n"
    refused = client_context("TLSv1.2", ciphers="ECDHE-ECDSA-AES256-GCM-SHA384")
    mark = daemon.log.mark()
    with pytest.raises(SSL.Error, match="handshake failure"):
        peers.tls(daemon.port("s"), refused)
    daemon.await_log(r"LOG3\[\S+\]: SSL_accept: .*no shared cipher", since=mark)


def test_ciphersuites(serve: Callable[..., Culvert], peers: Peers) -> None:
    daemon = serve("ciphersuites = TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_GCM_SHA256")
    peer = peers.tls(daemon.port("s"), client_context("TLSv1.3"))
    assert peer.engine.get_cipher_name() in {"TLS_CHACHA20_POLY1305_SHA256", "TLS_AES_128_GCM_SHA256"}
    daemon = serve("ciphersuites = TLS_AES_128_GCM_SHA256")
    peer = peers.tls(daemon.port("s"), client_context("TLSv1.3"))
    assert peer.engine.get_cipher_name() == "TLS_AES_128_GCM_SHA256"


@pytest.mark.parametrize("option", ["curves", "curve"])
def test_a_list_of_one_curve(serve: Callable[..., Culvert], peers: Peers, version: str, option: str) -> None:
    """The client prefers another group, so that TLS 1.3 needs a HelloRetryRequest."""
    daemon = serve(f"{option} = P-384")
    assert read_all(peers.tls(daemon.port("s"), client_context(version))) == b"welcome\n"
    daemon.await_log(rf"LOG6\[\S+\]: {version} .*(P-384|secp384r1)$")
    assert "handshake failure" in s_client(daemon, "-groups", "X25519")


@pytest.mark.parametrize(
    ("options", "spoken"),
    [
        ("", {"TLSv1.2", "TLSv1.3"}),
        ("sslVersion = all", {"TLSv1.2", "TLSv1.3"}),
        ("sslVersion = TLSv1.2", {"TLSv1.2"}),
        ("sslVersion = TLSv1.3", {"TLSv1.3"}),
        ("sslVersionMin = TLSv1.3", {"TLSv1.3"}),
        ("sslVersionMax = TLSv1.2", {"TLSv1.2"}),
        ("sslVersionMin = TLSv1.2\nsslVersionMax = TLSv1.3", {"TLSv1.2", "TLSv1.3"}),
        ("options = NO_TLSv1_3", {"TLSv1.2"}),
        ("options = NO_TLSv1_3\noptions = -NO_TLSv1_3", {"TLSv1.2", "TLSv1.3"}),
    ],
)
def test_versions(serve: Callable[..., Culvert], peers: Peers, options: str, spoken: set[str]) -> None:
    daemon = serve(options)
    found = set()
    for version in ("TLSv1.2", "TLSv1.3"):
        try:
            peers.tls(daemon.port("s"), client_context(version))
        except SSL.Error as error:
            assert "protocol version" in str(error)
        else:
            found.add(version)
    assert found == spoken


OLD = ("-tls1_1", "-cipher", "DEFAULT:@SECLEVEL=0")


def test_an_old_version_is_not_spoken_by_default(serve: Callable[..., Culvert]) -> None:
    assert "alert protocol version" in s_client(serve(), *OLD)


def test_an_old_version_is_spoken_where_it_is_asked_for_and_warned_about(
    serve: Callable[..., Culvert],
) -> None:
    daemon = serve("sslVersionMin = TLSv1.1\nsecurityLevel = 0")
    assert "welcome" in s_client(daemon, *OLD)
    daemon.await_log(r"LOG6\[\S+\]: TLSv1\.1 ")
    assert daemon.log.find(r"LOG4\[\S+\]: .*TLSv1\.1")


@pytest.fixture
def weak(tmp_path: Path) -> str:
    """Options with a certificate whose RSA key is too short for security level 2."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "weak")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=60))
        .sign(key, hashes.SHA256())
    )
    path = tmp_path / "weak.pem"
    path.touch(mode=0o600)
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    return f"[s]\naccept = 127.0.0.1:0\nexec = /bin/echo\nexecArgs = echo welcome\ncert = {path}\n"


def test_the_default_security_level_refuses_a_short_key(weak: str, tmp_path: Path) -> None:
    daemon = Culvert(tmp_path, weak)
    daemon.launch()
    assert daemon.wait() == 1
    assert daemon.log.find(r"(?i)weak\.pem.*key too small")


def test_a_lower_security_level_accepts_a_short_key(culvert: Start, weak: str) -> None:
    assert "welcome" in s_client(culvert(f"{weak}securityLevel = 0\n"), "-cipher", "DEFAULT:@SECLEVEL=0")


@pytest.mark.parametrize(
    ("target", "options", "asked"),
    [
        ("localhost", "", "localhost"),
        ("127.0.0.1", "", None),
        ("127.0.0.1", "sni = Other.Example\n", "Other.Example"),
        ("localhost", "sni = other.example\n", "other.example"),
        ("localhost", "sni =\n", None),
    ],
)
def test_the_server_name_that_a_client_sends(
    *,
    culvert: Start,
    certificates: Certificates,
    target: str,
    options: str,
    asked: str | None,
) -> None:
    with Greeters({"server": certificates.server}) as greeters:
        port = greeters.ports["server"]
        daemon = culvert(f"[c]\nclient = yes\naccept = 127.0.0.1:0\nconnect = {target}:{port}\n{options}")
        assert greeting(daemon.port("c")) == b"I am server"
        assert greeters.names == [asked]
