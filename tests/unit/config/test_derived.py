"""Fields that follow from several options."""

from __future__ import annotations

import pytest

from culvert.config import Failover, SocketOption, TlsVersion, VerifyPolicy

from .reading import CLIENT, SERVER, service

TRUST = "CAfile = ca.pem\n"


def policy(*words: str) -> VerifyPolicy:
    return VerifyPolicy(**{name: name in words for name in ("request", "require", "chain", "peer")})


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ("", policy()),
        ("verify = 0", policy("request")),
        ("verify = 1", policy("request", "chain")),
        ("verify = 2", policy("request", "require", "chain")),
        ("verify = 3", policy("request", "require", "chain", "peer")),
        ("verify = 4", policy("request", "require", "peer")),
        ("verifyChain = yes", policy("request", "require", "chain")),
        ("verifyPeer = yes", policy("request", "require", "peer")),
        ("verifyChain = yes\nverifyPeer = yes", policy("request", "require", "chain", "peer")),
        ("verifyChain = no", policy()),
        ("requireCert = yes", policy("request", "require")),
        ("verifyChain = yes\nrequireCert = no", policy("request", "chain")),
        ("verify = 2\nrequireCert = no", policy("request", "chain")),
        ("verify = 1\nrequireCert = yes", policy("request", "require", "chain")),
        ("verify = 2\nverifyPeer = yes", policy("request", "require", "chain", "peer")),
        ("verify = 3\nverifyChain = no", policy("request", "require", "peer")),
        ("verify = 1\nverifyChain = yes", policy("request", "require", "chain")),
        ("verify = 2\nverifyChain = no", policy("request")),
    ],
)
def test_verify_policy(settings: str, expected: VerifyPolicy) -> None:
    assert service(SERVER + TRUST + settings).verify == expected


@pytest.mark.parametrize(
    ("settings", "oldest", "newest"),
    [
        ("", TlsVersion.TLS1_2, TlsVersion.TLS1_3),
        ("sslVersion = all", TlsVersion.TLS1, TlsVersion.TLS1_3),
        ("sslVersion = TLSv1.2", TlsVersion.TLS1_2, TlsVersion.TLS1_2),
        ("sslVersion = TLSv1.2\nsslVersionMin = TLSv1.1", TlsVersion.TLS1_1, TlsVersion.TLS1_2),
        ("sslVersionMin = TLSv1.1\nsslVersion = TLSv1.2", TlsVersion.TLS1_2, TlsVersion.TLS1_2),
        ("sslVersionMin = SSLv3", TlsVersion.TLS1, TlsVersion.TLS1_3),
        ("sslVersionMax = TLSv1.2", TlsVersion.TLS1_2, TlsVersion.TLS1_2),
    ],
)
def test_versions(settings: str, oldest: TlsVersion, newest: TlsVersion) -> None:
    found = service(CLIENT + settings)
    assert (found.version_min, found.version_max) == (oldest, newest)


@pytest.mark.parametrize(
    ("settings", "bits_set", "bits_clear"),
    [
        ("", 1 << 25, 0),
        ("options = -NO_SSLv3", 0, 1 << 25),
        ("options = NO_TICKET\noptions = -NO_TICKET", 1 << 25, 1 << 14),
        ("options = -NO_TICKET\noptions = NO_TICKET", 1 << 25 | 1 << 14, 0),
        ("options = SINGLE_DH_USE", 1 << 25, 0),
    ],
)
def test_tls_bits(settings: str, bits_set: int, bits_clear: int) -> None:
    found = service(CLIENT + settings)
    assert (found.options_set, found.options_clear) == (bits_set, bits_clear)


def test_socket_options_stand_over_the_defaults_once_each() -> None:
    settings = (
        "socket = a:SO_REUSEADDR=no\nsocket = l:SO_OOBINLINE=no\nsocket = l:SO_OOBINLINE=yes\n"
        "socket = r:SO_KEEPALIVE=no\n"
    )
    probing = (("TCP_KEEPIDLE", 120), ("TCP_KEEPINTVL", 30), ("TCP_KEEPCNT", 4))
    assert service(CLIENT + settings).socket_options == (
        SocketOption("a", "SO_REUSEADDR", 0),
        SocketOption("l", "TCP_NODELAY", 1),
        SocketOption("l", "SO_KEEPALIVE", 1),
        *(SocketOption("l", name, value) for name, value in probing),
        SocketOption("r", "TCP_NODELAY", 1),
        SocketOption("r", "SO_KEEPALIVE", 0),
        *(SocketOption("r", name, value) for name, value in probing),
        SocketOption("l", "SO_OOBINLINE", 1),
    )


def test_key_defaults_to_the_file_of_the_certificate() -> None:
    assert service(SERVER).key == "server.pem"
    assert service(SERVER + "key = other.pem").key == "other.pem"
    assert service(CLIENT).key is None


def test_program_names_itself_where_no_arguments_are_given() -> None:
    assert service("accept = 1\ncert = a\nexec = /bin/cat").exec_args == ("/bin/cat",)
    assert service("accept = 1\ncert = a\nexec = /bin/cat\nexecArgs = cat -u").exec_args == ("cat", "-u")
    assert service(CLIENT).exec_args == ()


def test_delay_forces_prio() -> None:
    assert service(CLIENT + "failover = rr").failover is Failover.RR
    assert service(CLIENT + "failover = rr\ndelay = yes").failover is Failover.PRIO


def test_server_name() -> None:
    assert service(CLIENT).sni is None
    assert service(CLIENT + "sni =").sni == ""
    assert service(CLIENT + "sni = a.example.com\nsni = b.example.com").sni == "b.example.com"
