"""How a connection ends: the rows of the closing table, in both roles, on both TLS versions and loops."""

from __future__ import annotations

import itertools
import socket
import time
from collections.abc import Callable, Iterator

import pytest
from OpenSSL import SSL

from .certificates import Certificates
from .harness import PATIENCE
from .peers import (
    VERSIONS,
    Peer,
    Peers,
    TlsPeer,
    TruncatedError,
    background,
    client_context,
    digest,
    pattern,
    read_all,
    read_exactly,
    read_slowly,
    reset,
)
from .tunnels import Pair, Tunnels

Open = Callable[..., Pair]

SMALL_BUFFER = 65536
MEGABYTE = 1 << 20


@pytest.fixture(scope="module")
def tunnels(
    tmp_path_factory: pytest.TempPathFactory,
    certificates: Certificates,
    event_loop_environment: dict[str, str],
) -> Iterator[Tunnels]:
    """Tunnels that close after a second, that do not pass RST on, and that end when idle."""
    variants = {
        "default": "TIMEOUTclose = 1",
        "gentle": "TIMEOUTclose = 1\nreset = no",
        "idle": "TIMEOUTidle = 1",
        "strict": f"requireCert = yes\nverifyChain = yes\nCAfile = {certificates.other_ca.cert}",
    }
    folder = tmp_path_factory.mktemp("closing")
    with Tunnels(folder, certificates, variants, event_loop_environment, SMALL_BUFFER) as tunnels:
        pair = tunnels.open("server", "TLSv1.3")
        pair.plain.end()
        assert read_all(pair.tls) == b""
        pair.close()
        tunnels.daemon.await_log("Connection closed")
        yield tunnels


@pytest.fixture
def open_pair(tunnels: Tunnels) -> Iterator[Open]:
    """Opens connections through the tunnels; in the end the daemon must hold no descriptor for them."""
    before = tunnels.daemon.descriptors()
    pairs: list[Pair] = []

    def open_one(role: str, version: str, variant: str = "default") -> Pair:
        pair = tunnels.open(role, version, variant)
        pairs.append(pair)
        return pair

    yield open_one
    for pair in pairs:
        pair.close()
    tunnels.daemon.await_descriptors(before)


def everywhere(scenario: Callable[[str, str], None]) -> None:
    """Runs a scenario that takes its time for both roles and both versions at once."""
    cases = list(itertools.product(("server", "client"), VERSIONS))
    running = [background(scenario, role, version) for role, version in cases]
    failures = []
    for case, future in zip(cases, running, strict=True):
        error = future.exception(2 * PATIENCE)
        if error is not None:
            failures.append(f"{case}: {error!r}")
    assert not failures, "\n".join(failures)


def last_sight(peer: Peer) -> str:
    """How the connection ended for this peer, after whatever data was left."""
    try:
        while peer.recv():
            pass
    except ConnectionResetError:
        return "reset"
    except TruncatedError:
        return "truncated"
    except SSL.Error as error:
        return str(error)
    return "end"


@pytest.mark.parametrize("first", ["plain", "tls"])
def test_half_close_leaves_the_other_direction_open(
    tunnels: Tunnels, open_pair: Open, role: str, version: str, first: str
) -> None:
    mark = tunnels.daemon.log.mark()
    pair = open_pair(role, version)
    one, other = pair.ends(first)
    request, answer = pattern(2000), pattern(4 * MEGABYTE, seed=2)
    one.send(request)
    one.end()
    assert read_all(other) == request

    sending = background(other.send, answer)
    received = read_exactly(one, len(answer))
    sending.result(PATIENCE)
    assert digest(received) == digest(answer)
    other.end()
    assert read_all(one) == b""
    sent = {one: len(request), other: len(answer)}
    tunnels.daemon.await_log(
        rf"LOG5\[\S+\]: Connection closed: {sent[pair.plain]} byte\(s\) sent to TLS, "
        rf"{sent[pair.tls]} byte\(s\) sent to socket",
        since=mark,
    )


@pytest.mark.parametrize("first", ["plain", "tls"])
def test_megabytes_before_the_end_are_flushed(open_pair: Open, role: str, version: str, first: str) -> None:
    pair = open_pair(role, version)
    one, other = pair.ends(first)
    data = pattern(6 * MEGABYTE)

    def send_and_end() -> None:
        one.send(data)
        one.end()

    sending = background(send_and_end)
    assert digest(read_all(other)) == digest(data)
    sending.result(PATIENCE)
    other.send(b"thanks")
    other.end()
    assert read_all(one) == b"thanks"


@pytest.mark.parametrize("first", ["plain", "tls"])
def test_after_both_ends_tls_sees_close_notify_then_fin(
    open_pair: Open, role: str, version: str, first: str
) -> None:
    pair = open_pair(role, version)
    one, other = pair.ends(first)
    one.end()
    assert read_all(other) == b""
    other.end()
    assert read_all(one) == b""
    assert pair.tls.sock.recv(1) == b""
    assert pair.plain.sock.recv(1) == b""


@pytest.mark.parametrize("first", ["plain", "tls"])
def test_timeout_close_ends_a_silent_half_closed_connection(open_pair: Open, first: str) -> None:
    def scenario(role: str, version: str) -> None:
        one, other = open_pair(role, version).ends(first)
        one.end()
        assert read_all(other) == b""
        started = time.monotonic()
        assert last_sight(one) in {"end", "truncated", "reset"}
        assert 0.7 < time.monotonic() - started < 6

    everywhere(scenario)


@pytest.mark.parametrize("first", ["plain", "tls"])
def test_timeout_close_waits_while_data_trickles(open_pair: Open, first: str) -> None:
    def scenario(role: str, version: str) -> None:
        one, other = open_pair(role, version).ends(first)
        one.end()
        assert read_all(other) == b""
        for _ in range(8):
            other.send(b"tick")
            assert read_exactly(one, 4) == b"tick"
            time.sleep(0.3)
        other.end()
        assert read_all(one) == b""

    everywhere(scenario)


@pytest.mark.parametrize("first", ["plain", "tls"])
def test_timeout_close_does_not_cut_a_slow_download(open_pair: Open, first: str) -> None:
    """The sender ends at once; most of the data then waits in the daemon's own socket buffer."""
    data = pattern(3 * MEGABYTE // 2)

    def scenario(role: str, version: str) -> None:
        one, other = open_pair(role, version).ends(first)
        background(one.send, data).result(PATIENCE)
        one.end()
        assert digest(read_slowly(other, rate=600_000)) == digest(data)

    everywhere(scenario)


@pytest.mark.parametrize("first", ["plain", "tls"])
def test_timeout_close_does_not_cut_what_comes_slowly_after_a_half_close(open_pair: Open, first: str) -> None:
    data = pattern(10 * MEGABYTE)

    def scenario(role: str, version: str) -> None:
        one, other = open_pair(role, version).ends(first)
        one.end()
        assert read_all(other) == b""

        def send_and_end() -> None:
            other.send(data)
            other.end()

        sending = background(send_and_end)
        assert digest(read_slowly(one, rate=4_000_000)) == digest(data)
        sending.result(PATIENCE)

    everywhere(scenario)


def test_truncation_is_logged_and_is_a_half_close(
    tunnels: Tunnels, open_pair: Open, role: str, version: str
) -> None:
    mark = tunnels.daemon.log.mark()
    pair = open_pair(role, version)
    pair.tls.send(b"incomplete")
    pair.tls.sock.shutdown(socket.SHUT_WR)
    assert read_all(pair.plain) == b"incomplete"
    tunnels.daemon.await_log("(?i)truncated", since=mark)
    data = pattern(2 * MEGABYTE)
    sending = background(pair.plain.send, data)
    assert digest(read_exactly(pair.tls, len(data))) == digest(data)
    sending.result(PATIENCE)
    pair.plain.end()
    assert read_all(pair.tls) == b""
    tunnels.daemon.await_log(r"Connection closed: \d+ byte", since=mark)


def test_an_orderly_end_is_not_called_truncated(
    tunnels: Tunnels, open_pair: Open, role: str, version: str
) -> None:
    mark = tunnels.daemon.log.mark()
    pair = open_pair(role, version)
    pair.tls.end()
    assert read_all(pair.plain) == b""
    pair.plain.end()
    assert read_all(pair.tls) == b""
    tunnels.daemon.await_log("Connection closed: 0 byte", since=mark)
    assert not tunnels.daemon.log.find("(?i)truncated", since=mark)


@pytest.mark.parametrize("first", ["plain", "tls"])
@pytest.mark.parametrize(("variant", "passed_on"), [("default", True), ("gentle", False)])
def test_a_reset_is_passed_on_as_configured(
    *, tunnels: Tunnels, open_pair: Open, role: str, version: str, first: str, variant: str, passed_on: bool
) -> None:
    mark = tunnels.daemon.log.mark()
    pair = open_pair(role, version, variant)
    one, other = pair.ends(first)
    one.send(b"hello")
    assert read_exactly(other, 5) == b"hello"
    reset(one.sock)
    without_reset = "truncated" if first == "plain" else "end"
    assert last_sight(other) == ("reset" if passed_on else without_reset)
    tunnels.daemon.await_log(
        r"LOG5\[\S+\]: Connection reset: \d+ byte\(s\) sent to TLS, \d+ byte", since=mark
    )


def test_an_idle_connection_is_reset_and_logged(tunnels: Tunnels, open_pair: Open) -> None:
    mark = tunnels.daemon.log.mark()

    def scenario(role: str, version: str) -> None:
        pair = open_pair(role, version, "idle")
        started = time.monotonic()
        sights = last_sight(pair.plain), last_sight(pair.tls)
        assert sights == ("reset", "reset")
        assert 0.7 < time.monotonic() - started < 6

    everywhere(scenario)
    tunnels.daemon.await_log("TIMEOUTidle", since=mark)


@pytest.mark.parametrize("sender", ["plain", "tls"])
def test_traffic_in_one_direction_is_not_idle(open_pair: Open, sender: str) -> None:
    def scenario(role: str, version: str) -> None:
        one, other = open_pair(role, version, "idle").ends(sender)
        for _ in range(7):
            one.send(b"x")
            assert read_exactly(other, 1) == b"x"
            time.sleep(0.3)
        one.end()
        assert read_all(other) == b""

    everywhere(scenario)


def test_a_forged_record_is_answered_by_an_alert_and_resets_the_plain_side(
    tunnels: Tunnels, open_pair: Open, role: str, version: str
) -> None:
    """What the peer sent behind the bad record must not turn the alert into an RST."""
    mark = tunnels.daemon.log.mark()
    pair = open_pair(role, version)
    record = bytearray(pair.tls.seal(b"forged"))
    record[-1] ^= 1
    pair.tls.sock.sendall(bytes(record) + pattern(200_000))
    assert "alert bad record mac" in last_sight(pair.tls)
    assert last_sight(pair.plain) == "reset"
    tunnels.daemon.await_log("(?i)bad record mac", since=mark)


def test_the_alert_of_a_refused_client_is_not_hidden_by_a_reset(
    tunnels: Tunnels, peers: Peers, version: str
) -> None:
    """A TLS 1.3 client already sends data when the server finds that the certificate is missing."""
    early = pattern(100_000) if version == "TLSv1.3" else b""
    sock = peers.dial(tunnels.daemon.port(f"strict-server-{version}"))
    peer = TlsPeer(sock, client_context(version), server=False)
    alert = "certificate required" if version == "TLSv1.3" else "handshake failure"
    with pytest.raises(SSL.Error, match=alert):
        peer.handshake(lambda tls: tls.seal(early))
        peer.recv()


def test_the_alert_to_a_refused_server_is_seen_by_it(tunnels: Tunnels, version: str) -> None:
    mark = tunnels.daemon.log.mark()
    with pytest.raises(SSL.Error, match="unknown ca"):
        tunnels.open("client", version, "strict")
    tunnels.daemon.await_log(r"LOG3\[\S+\]: SSL_connect: .*certificate verify failed", since=mark)
