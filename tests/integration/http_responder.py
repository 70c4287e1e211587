"""An HTTP server that answers OCSP requests as no honest responder would: canned, false, late or endless."""

from __future__ import annotations

import http.server
import threading
from types import TracebackType

ENDLESS = 64 << 20
"""Bytes after which an endless answer ends all the same."""

WAIT = 20.0
"""Seconds for which `slow` says nothing, unless its server is stopped before."""


class _Handler(http.server.BaseHTTPRequestHandler):
    server: _Server
    timeout = WAIT

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        name = self.path.split("/")[1]
        self.server.asked.append(name)
        match name:
            case "slow":
                self.server.stopping.wait(WAIT)
            case "error":
                self.send_error(500)
            case "loop":
                self._moved("/loop")
            case "aside":
                self._moved("/good")
            case "garbage":
                self._send(b"this is no OCSP answer")
            case "empty":
                self._send(b"")
            case "endless":
                self._endless()
            case _:
                self._send(self.server.answers[name])

    def _moved(self, where: str) -> None:
        self.send_response(302)
        self.send_header("Location", f"http://127.0.0.1:{self.server.server_address[1]}{where}")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _send(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/ocsp-response")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _endless(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/ocsp-response")
        self.end_headers()
        try:
            for _ in range(ENDLESS >> 16):
                self.wfile.write(bytes(1 << 16))
        except OSError:
            self.close_connection = True

    def log_message(self, format: str, *arguments: object) -> None:
        """The test's output is no place for it."""


class _Server(http.server.ThreadingHTTPServer):
    request_queue_size = 64
    block_on_close = False

    def __init__(self, answers: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers = answers
        self.asked: list[str] = []
        self.stopping = threading.Event()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hung up is what some tests are about."""


class OddResponder:
    """Answers `/NAME` with `answers[NAME]`.

    /slow, /error, /loop, /garbage, /empty and /endless misbehave; /aside leads to /good.
    `asked` are the names of all requests so far; `answers` may be changed meanwhile.
    """

    def __init__(self, answers: dict[str, bytes]) -> None:
        self._server = _Server(answers)
        self.answers = answers
        self.asked = self._server.asked
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def url(self, name: str) -> str:
        """The URL to configure."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/{name}"

    def __enter__(self) -> OddResponder:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.stopping.set()
        self._server.shutdown()
        self._server.server_close()
