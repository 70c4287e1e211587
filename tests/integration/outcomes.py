"""The engine of the outcome tables: rows are data, and this plays them against real peers.

A row says what the Culvert under test is configured with, what its peer shows, and what must come of it. One
`Table` serves all rows of a theme: one Culvert with a service for each row, TLS version and kind of peer; one
`openssl s_server` for each certificate that a server shows; one stunnel4 as all TLS servers and one as all
TLS clients. `openssl s_client` runs once for each visit.

How the rows of the tables are chosen. A verdict is made of the chain, the leaf's pin, its subject, CRL,
OCSP, whether a certificate is required, whether failures are redirected, and whether the session is
resumed. Most of the full product says nothing new: a peer that fails one check fails, whatever the others
say. So each table has, for its theme: every state that the input can be in, alone; each pair of checks with
one satisfied and the other not, in both orders, for that is where one check's success could stand for the
other's; each way by which a failure is made harmless (requireCert = no, OCSPrequire = no, redirect) against
every kind of failure that it must not excuse; and the passing row beside each refusing one, so that nothing
passes the table by refusing all. Every row is played in TLS 1.2 and 1.3; rows that are `resumed` are played
twice with one session, and both verdicts count.
"""

from __future__ import annotations

import contextlib
import enum
import itertools
import re
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

from .answering import AnsweringServer
from .certificates import Leaf
from .greeters import greeting
from .harness import Culvert, eventually
from .openssl import FLAGS, PAGE, Background, s_client, s_server, shown
from .peers import dial
from .pki import Pki
from .stunnel import Stunnel


class Verdict(enum.Enum):
    """What became of a connection."""

    PASSES = "passes"
    REFUSED = "refused"
    REDIRECTED = "redirected"


PASSES, REFUSED, REDIRECTED = Verdict

BOTH = ("openssl", "stunnel")
OPENSSL = ("openssl",)

WELCOME, ELSEWHERE = b"welcome\n", b"elsewhere\n"

BAD_CERT = r"Rejected by CERT at depth=\d"


@dataclass(frozen=True)
class Row:
    """One outcome. `options` are the Culvert's, with `{NAME}` for the PKI's files; `role` is the Culvert's.

    `shows` is the kind of certificate that the peer shows, or "none"; `staple` names the file of the OCSP
    answer that an openssl server sends along; `log` is a pattern of a line that this connection must log.
    """

    name: str
    role: str
    options: str
    shows: str
    verdict: Verdict
    log: str = ""
    resumed: bool = False
    staple: str | None = None
    peers: tuple[str, ...] = BOTH


def servers(*rows: tuple[Any, ...], **common: Any) -> list[Row]:
    """Rows in which Culvert is the TLS server: name, options, what the client shows, verdict, log pattern."""
    return [Row(name, "server", options, *rest, **common) for name, options, *rest in rows]


def clients(*rows: tuple[Any, ...], **common: Any) -> list[Row]:
    """Rows in which Culvert is the TLS client: name, options, what the server shows, verdict, log pattern."""
    return [Row(name, "client", options, *rest, **common) for name, options, *rest in rows]


def played(rows: Sequence[Row]) -> pytest.MarkDecorator:
    """Parametrizes a test by row, TLS version and peer."""
    cases = [(row, version, peer) for row in rows for version in FLAGS for peer in row.peers]
    names = [f"{row.role}-{row.name}-{version}-{peer}" for row, version, peer in cases]
    assert len(set(names)) == len(names), "two rows of one name"
    return pytest.mark.parametrize(("row", "version", "peer"), cases, ids=names)


class Sayer(AnsweringServer):
    """A plain backend that says `text` to whoever comes; `heard` is what it got."""

    def __init__(self, text: bytes) -> None:
        super().__init__(self._say)
        self.text = text
        self.heard: list[bytes] = []

    def everything(self) -> bytes:
        """All that came so far."""
        return b"".join(self.heard)

    def _say(self, sock: socket.socket) -> None:
        sock.sendall(self.text)
        sock.shutdown(socket.SHUT_WR)
        while data := sock.recv(4096):
            self.heard.append(data)


class Table:
    """Everything that plays these rows: the Culvert under test and its peers. Use it as a context manager.

    `more` are further names that options may use.
    """

    def __init__(
        self, folder: Path, pki: Pki, rows: Sequence[Row], more: Mapping[str, str | Path] | None = None
    ) -> None:
        self._folder = folder
        self._pki = pki
        self._rows = rows
        self._more = dict(more or {})
        self._stack = ExitStack()
        self._openssl: dict[tuple[str, str | None], Background] = {}

    def __enter__(self) -> Table:
        with ExitStack() as stack:
            self._welcome = stack.enter_context(Sayer(WELCOME))
            self._more["elsewhere"] = f"127.0.0.1:{stack.enter_context(Sayer(ELSEWHERE)).port}"
            self._start_servers(stack)
            self.daemon = stack.enter_context(Culvert(self._made("culvert"), "".join(self._services())))
            self._start_clients(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def check(self, row: Row, version: str, peer: str) -> None:
        """Plays one row and holds its verdict and its line in the log."""
        service = _service(row, version, peer)
        mark = self.daemon.log.mark()
        visits = 2 if row.resumed else 1
        found = [self._visit(row, version, peer) for _ in range(visits)]
        log = "\n".join(self.daemon.log.lines[mark:])
        assert found == [row.verdict] * visits, log
        accepted = rf"LOG5\[(\S+)\]: Service \[{re.escape(service)}\] accepted connection"
        eventually(lambda: len(self.daemon.log.find(accepted, mark)) == visits, "the connections")
        connections = self.daemon.log.find(accepted, mark)
        for match in connections if row.log else ():
            self.daemon.await_log(rf"LOG\d\[{re.escape(match[1])}\]: .*(?:{row.log})", since=mark)
        if row.resumed and row.verdict is PASSES:
            last = re.escape(connections[-1][1])
            self.daemon.await_log(rf"LOG6\[{last}\]: TLS \w+: previous session reused", since=mark)

    def _visit(self, row: Row, version: str, peer: str) -> Verdict:
        port = self.daemon.port(_service(row, version, peer))
        if row.role == "client":
            return self._ask(port) if peer == "openssl" else _verdict(greeting(port))
        if peer == "stunnel":
            return _verdict(greeting(self._stunnel_clients.ports[_service(row, version, peer)]))
        session = self._folder / f"{_service(row, version, peer)}.session"
        arguments = [*shown(self._leaf(row)), "-sess_out", str(session)]
        if session.exists():
            arguments += ["-sess_in", str(session)]
        visit = s_client(port, *arguments, version=version)
        return _verdict(visit.received.encode())

    def _ask(self, port: int) -> Verdict:
        """Whether an HTTP request reaches the s_server behind this service of Culvert's."""
        received = b""
        with contextlib.suppress(ConnectionError), dial(port) as sock:
            sock.sendall(PAGE)
            while data := sock.recv(65536):
                received += data
        assert not received or received.startswith(b"HTTP/1.0 200 ok"), received
        return PASSES if received else REFUSED

    def _leaf(self, row: Row) -> Leaf | None:
        return None if row.shows == "none" else self._pki.kinds[row.shows]

    def _made(self, name: str) -> Path:
        folder = self._folder / name
        folder.mkdir()
        return folder

    def _cases(self, role: str, peer: str) -> Iterator[tuple[Row, str]]:
        rows = [row for row in self._rows if row.role == role and peer in row.peers]
        return itertools.product(rows, FLAGS)

    def _start_servers(self, stack: ExitStack) -> None:
        for row, _ in self._cases("client", "openssl"):
            key = (row.shows, row.staple)
            if key in self._openssl:
                continue
            staple = ["-status_file", self._pki.files[row.staple]] if row.staple else []
            self._openssl[key] = stack.enter_context(s_server(*shown(self._leaf(row)), *staple))
        text = ""
        for kind in {row.shows for row, _ in self._cases("client", "stunnel")}:
            leaf = self._pki.kinds[kind]
            text += f"[{kind}]\naccept = 127.0.0.1:0\nconnect = 127.0.0.1:{self._welcome.port}\n"
            text += f"cert = {leaf.chain}\nkey = {leaf.key}\n"
        if text:
            self._stunnel_servers = stack.enter_context(Stunnel(self._made("stunnel-servers"), text))

    def _start_clients(self, stack: ExitStack) -> None:
        text = "client = yes\n"
        for row, version in self._cases("server", "stunnel"):
            service = _service(row, version, "stunnel")
            text += f"[{service}]\naccept = 127.0.0.1:0\nconnect = 127.0.0.1:{self.daemon.port(service)}\n"
            text += f"sslVersion = {version}\n"
            if leaf := self._leaf(row):
                text += f"cert = {leaf.chain}\nkey = {leaf.key}\n"
        if "[" in text:
            self._stunnel_clients = stack.enter_context(Stunnel(self._made("stunnel-clients"), text))

    def _services(self) -> Iterator[str]:
        """The sections of the Culvert under test."""
        server = self._pki.kinds["good"]
        for row, version in itertools.product(self._rows, FLAGS):
            for peer in row.peers:
                yield f"[{_service(row, version, peer)}]\naccept = 127.0.0.1:0\nsslVersion = {version}\n"
                yield self._pki.fill(row.options, self._more) + "\n"
                if row.role == "server":
                    yield f"connect = 127.0.0.1:{self._welcome.port}\n"
                    yield f"cert = {server.cert}\nkey = {server.key}\n"
                    continue
                openssl = peer == "openssl"
                port = (
                    self._openssl[row.shows, row.staple].port
                    if openssl
                    else self._stunnel_servers.ports[row.shows]
                )
                yield f"client = yes\nconnect = 127.0.0.1:{port}\n"


def _service(row: Row, version: str, peer: str) -> str:
    return f"{row.role}-{row.name}-{version}-{peer}"


def _verdict(received: bytes) -> Verdict:
    """The backend that answered, as a verdict."""
    assert received in (b"", WELCOME, ELSEWHERE), received
    if not received:
        return REFUSED
    return PASSES if received == WELCOME else REDIRECTED
