"""`culvert trace` between real peers, in both roles, on TLS 1.2 and 1.3, and its capture in tshark."""

from __future__ import annotations

import re
import stat
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from .certificates import Certificates
from .harness import PATIENCE, Culvert, LogLines, require
from .openssl import FLAGS, PAGE, s_client, s_server
from .peers import Listener, PlainPeer, background, dial, read_all
from .tracing import Trace, tshark

VERSIONS = ("TLSv1.2", "TLSv1.3")


@dataclass(frozen=True)
class Ran:
    """One session that was traced, once its trace has ended."""

    version: str
    text: str
    said: str
    capture: Path
    page: str


def fetch(port: int) -> str:
    """A page by way of a plain port."""
    with dial(port) as sock:
        sock.sendall(PAGE)
        return read_all(PlainPeer(sock)).decode()


@pytest.fixture(scope="module", params=VERSIONS)
def to_server(
    request: pytest.FixtureRequest, certificates: Certificates, tmp_path_factory: pytest.TempPathFactory
) -> Ran:
    """A plain client whose page comes from `openssl s_server`, by a trace that is the TLS client."""
    leaf, capture = certificates.server, tmp_path_factory.mktemp("trace") / "to-server.pcapng"
    capture.write_text("for everybody")
    capture.chmod(0o644)
    flag = FLAGS[request.param]
    with (
        s_server("-cert", leaf.cert, "-key", leaf.key, flag) as server,
        Trace(server.port, "--tls", "--data", "--pcap", capture) as trace,
    ):
        page = fetch(trace.port)
        trace.shown.wait(r"^1 +\d\S+ closed$")
    return Ran(request.param, trace.text, "\n".join(trace.said.lines), capture, page)


def test_the_page_comes_through(to_server: Ran) -> None:
    assert to_server.page.startswith("HTTP/1.0 200 ok")


def test_handshake_messages_are_shown_by_name(to_server: Ran) -> None:
    shown = re.findall(r"(?m)^    (\w+), \d+ bytes$", to_server.text)
    expected = {"ClientHello", "ServerHello", "Certificate", "Finished", "NewSessionTicket"}
    expected |= (
        {"EncryptedExtensions", "CertificateVerify"}
        if to_server.version == "TLSv1.3"
        else {"ServerKeyExchange", "ServerHelloDone", "ClientKeyExchange"}
    )
    assert set(shown) - {"HelloRetryRequest"} == expected


def test_the_certificate_is_shown_by_its_subject(to_server: Ran) -> None:
    assert re.search(r"certificates: C=CH, O=Test, CN=", to_server.text)


def test_no_message_is_malformed(to_server: Ran) -> None:
    assert "malformed" not in to_server.text


def test_plain_text_is_shown_in_both_directions(to_server: Ran) -> None:
    assert re.search(r"C>S TLSv1\.2 application_data, \d+ bytes\n    0000  47 45 54 20 2f", to_server.text)
    assert re.search(
        r"S>C TLSv1\.2 application_data, \d+ bytes\n    0000  48 54 54 50 .* HTTP/1.0 200 ok", to_server.text
    )


def test_records_are_numbered_without_a_gap(to_server: Ran) -> None:
    numbers = re.findall(r"(?m)^1 (\d+) +\d+\.\d{6} \(\d+\.\d{6}\) [CS]>[CS] ", to_server.text)
    assert numbers == [str(number) for number in range(1, len(numbers) + 1)]


def test_the_capture_is_its_owners_alone_and_the_user_is_warned(to_server: Ran) -> None:
    assert stat.S_IMODE(to_server.capture.stat().st_mode) == 0o600
    assert re.search(rf"\[:\] {to_server.capture} holds the secrets", to_server.said)


def test_tshark_decrypts_the_capture(to_server: Ran) -> None:
    fields = ("-T", "fields", "-e", "http.request.method", "-e", "http.response.code")
    assert "".join(tshark(to_server.capture, "-Y", "http.request", *fields)).strip() == "GET"
    assert "GET / HTTP/1.0" in "\n".join(tshark(to_server.capture, "-q", "-z", "follow,tls,ascii,0"))


def test_tshark_finds_the_encrypted_messages_of_the_handshake(to_server: Ran) -> None:
    fields = ("-Y", "tls.handshake.type == 20", "-T", "fields", "-e", "tls.handshake.type")
    types = ",".join(tshark(to_server.capture, *fields)).split(",")
    assert types.count("20") == 2  # both Finished, which nobody can read from outside


def test_tshark_finds_nothing_wrong_with_the_tcp(to_server: Ran) -> None:
    wrong = "tcp.analysis.flags || tcp.checksum.status == 0 || ip.checksum.status == 0 || _ws.malformed"
    assert tshark(to_server.capture, "-Y", wrong) == []


class Typed:
    """`openssl s_client` that is typed into, line by line."""

    def __init__(self, port: int, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [require("openssl"), "s_client", "-connect", f"127.0.0.1:{port}", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        assert self._process.stdout is not None
        self.log = LogLines(self._process.stdout)

    def type(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def close(self) -> None:
        self._process.kill()
        self._process.wait(PATIENCE)
        assert self._process.stdin is not None
        self._process.stdin.close()
        self.log.wait_end()


def test_a_key_update_is_shown_and_decryption_goes_on(certificates: Certificates, tmp_path: Path) -> None:
    leaf, capture, target = certificates.server, tmp_path / "capture", Listener()
    with Trace(target.port, "--cert", leaf.chain, "--key", leaf.key, "--data", "--pcap", capture) as trace:
        client = Typed(trace.port, "-tls1_3")
        plain = PlainPeer(target.accept())
        try:
            client.type("before")
            trace.shown.wait("0000 .* before")
            client.type("K")
            trace.shown.wait("request_update: update_requested")
            client.type("after")
            trace.shown.wait("0000 .* after")
            plain.send(b"answer\n")
            client.log.wait("answer")
        finally:
            client.close()
            plain.close()
            target.close()
    assert "update_not_requested" in trace.text  # the answer to it
    followed = "\n".join(tshark(capture, "-q", "-z", "follow,tls,ascii,0"))
    assert [word in followed for word in ("before", "after", "answer")] == [True] * 3


def test_json_is_one_object_a_line(certificates: Certificates) -> None:
    leaf, target = certificates.server, Listener()
    with Trace(target.port, "--cert", leaf.chain, "--key", leaf.key, "--json") as trace:
        visit = background(s_client, trace.port)
        plain = PlainPeer(target.accept())
        plain.send(b"welcome")
        plain.close()
        assert visit.result(PATIENCE).received == "welcome"
        trace.shown.wait('"closed"')
    target.close()
    opened, *records, closed = trace.objects()
    assert (opened["event"], closed["event"]) == ("opened", "closed")
    assert opened["server"] == ["127.0.0.1", trace.port]
    assert {record["event"] for record in records} == {"record"}
    assert records[0]["messages"][0]["name"] == "ClientHello"
    (data,) = [one for one in records if one["inner"] is None and one["type"] == "application_data"]
    assert (data["direction"], data["size"], data["data"]) == ("S>C", 7, "")
    alerts = [one["alert"] for one in records if one["alert"] is not None]
    assert alerts[0] == {"level": "warning", "description": "close_notify"}


def test_a_refused_certificate_is_an_alert(certificates: Certificates) -> None:
    leaf = certificates.server
    with (
        s_server("-cert", leaf.cert, "-key", leaf.key) as server,
        Trace(
            server.port,
            *("--tls", "--server-option", "verifyChain=yes", "--server-option"),
            f"CAfile={certificates.other_ca.cert}",
        ) as trace,
    ):
        assert fetch_nothing(trace.port)
        trace.shown.wait("^    fatal: unknown_ca$")
        trace.said.wait("certificate verify failed")


def fetch_nothing(port: int) -> bool:
    """Whether a plain port gives nothing, by an end or a reset."""
    try:
        return fetch(port) == ""
    except ConnectionResetError:
        return True


@pytest.fixture
def between(certificates: Certificates, culvert: Callable[..., Culvert]) -> Iterator[tuple[Trace, Culvert]]:
    """A Culvert client and a Culvert server with a trace between them that ends TLS towards both."""
    leaf = certificates.server
    server = culvert(
        f"[s]\naccept = 127.0.0.1:0\nexec = /bin/echo\nexecArgs = echo welcome\n"
        f"cert = {leaf.chain}\nkey = {leaf.key}\n"
    )
    with Trace(server.port("s"), "--cert", leaf.chain, "--key", leaf.key, "--tls", "--data") as trace:
        client = culvert(f"[c]\nclient = yes\naccept = 127.0.0.1:0\nconnect = 127.0.0.1:{trace.port}\n")
        yield trace, client


def test_between_two_services_both_sides_are_shown(between: tuple[Trace, Culvert]) -> None:
    trace, client = between
    with dial(client.port("c")) as sock:
        assert read_all(PlainPeer(sock)) == b"welcome\n"
    trace.shown.wait("^1 .*closed$")
    trace.shown.wait("^2 .*closed$")
    assert [match[1] for match in trace.shown.find(r"^Connection \d: .* service \[(\w+)\]")] == [
        "client",
        "server",
    ]
    assert len(trace.shown.find("0000 .* welcome")) == 2


def test_passively_only_what_is_in_clear_is_shown(certificates: Certificates, version: str) -> None:
    leaf = certificates.server
    with (
        s_server("-cert", leaf.cert, "-key", leaf.key) as server,
        Trace(server.port, "--data") as trace,
    ):
        visit = s_client(trace.port, "-servername", "a.test", version=version, said=PAGE.decode())
        assert visit.received.startswith("HTTP/1.0 200 ok")
        trace.shown.wait("^1 .*closed$")
    assert "server_name: a.test" in trace.text
    shown = re.findall(r"(?m)^    (\w+), \d+ bytes$", trace.text)
    assert ("Certificate" in shown) == (version == "TLSv1.2")
    assert "EncryptedExtensions" not in shown
    assert re.search(r"application_data, \d+ bytes, encrypted$", trace.text, re.MULTILINE)
    assert "    0000 " not in trace.text
