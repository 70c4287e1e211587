"""Frequent failures, provoked: the log has the lines that docs/troubleshooting.md quotes for them."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from page_lines import as_pattern, openssl_words

from .certificates import Certificates
from .daemon import needs_root
from .echo import knock
from .harness import PATIENCE, Culvert, require
from .peers import Peers
from .pki import Pki

SERVER_FAILED = ("SSL_accept: error:CODE:SSL routines::REASON", "TLS handshake with ADDRESS failed: REASON")
CLIENT_FAILED = (
    "SSL_connect: error:CODE:SSL routines::REASON",
    "TLS handshake with server ADDRESS failed: REASON",
)
REFUSED = "Rejected by CERT at depth=N: SUBJECT"


@dataclass(frozen=True)
class Failure:
    """What somebody does who fails at a service, the page's lines on it, and OpenSSL's words in them."""

    service: str
    command: str
    lines: tuple[str, ...]
    words: str = ""


AT_THE_SERVER = {
    "plain HTTP": Failure("open", "curl -s http://127.0.0.1:{port}/", SERVER_FAILED, "http request"),
    "an unknown CA": Failure(
        "open", "curl -s https://localhost:{port}/", SERVER_FAILED, "tlsv1 alert unknown ca"
    ),
    "an expired server": Failure(
        "expired",
        "curl -s --cacert {root} https://localhost:{port}/",
        SERVER_FAILED,
        "tls alert certificate expired",
    ),
    "no certificate": Failure(
        "mutual",
        "curl -s --cacert {root} https://localhost:{port}/",
        SERVER_FAILED,
        "peer did not return a certificate",
    ),
    "an old client": Failure(
        "open",
        "openssl s_client -connect 127.0.0.1:{port} -tls1_1 -cipher DEFAULT@SECLEVEL=0",
        SERVER_FAILED,
        "unsupported protocol",
    ),
    "no cipher": Failure(
        "open",
        "openssl s_client -connect 127.0.0.1:{port} -tls1_2 -cipher AES128-SHA",
        SERVER_FAILED,
        "no shared cipher",
    ),
    "no group": Failure(
        "open",
        "openssl s_client -connect 127.0.0.1:{port} -tls1_3 -groups ffdhe2048",
        SERVER_FAILED,
        "no suitable key share",
    ),
    "a foreign certificate": Failure(
        "mutual",
        "openssl s_client -connect 127.0.0.1:{port} -cert {stranger}.crt -key {stranger}.key",
        ("CERT: Verification error: unable to get local issuer certificate", REFUSED, *SERVER_FAILED),
        "certificate verify failed",
    ),
    "a server as client": Failure(
        "mutual",
        "openssl s_client -connect 127.0.0.1:{port} -cert {serveronly}.crt -key {serveronly}.key",
        ("CERT: Verification error: unsuitable certificate purpose", REFUSED),
        "certificate verify failed",
    ),
    "another name": Failure(
        "named",
        "openssl s_client -connect 127.0.0.1:{port} -cert {good}.crt -key {good}.key",
        ("CERT: No checkHost, checkIP or checkEmail matches the certificate", REFUSED),
        "certificate verify failed",
    ),
    "no rule": Failure(
        "allowed",
        "openssl s_client -connect 127.0.0.1:{port} -cert {good}.crt -key {good}.key",
        ("CERT: No allow rule matches the peer's identities: TEXT", REFUSED),
        "certificate verify failed",
    ),
    "a silent client": Failure(
        "hasty", "socat -u -T 2 TCP:127.0.0.1:{port} STDOUT", ("SSL_accept: TIMEOUTbusy (N s) exceeded",)
    ),
    "a denied address": Failure(
        "denied",
        "curl -s https://localhost:{port}/",
        ("Service [NAME] refused connection from ADDRESS: REASON", "denyFrom names its address"),
    ),
    "a dead target": Failure(
        "dead",
        "curl -s -k https://localhost:{port}/",
        ("s_connect: connect ADDRESS: Connection refused (111)", "No more addresses to connect"),
    ),
    "a missing program": Failure(
        "program", "curl -s -k https://localhost:{port}/", ("Cannot execute FILE: REASON",)
    ),
}
AT_THE_CLIENT = {
    "an expired server": Failure(
        "expired",
        "",
        ("CERT: Verification error: certificate has expired", REFUSED),
        "certificate verify failed",
    ),
    "a server of tomorrow": Failure(
        "future",
        "",
        ("CERT: Verification error: certificate is not yet valid or the system clock is incorrect",),
        "certificate verify failed",
    ),
    "the wrong CA": Failure(
        "foreign",
        "",
        ("CERT: Verification error: unable to get local issuer certificate", *CLIENT_FAILED),
        "certificate verify failed",
    ),
    "the wrong name": Failure(
        "misnamed",
        "",
        ("CERT: No checkHost, checkIP or checkEmail matches the certificate",),
        "certificate verify failed",
    ),
    "a server that wants a certificate": Failure(
        "bare", "", ("SSL_read: error:CODE:SSL routines::REASON",), "tlsv13 alert certificate required"
    ),
    "a target without a name": Failure(
        "nameless", "", ("Error resolving ADDRESS: REASON", "No address to connect")
    ),
    "a target without TLS": Failure("plain", "", CLIENT_FAILED, "wrong version number"),
}


def section(name: str, *lines: str) -> str:
    return "\n".join((f"[{name}]", "accept = 127.0.0.1:0", *lines, ""))


def presenting(pki: Pki, kind: str) -> tuple[str, str]:
    leaf = pki.kinds[kind]
    return f"cert = {leaf.chain}", f"key = {leaf.key}"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, pki: Pki) -> Iterator[Culvert]:
    """A server with a service for each failure."""
    asks = (f"CAfile = {pki.files['root']}", "verifyChain = yes")
    good, cat = presenting(pki, "good"), "exec = /bin/cat"
    services = (
        section("open", *good, cat),
        section("expired", *presenting(pki, "expired"), cat),
        section("future", *presenting(pki, "future"), cat),
        section("mutual", *good, cat, *asks),
        section("named", *good, cat, *asks, "checkHost = elsewhere.example.com"),
        section("allowed", *good, cat, *asks, "allowDNS = elsewhere.example.com"),
        section("hasty", *good, cat, "TIMEOUTbusy = 1"),
        section("denied", *good, cat, "denyFrom = 127.0.0.1"),
        section("dead", *good, "connect = 127.0.0.1:1"),
        section("program", *good, "exec = /nonexistent/program"),
    )
    with Culvert(tmp_path_factory.mktemp("server"), "".join(services)) as daemon:
        yield daemon


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory, pki: Pki, server: Culvert) -> Iterator[Culvert]:
    """A client with a service for each failure."""
    with socket.create_server(("127.0.0.1", 0)) as plain:
        services = (
            section("expired", f"connect = 127.0.0.1:{server.port('expired')}", "checkHost = localhost"),
            section("future", f"connect = 127.0.0.1:{server.port('future')}", "checkHost = localhost"),
            section(
                "foreign",
                f"connect = 127.0.0.1:{server.port('open')}",
                f"CAfile = {pki.files['other']}",
                "checkHost = localhost",
            ),
            section("misnamed", f"connect = 127.0.0.1:{server.port('open')}", "checkHost = elsewhere"),
            section("bare", f"connect = 127.0.0.1:{server.port('mutual')}", "checkHost = localhost"),
            section("nameless", "connect = nohost.invalid:443", "checkHost = localhost"),
            section("plain", f"connect = 127.0.0.1:{_talks(plain)}", "checkHost = localhost"),
        )
        options = f"client = yes\nCAfile = {pki.files['root']}\nverifyChain = yes\n"
        with Culvert(tmp_path_factory.mktemp("client"), "".join(services), options=options) as daemon:
            yield daemon


def _talks(listener: socket.socket) -> int:
    """The port of a server that greets in clear, once."""

    def greet() -> None:
        with contextlib.suppress(OSError), listener.accept()[0] as accepted:  # closed: nobody came
            accepted.sendall(b"220 mail.example.com ESMTP\r\n")
            accepted.recv(65536)

    listener.settimeout(PATIENCE)
    threading.Thread(target=greet, daemon=True).start()
    port: int = listener.getsockname()[1]
    return port


def expect(daemon: Culvert, failure: Failure, since: int) -> None:
    for line in failure.lines:
        daemon.await_log(as_pattern(line), since=since)
    if failure.words:
        assert failure.words in openssl_words()
        daemon.await_log(f"::{failure.words}$", since=since)


@pytest.mark.parametrize("name", AT_THE_SERVER)
def test_a_server_says_of_its_client(server: Culvert, pki: Pki, name: str) -> None:
    failure = AT_THE_SERVER[name]
    words = failure.command.format(
        port=server.port(failure.service),
        root=pki.files["root"],
        **{kind: leaf.cert.with_suffix("") for kind, leaf in pki.kinds.items()},
    )
    require(words.split(maxsplit=1)[0])
    mark = server.log.mark()
    subprocess.run(
        ["sh", "-c", words], stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE, check=False
    )
    expect(server, failure, mark)


@pytest.mark.parametrize("name", AT_THE_CLIENT)
def test_a_client_says_of_its_server(client: Culvert, name: str) -> None:
    failure = AT_THE_CLIENT[name]
    mark = client.log.mark()
    knock(client.port(failure.service))
    expect(client, failure, mark)


def start_refused(
    folder: Path, services: str, line: str, options: str = "", prefix: tuple[str, ...] = ()
) -> None:
    daemon = Culvert(folder, services, options=options, prefix=prefix)
    daemon.launch()
    assert daemon.wait() == 1
    assert daemon.log.find(as_pattern(line)), daemon.log.lines


@pytest.mark.parametrize(
    ("option", "line"),
    [
        ("pid = {folder}/missing/pid", "Cannot create the pid file FILE: REASON"),
        ("output = {folder}/missing/log", "Cannot open the log file FILE: REASON"),
        ("setuid = nosuchuser", "There is no user 'USER' on this system"),
        ("chroot = {folder}/missing", "The chroot directory FILE does not exist"),
        ("nosuchoption = 1", 'there is no option "NAME"'),
    ],
)
def test_a_start_says_of_its_options(
    tmp_path: Path, certificates: Certificates, option: str, line: str
) -> None:
    service = section("s", f"cert = {certificates.server.bundle}", "exec = /bin/cat")
    start_refused(tmp_path, service, line, options=option.format(folder=tmp_path) + "\n")


@pytest.mark.parametrize(
    ("cert", "key", "line"),
    [
        (
            "server.crt",
            "client.key",
            "The private key in FILE does not belong to the first certificate in FILE",
        ),
        ("missing.crt", "client.key", "Cannot read FILE: No such file or directory"),
        ("server.key", "server.key", "FILE is neither a PEM certificate nor a PKCS#12 file: REASON"),
        ("server.crt", "server.crt", "FILE holds no private key in PEM form"),
    ],
)
def test_a_start_says_of_its_files(
    tmp_path: Path, certificates: Certificates, cert: str, key: str, line: str
) -> None:
    folder = certificates.folder
    service = section("s", f"cert = {folder / cert}", f"key = {folder / key}", "exec = /bin/cat")
    start_refused(tmp_path, service, line)


def test_a_start_says_that_its_port_is_taken(tmp_path: Path, certificates: Certificates) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        service = (
            f"[s]\naccept = 127.0.0.1:{taken.getsockname()[1]}\nexec = /bin/cat\n"
            f"cert = {certificates.server.bundle}\n"
        )
        line = "Binding service [NAME] failed: ADDRESS: Address already in use (98)"
        start_refused(tmp_path, service, line)


def test_a_stale_pid_file_is_in_nobodys_way(tmp_path: Path, certificates: Certificates) -> None:
    file = tmp_path / "culvert.pid"
    file.write_text("999999\n")
    service = section("s", f"cert = {certificates.server.bundle}", "exec = /bin/cat")
    with Culvert(tmp_path, service, options=f"pid = {file}\n") as daemon:
        assert file.read_text() == f"{daemon.pid}\n"


def test_a_service_says_that_it_has_no_descriptors_left(
    tmp_path: Path, certificates: Certificates, peers: Peers
) -> None:
    require("prlimit")
    service = section("s", f"cert = {certificates.server.bundle}", "exec = /bin/cat")
    with Culvert(tmp_path, service, prefix=("prlimit", "--nofile=64:64")) as daemon:
        for _ in range(64):
            peers.dial(daemon.port("s"))
        line = "Service [NAME] accepts nothing for N s: Too many open files (24)"
        daemon.await_log(as_pattern(line))


@needs_root
def test_a_start_says_that_it_may_not_have_a_low_port(tmp_path: Path, certificates: Certificates) -> None:
    """As root without the capability, which needs no other user."""
    require("setpriv")
    if int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text()) < 1024:
        pytest.skip("this system lets everybody have low ports")
    service = f"[s]\naccept = 127.0.0.1:1023\ncert = {certificates.server.bundle}\nexec = /bin/cat\n"
    line = "Binding service [NAME] failed: ADDRESS: Permission denied (13)"
    start_refused(
        tmp_path, service, line, prefix=("setpriv", "--bounding-set=-net_bind_service", "--inh-caps=-all")
    )
