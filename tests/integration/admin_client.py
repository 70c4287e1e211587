"""The admin endpoint as its clients meet it: curl, and bytes that no client would send."""

from __future__ import annotations

import json
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from .harness import PATIENCE, require

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


@dataclass(frozen=True)
class Answer:
    """What came back: `status` is 0 where nothing did."""

    status: int
    body: str

    @property
    def document(self) -> Any:
        """The body, which is JSON."""
        return json.loads(self.body)


class Admin:
    """Asks one endpoint: `at` is the path of its Unix socket, or its address."""

    def __init__(self, at: Path | tuple[str, int], token: str | None = None) -> None:
        self.at = at
        self._token = token

    def ask(self, path: str, *more: str) -> Answer:
        """One request by curl; `more` is options of curl's."""
        if isinstance(self.at, tuple):
            where = [f"http://{self.at[0]}:{self.at[1]}{path}"]
        else:
            where = ["--unix-socket", str(self.at), f"http://localhost{path}"]
        token = [] if self._token is None else ["-H", f"Authorization: Bearer {self._token}"]
        done = subprocess.run(
            [require("curl"), "-s", "-m", str(PATIENCE), "-w", "\n%{http_code}", *token, *more, *where],
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE + 5,
        )
        body, _, status = done.stdout.rpartition("\n")
        return Answer(int(status), body)

    def post(self, path: str, body: Any = None) -> Answer:
        """An action."""
        if body is None:
            return self.ask(path, "-X", "POST")
        return self.ask(path, "-H", "Content-Type: application/json", "-d", json.dumps(body))

    def metrics(self) -> Samples:
        """All samples, by name and labels, as Prometheus' own parser reads them."""
        answer = self.ask("/metrics")
        assert answer.status == 200, answer.body
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(answer.body)
            for sample in family.samples
        }

    def metric(self, name: str, **labels: str) -> float:
        """One sample; 0 where there is none."""
        return self.metrics().get((name, tuple(sorted(labels.items()))), 0.0)

    def send(self, data: bytes, *, half_close: bool = False) -> bytes:
        """Sends bytes as they are; all that comes back until the end of the connection."""
        if isinstance(self.at, tuple):
            sock = socket.create_connection(self.at, PATIENCE)
        else:
            sock = socket.socket(socket.AF_UNIX)
            sock.settimeout(PATIENCE)
            sock.connect(str(self.at))
        received = b""
        with sock:
            try:
                sock.sendall(data)
                if half_close:
                    sock.shutdown(socket.SHUT_WR)
                while piece := sock.recv(65536):
                    received += piece
            except ConnectionError:
                pass
        return received


def status_of(answer: bytes) -> int:
    """The status of the first response in these bytes; 0 where there is none."""
    words = answer.split(b" ", 2)
    return int(words[1]) if len(words) > 1 and words[0] == b"HTTP/1.1" else 0
