"""The openssl program as a peer: its TLS client, its TLS server, its OCSP responder."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from .certificates import Authority, Leaf
from .harness import PATIENCE, LogLines, require

FLAGS = {"TLSv1.2": "-tls1_2", "TLSv1.3": "-tls1_3"}


def shown(leaf: Leaf | None) -> list[str]:
    """The arguments with which a client or a server shows a certificate and its chain, as the file has it."""
    if leaf is None:
        return []
    return ["-cert", str(leaf.cert), "-key", str(leaf.key), "-cert_chain", str(leaf.chain)]


@dataclass(frozen=True)
class Visit:
    """What a run of `openssl s_client` ended with."""

    status: int
    received: str
    said: str

    @property
    def alert(self) -> str:
        """The alert that the server ended it with, in OpenSSL's words; nothing where none came."""
        return next(
            (line.split(":")[5] for line in self.said.splitlines() if ":SSL alert number" in line), ""
        )


def s_client(
    port: int,
    *arguments: str | Path,
    version: str | None = None,
    said: str | None = None,
    quiet: bool = True,
) -> Visit:
    """A TLS client that reads until the server ends the connection; `said` is sent first."""
    command = [require("openssl"), "s_client", "-connect", f"127.0.0.1:{port}"]
    command += ["-quiet" if quiet else "-ign_eof"]
    if version is not None:
        command.append(FLAGS[version])
    ran = subprocess.run(
        [*command, *map(str, arguments)],
        input=said or "",
        capture_output=True,
        text=True,
        errors="replace",
        timeout=PATIENCE,
        check=False,
    )
    return Visit(ran.returncode, ran.stdout, ran.stderr)


class Background:
    """A program of openssl's that listens; `port` is where. Its lines are in `log`."""

    def __init__(self, *arguments: str | Path) -> None:
        self._process = subprocess.Popen(
            [require("openssl"), *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        assert self._process.stdout is not None
        self.log = LogLines(self._process.stdout)
        self._port = 0

    @property
    def port(self) -> int:
        """The port that the kernel chose; waits until it is known."""
        if not self._port:
            self._port = int(self.log.wait(r"ACCEPT \S+:(\d+)")[1])
        return self._port

    def stop(self) -> None:
        """Ends the program."""
        self._process.kill()
        self._process.wait(PATIENCE)
        assert self._process.stdin is not None
        self._process.stdin.close()
        self.log.wait_end()

    def __enter__(self) -> Background:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


PAGE = b"GET / HTTP/1.0\r\n\r\n"
"""What `s_server` answers with a page that begins with `HTTP/1.0 200 ok`."""


def s_server(*arguments: str | Path) -> Background:
    """A TLS server that answers PAGE."""
    return Background("s_server", "-accept", "127.0.0.1:0", "-www", *arguments)


def write_index(path: Path, good: Sequence[int] = (), revoked: Sequence[int] = ()) -> Path:
    """The list of what an authority has issued, by serial number, for `openssl ocsp`."""
    lines = []
    for state, since, serials in (("V", "", good), ("R", "260101000000Z", revoked)):
        for number in serials:
            serial = f"{number:X}"
            serial = serial.zfill(len(serial) + len(serial) % 2)
            lines.append(f"{state}\t490101000000Z\t{since}\t{serial}\tunknown\t/CN={serial}\n")
    path.write_text("".join(lines))
    return path


def ocsp_responder(
    authority: Authority, index: Path, signer: Leaf | Authority, *arguments: str | Path
) -> Background:
    """An OCSP responder for what `authority` issued; `arguments` are more of `openssl ocsp`'s."""
    key = signer.key if isinstance(signer, Leaf) else signer.key_file()
    return Background(
        "ocsp",
        *("-port", "0", "-index", index, "-CA", authority.cert, "-rsigner", signer.cert, "-rkey", key),
        *("-nmin", "5", "-ignore_err", *arguments),
    )
