"""HTTP/1.1 for the admin endpoint, by h11: every connection, request and wait is bounded."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus

import h11

from culvert.admin.request import Refused, Request, Response, Streamed
from culvert.log import Channel

HEAD_LIMIT = 8192
"""Bytes of a request's head."""

BODY_LIMIT = 4096
"""Bytes of a request's body: the longest that means anything has a few dozen."""

_READ = 4096

_UNPROVEN = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.MISDIRECTED_REQUEST})
"""Refusals of those who have shown no right to be here: they are not to hold a connection, too."""
_ABSOLUTE = re.compile(r"(?i:http)://(?P<authority>[^/?#]+)/?(?P<path>.*)")
"""A target with its host, which then stands in the place of the header's (RFC 9112, 3.2.2)."""
_EXHAUSTED_PAUSE = 0.25
_HEADERS = (
    ("Cache-Control", "no-store"),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
)


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a client may take: connections at a time, requests of one connection and in a second of all
    together, and seconds for a request to come, for the next one to begin, and for an answer to be taken.
    """

    connections: int = 32
    requests: int = 1000
    rate: float = 100.0
    patience: float = 10.0
    idle: float = 60.0
    delivery: float = 30.0


BOUNDS = Bounds()

Handler = Callable[[Request], Awaitable[Response | Streamed]]
"""Answers a request. It may raise Refused."""


class HttpServer:
    """Takes requests on listening sockets, which are closed by `close_listeners`."""

    def __init__(self, handler: Handler, log: Channel, bounds: Bounds = BOUNDS) -> None:
        self._loop = asyncio.get_running_loop()
        self._handler = handler
        self.log = log
        self._bounds = bounds
        self._listening: list[socket.socket] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._idle: dict[asyncio.Task[None], None] = {}
        """Those that wait for their next request, in the order in which they began to."""
        self._displaced: set[asyncio.Task[None]] = set()
        self._streaming: set[asyncio.Task[None]] = set()
        self._closing = False
        self._tokens = bounds.rate
        self._counted = self._loop.time()

    def start(self, sockets: Iterable[socket.socket]) -> None:
        """Begin to accept."""
        for sock in sockets:
            self._listening.append(sock)
            self._loop.add_reader(sock.fileno(), self._accept, sock)

    def close_listeners(self) -> None:
        """Take no new connection; those that wait for their next request are closed."""
        self._closing = True
        for sock in self._listening:
            self._loop.remove_reader(sock.fileno())
            sock.close()
        self._listening.clear()
        for task in self._idle:
            task.cancel()

    async def finished(self, *, streams: bool = True) -> None:
        """Return when no connection is left, after `close_listeners`; without `streams`, none but theirs."""
        while tasks := self._tasks if streams else self._tasks - self._streaming:
            await asyncio.wait(tasks)

    @property
    def streams(self) -> bool:
        """Whether an answer is written as it comes about."""
        return bool(self._streaming)

    def end(self) -> None:
        """Close every connection now."""
        self.close_listeners()
        for task in self._tasks:
            task.cancel()

    # --- connections ---

    def _accept(self, listening: socket.socket) -> None:
        try:
            sock, _ = listening.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return
        except OSError:  # descriptors or memory: some may come back
            self._loop.remove_reader(listening.fileno())
            self._loop.call_later(_EXHAUSTED_PAUSE, self._resume, listening)
            return
        if len(self._tasks) >= 2 * self._bounds.connections:
            sock.close()  # so many are being told already that they are too many
            return
        sock.setblocking(False)
        task = self._loop.create_task(self._serve(sock, crowded=not self._make_room()))
        self._tasks.add(task)
        task.add_done_callback(self._forget)

    def _make_room(self) -> bool:
        """Whether one more may be served: where all places are taken, the one that is idle for longest gives
        way, whoever it is. Its client sees the end that any kept connection may have (RFC 9112, 9.5).
        """
        if len(self._tasks) - len(self._displaced) < self._bounds.connections:
            return True
        if not self._idle:
            return False
        oldest = next(iter(self._idle))
        del self._idle[oldest]
        self._displaced.add(oldest)
        oldest.cancel()
        return True

    def _resume(self, listening: socket.socket) -> None:
        if listening in self._listening:
            self._loop.add_reader(listening.fileno(), self._accept, listening)

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._displaced.discard(task)
        self._idle.pop(task, None)
        self._streaming.discard(task)

    async def _serve(self, sock: socket.socket, *, crowded: bool) -> None:
        with sock, contextlib.suppress(OSError, h11.RemoteProtocolError):  # it went, or takes no answer
            await _Exchange(self, sock).run(crowded=crowded)

    # --- what one exchange asks for ---

    @property
    def bounds(self) -> Bounds:
        return self._bounds

    @property
    def closing(self) -> bool:
        return self._closing

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        return self._loop

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """While this is entered nothing is lost where the connection is closed."""
        task = asyncio.current_task(self._loop)
        if task is not None:
            self._idle[task] = None
        try:
            yield
        finally:
            if task is not None:
                self._idle.pop(task, None)

    def note_stream(self) -> None:
        """The connection of this task is that of a stream from now on."""
        task = asyncio.current_task(self._loop)
        if task is not None:
            self._streaming.add(task)

    async def answer(self, request: Request) -> Response | Streamed:
        """Answer a request, unless there are too many of them. Who has shown no right to ask takes nothing
        away from those who have.
        """
        now = self._loop.time()
        self._tokens = min(self._tokens + (now - self._counted) * self._bounds.rate, self._bounds.rate)
        self._counted = now
        if self._tokens < 1:
            raise Refused(HTTPStatus.TOO_MANY_REQUESTS, "there are too many requests", ("Retry-After", "1"))
        self._tokens -= 1
        try:
            return await self._handler(request)
        except Refused as refusal:
            self._tokens += refusal.status in _UNPROVEN
            raise


class _Exchange:
    """One connection of a client: request after request."""

    def __init__(self, server: HttpServer, sock: socket.socket) -> None:
        self._server = server
        self._sock = sock
        self._local = sock.family == socket.AF_UNIX
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_LIMIT)
        self._method = "GET"

    async def run(self, *, crowded: bool) -> None:
        for number in range(self._server.bounds.requests):
            if number and (self._server.closing or not await self._another()):
                return
            last = crowded or number + 1 == self._server.bounds.requests
            if not await self._one(crowded=crowded, last=last):
                return

    async def _another(self) -> bool:
        """Wait for the next request of this connection to begin."""
        if self._http.our_state is h11.MUST_CLOSE or self._http.their_state is h11.MUST_CLOSE:
            return False
        self._http.start_next_cycle()
        if self._http.trailing_data[0]:
            return True
        with contextlib.suppress(TimeoutError), self._server.waiting():
            async with asyncio.timeout(self._server.bounds.idle):
                data = await self._server.loop.sock_recv(self._sock, _READ)
                self._http.receive_data(data)
                return bool(data)
        return False

    async def _one(self, *, crowded: bool, last: bool) -> bool:
        """Take one request and answer it; whether another one may follow."""
        self._method = "GET"
        try:
            if crowded:
                raise Refused(HTTPStatus.SERVICE_UNAVAILABLE, "there are too many connections")
            try:
                async with asyncio.timeout(self._server.bounds.patience):
                    request = await self._read()
            except TimeoutError:
                raise Refused(HTTPStatus.REQUEST_TIMEOUT, "the request did not come in time") from None
            if request is None:
                return False
            response = await self._server.answer(request)
            if not isinstance(response, Response):
                await self._stream(response)
                return False
        except Refused as refusal:
            response = refusal.response()
            last = last or refusal.status in _UNPROVEN
        except h11.RemoteProtocolError as error:
            status = HTTPStatus(error.error_status_hint)
            response = Refused(status, status.description or status.phrase).response()
        except OSError:
            raise
        except Exception:
            self._server.log.fault("The admin endpoint")
            response = Refused(
                HTTPStatus.INTERNAL_SERVER_ERROR, "a fault of culvert's: see its log"
            ).response()
        close = last or self._server.closing or self._http.their_state is not h11.DONE
        async with asyncio.timeout(self._server.bounds.delivery):
            await self._send(response, close=close)
        return not close

    async def _read(self) -> Request | None:
        head: h11.Request | None = None
        body = b""
        while True:
            event = self._http.next_event()
            if event is h11.NEED_DATA:
                if self._http.they_are_waiting_for_100_continue:
                    await self._write(h11.InformationalResponse(status_code=100, headers=[]))
                silent = head is None and not self._http.trailing_data[0]
                with self._server.waiting() if silent else contextlib.nullcontext():
                    data = await self._server.loop.sock_recv(self._sock, _READ)
                self._http.receive_data(data)
            elif isinstance(event, h11.Request):
                head = event
                self._method = event.method.decode("ascii")
                if _announced(event) > BODY_LIMIT:
                    raise Refused(
                        HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a body has at most {BODY_LIMIT} bytes"
                    )
            elif isinstance(event, h11.Data):
                body += event.data
                if len(body) > BODY_LIMIT:
                    raise Refused(
                        HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a body has at most {BODY_LIMIT} bytes"
                    )
            elif isinstance(event, h11.EndOfMessage) and head is not None:
                headers = {name.decode("ascii"): value.decode("latin-1") for name, value in head.headers}
                target = head.target.decode("ascii")
                if (absolute := _ABSOLUTE.fullmatch(target)) is not None:
                    headers["host"], target = absolute["authority"], f"/{absolute['path']}"
                return Request(head.method.decode("ascii"), target, headers, body, self._local)
            else:
                return None

    async def _send(self, response: Response, *, close: bool) -> None:
        if self._http.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return
        headers = [
            ("Date", formatdate(usegmt=True)),
            ("Content-Type", response.content_type),
            ("Content-Length", str(len(response.body))),
            *_HEADERS,
            *response.headers,
            *((("Connection", "close"),) if close else ()),
        ]
        head = h11.Response(
            status_code=int(response.status), headers=headers, reason=response.status.phrase.encode()
        )
        data = self._http.send(head) or b""
        if self._method != "HEAD":
            data += self._http.send(h11.Data(data=response.body)) or b""
        data += self._http.send(h11.EndOfMessage()) or b""
        await self._server.loop.sock_sendall(self._sock, data)
        if close:
            await self._hang_up()

    async def _stream(self, answer: Streamed) -> None:
        """Write an answer to its end, or to that of its reader. Raises Refused before the first byte."""
        async with answer:
            await answer.joined()
            self._server.note_stream()
            if not self._local:
                _watch_for_silence(self._sock)
            headers = [("Date", formatdate(usegmt=True)), ("Content-Type", answer.content_type), *_HEADERS]
            head = h11.Response(status_code=200, headers=[*headers, ("Connection", "close")], reason=b"OK")
            await self._server.loop.sock_sendall(self._sock, self._http.send(head) or b"")
            writing = self._server.loop.create_task(self._write_pieces(answer))
            # He has nothing more to say: what can be read is his end.
            leaving = self._server.loop.create_task(self._server.loop.sock_recv(self._sock, 1))
            try:
                done, _ = await asyncio.wait((writing, leaving), return_when=asyncio.FIRST_COMPLETED)
                if writing in done:
                    writing.result()
            finally:
                for task in (writing, leaving):
                    task.cancel()
                await asyncio.gather(writing, leaving, return_exceptions=True)

    async def _write_pieces(self, answer: Streamed) -> None:
        async for piece in answer.pieces():
            await self._server.loop.sock_sendall(self._sock, self._http.send(h11.Data(data=piece)) or b"")
        await self._server.loop.sock_sendall(self._sock, self._http.send(h11.EndOfMessage()) or b"")

    async def _write(self, event: h11.InformationalResponse) -> None:
        await self._server.loop.sock_sendall(self._sock, self._http.send(event) or b"")

    async def _hang_up(self) -> None:
        """Let the client read its answer: a close with bytes unread would send an RST that overtake it."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_WR)
            async with asyncio.timeout(1.0):
                left = 16 * HEAD_LIMIT
                while left > 0 and (data := await self._server.loop.sock_recv(self._sock, _READ)):
                    left -= len(data)


def _watch_for_silence(sock: socket.socket) -> None:
    """Have a peer that is gone noticed also where there is nothing to send to it."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)


def _announced(head: h11.Request) -> int:
    """The length that a request's body is said to have; h11 has checked that it is a number."""
    return max((int(value) for name, value in head.headers if name == b"content-length"), default=0)
