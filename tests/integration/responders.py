"""OCSP responders on loopback: `openssl ocsp`, and one in Python that answers whatever a test wants."""

from __future__ import annotations

import datetime
import re
import socket
import subprocess
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID

from .answering import AnsweringServer
from .certificates import Authority, Leaf
from .harness import PATIENCE, LogLines, require
from .peers import PlainPeer, dial, read_all

FOR_OCSP = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.OCSP_SIGNING])
MINUTE = datetime.timedelta(minutes=1)

GOOD = ocsp.OCSPCertStatus.GOOD
REVOKED = ocsp.OCSPCertStatus.REVOKED
UNKNOWN = ocsp.OCSPCertStatus.UNKNOWN


def access(*urls: str) -> x509.AuthorityInformationAccess:
    """The extension by which a certificate names its responders."""
    return x509.AuthorityInformationAccess(
        [
            x509.AccessDescription(AuthorityInformationAccessOID.OCSP, x509.UniformResourceIdentifier(url))
            for url in urls
        ]
    )


def ok(body: bytes) -> bytes:
    """A body as an HTTP response."""
    head = (
        f"HTTP/1.1 200 OK\r\nContent-Type: application/ocsp-response\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def answer(
    leaf: Leaf,
    issuer: Authority,
    status: ocsp.OCSPCertStatus = GOOD,
    *,
    signer: Leaf | Authority | None = None,
    starts: datetime.timedelta = -MINUTE,
    ends: datetime.timedelta | None = 60 * MINUTE,
) -> bytes:
    """An answer by `signer` (who is not embedded), times being relative to now."""
    now = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
    signer = signer or issuer
    revoked = status is REVOKED
    builder = (
        ocsp.OCSPResponseBuilder()
        .add_response(
            leaf.certificate,
            issuer.certificate,
            hashes.SHA1(),
            status,
            now + starts,
            now + ends if ends is not None else None,
            now - MINUTE if revoked else None,
            x509.ReasonFlags.key_compromise if revoked else None,
        )
        .responder_id(ocsp.OCSPResponderEncoding.NAME, signer.certificate)
    )
    return builder.sign(signer.private_key, hashes.SHA256()).public_bytes(Encoding.DER)


def _total(data: bytes) -> int | None:
    """How long a request is, head and body; None before that is known."""
    head, end, _ = data.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
    return len(head) + 4 + int(length[1]) if end and length else None


class Responder(AnsweringServer):
    """A responder that sends what `reply` gives for a request; while `held`, it answers nobody.

    `requests` has every request with its head.
    """

    def __init__(self, reply: Callable[[bytes], bytes] = lambda _: b"") -> None:
        self.reply = reply
        self.requests: list[bytes] = []
        self._going_on = threading.Event()
        self._going_on.set()
        super().__init__(self._respond)
        self.url = f"http://127.0.0.1:{self.port}/ocsp"

    def hold(self) -> None:
        """Take requests and answer none, until `release`."""
        self._going_on.clear()

    def release(self) -> None:
        """Answer those who wait, and those who come."""
        self._going_on.set()

    def _respond(self, sock: socket.socket) -> None:
        sock.settimeout(PATIENCE)
        data = b""
        while (total := _total(data)) is None or len(data) < total:
            piece = sock.recv(65536)
            if not piece:
                return
            data += piece
        self.requests.append(data)
        self._going_on.wait(PATIENCE)
        sock.sendall(self.reply(data))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()
        super().__exit__(kind, error, trace)


class OpensslResponder:
    """`openssl ocsp` as responder of an authority, by a delegate.

    It reads its index once and chooses its port, so leaves that name it name a `Responder` in front of it,
    whose `reply` is `forward`.
    """

    def __init__(
        self, folder: Path, authority: Authority, good: Iterable[Leaf], revoked: Iterable[Leaf]
    ) -> None:
        binary = require("openssl")
        index = folder / "index.txt"
        index.write_text(
            "".join([_line("V", leaf) for leaf in good] + [_line("R", leaf) for leaf in revoked])
        )
        delegate = authority.leaf("responder", extensions=[FOR_OCSP])
        signer: list[str | Path] = ["-rsigner", delegate.cert, "-rkey", delegate.key]
        self._process = subprocess.Popen(
            [binary, "ocsp", "-port", "0", "-nmin", "30", "-index", index, "-CA", authority.cert, *signer],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._process.stdout is not None
        self._output = LogLines(self._process.stdout)

    def forward(self, request: bytes) -> bytes:
        """What it answers to a request."""
        with dial(self._port) as sock:
            sock.sendall(request)
            return read_all(PlainPeer(sock))

    def __enter__(self) -> OpensslResponder:
        try:
            self._port = int(self._output.wait(r"ACCEPT .*:([0-9]+)").group(1))
        except BaseException:
            self._process.kill()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.wait(PATIENCE)
        self._output.wait_end()


def _line(kind: str, leaf: Leaf) -> str:
    """One line of an index (the `Database` of openssl-ca(1))."""
    certificate = leaf.certificate
    expiry = f"{certificate.not_valid_after_utc:%y%m%d%H%M%SZ}"
    revoked = "260101000000Z,keyCompromise" if kind == "R" else ""
    digits = f"{certificate.serial_number:X}"
    serial = digits if len(digits) % 2 == 0 else f"0{digits}"
    return f"{kind}\t{expiry}\t{revoked}\t{serial}\tunknown\t/CN={leaf.name}\n"
