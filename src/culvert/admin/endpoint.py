"""The endpoint itself: what each path answers, and what it has done by whoever runs the daemon."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any

from culvert.admin.door import Door
from culvert.admin.exposition import Exposition
from culvert.admin.http import HttpServer
from culvert.admin.operations import Listing, Operations, Outcome
from culvert.admin.overview import STATUS_VERSION, Overview
from culvert.admin.request import Guard, Refused, Request, Response, Streamed, document
from culvert.admin.static import PAGE, page
from culvert.config.values import LEVELS
from culvert.control import IDENT, LISTED
from culvert.log import Channel
from culvert.trace import Wants

_END = re.compile(r"/connections/(?P<ident>[A-Za-z0-9_-]{1,64})/end")
_WANTS = ("data", "wire", "secrets")

Route = Callable[[Request], Awaitable[Response | Streamed]]


class Endpoint:
    """Serves at a door. `start` it; `leave` when another process takes over; then `finished`, and `end`."""

    def __init__(self, door: Door, overview: Overview, operations: Operations, log: Channel) -> None:
        self._door = door
        self._overview = overview
        self._operations = operations
        self._exposition = Exposition(overview)
        names = frozenset({door.host.lower()} if door.host is not None else ())
        self._guard = Guard(door.token, names)
        self._reads: dict[str, Route] = {
            "/metrics": self._metrics,
            "/healthz": self._health,
            "/readyz": self._readiness,
            "/status": self._status,
            "/connections": self._connections,
            **dict.fromkeys(PAGE, page),
        }
        self._writes: dict[str, Route] = {
            "/reload": self._reload,
            "/level": self._level,
            "/stop": self._stop,
            "/trace": self._trace,
        }
        self._log = log
        self._server = HttpServer(self.answer, log)

    def start(self) -> None:
        """Begin to answer."""
        self._server.start(bound.sock.dup() for bound in self._door.bound)

    def leave(self) -> None:
        """Take no new connection."""
        self._server.close_listeners()

    async def finished(self, *, traces: bool = True) -> None:
        """Return when no connection is left, after `leave`; without `traces`, none but theirs."""
        await self._server.finished(streams=traces)

    @property
    def traces(self) -> bool:
        """Whether somebody is shown a trace."""
        return self._server.streams

    def end(self) -> None:
        """Close every connection now."""
        self._server.end()

    async def answer(self, request: Request) -> Response | Streamed:
        """Answer one request. Raises Refused."""
        path = request.path
        self._guard.check(request, public=path in PAGE)
        write = self._end if _END.fullmatch(path) else self._writes.get(path)
        read = self._reads.get(path)
        if read is None and write is None:
            raise Refused(HTTPStatus.NOT_FOUND, "there is nothing at this path")
        allowed = ("GET", "HEAD") if read is not None else ("POST",)
        if request.method not in allowed:
            raise Refused(
                HTTPStatus.METHOD_NOT_ALLOWED, "this path takes another method", ("Allow", ", ".join(allowed))
            )
        route = read or write
        assert route is not None  # noqa: S101  one of the two was found
        return await route(request)

    def _known(self, service: object) -> str | None:
        """The name of a service, if one was given. Raises Refused where none has it."""
        if service is None:
            return None
        if not isinstance(service, str) or service not in self._overview.names:
            raise Refused(HTTPStatus.NOT_FOUND, "there is no service of this name")
        return service

    # --- reading ---

    async def _metrics(self, request: Request) -> Response:
        text, content_type = self._exposition.text(request.headers.get("accept", ""))
        return Response(HTTPStatus.OK, text, content_type)

    async def _health(self, _: Request) -> Response:
        return Response(HTTPStatus.OK, b"ok\n", "text/plain; charset=utf-8")

    async def _readiness(self, request: Request) -> Response:
        view = self._overview.look()
        service = self._known(request.query.get("service"))
        obstacles = view.obstacles(service)
        text = "".join(f"{one}\n" for one in obstacles or ["ready"])
        status = HTTPStatus.SERVICE_UNAVAILABLE if obstacles else HTTPStatus.OK
        return Response(status, text.encode(), "text/plain; charset=utf-8")

    async def _status(self, _: Request) -> Response:
        return document(self._overview.status())

    async def _connections(self, request: Request) -> Response:
        query = request.query
        limit = query.get("limit", str(LISTED))
        if not (
            limit.isascii()
            and limit.isdigit()
            and len(limit) <= len(str(LISTED))
            and 0 < int(limit) <= LISTED
        ):
            raise Refused(HTTPStatus.BAD_REQUEST, f"limit is a number from 1 to {LISTED}")
        found: Listing = await self._operations.connections(int(limit), self._known(query.get("service")))
        return document(
            {
                "format": STATUS_VERSION,
                "complete": found.complete,
                "total": found.total,
                "connections": found.connections,
            }
        )

    # --- actions ---

    async def _end(self, request: Request) -> Response:
        match = _END.fullmatch(request.path)
        ended = await self._operations.end(match["ident"] if match is not None else "")
        if not ended:
            raise Refused(HTTPStatus.NOT_FOUND, "there is no such connection")
        return document({"ended": ended})

    async def _level(self, request: Request) -> Response:
        body = _json(request)
        level, service = body.get("level"), self._known(body.get("service"))
        if isinstance(level, str) and level in LEVELS:
            level = LEVELS.index(level)
        if isinstance(level, bool) or not isinstance(level, int) or not 0 <= level < len(LEVELS):
            raise Refused(
                HTTPStatus.BAD_REQUEST, f'"level" is a number from 0 to 7, or one of {", ".join(LEVELS)}'
            )
        await self._operations.set_level(level, service)
        return document({"level": LEVELS[level], "service": service})

    async def _trace(self, request: Request) -> Streamed:
        body = _json(request)
        ident, wants = body.get("connection", ""), [body.get(name, False) for name in _WANTS]
        if not isinstance(ident, str) or not re.fullmatch(IDENT, ident):
            raise Refused(HTTPStatus.BAD_REQUEST, '"connection" is what the log calls one')
        if not all(isinstance(one, bool) for one in wants):
            raise Refused(HTTPStatus.BAD_REQUEST, f"{', '.join(_WANTS)} are true or false")
        service = self._known(body.get("service"))
        if not self._overview.may_trace(service):
            whose = "no service has" if service is None else "this service does not have"
            raise Refused(
                HTTPStatus.FORBIDDEN, f'{whose} "trace = yes": what it carries is not shown to anybody'
            )
        chosen = Wants(*wants)
        whose = "all services that allow it" if service is None else f"service [{service}]"
        how = ", with what is carried in clear" if chosen.data or chosen.secrets else ""
        self._log.notice(f"A trace of {whose} was asked for over the admin endpoint{how}")
        return self._operations.trace(service, ident, chosen)

    async def _stop(self, _: Request) -> Response:
        await self._operations.stop()
        return document({"stop": "under way"}, HTTPStatus.ACCEPTED)

    async def _reload(self, _: Request) -> Response:
        match await self._operations.reload():
            case Outcome.DONE:
                return document({"reload": "done"})
            case Outcome.FAILED:
                raise Refused(
                    HTTPStatus.CONFLICT,
                    "the reload failed, and the log says why; the running configuration goes on",
                )
            case Outcome.UNDER_WAY:
                return document({"reload": "under way"}, HTTPStatus.ACCEPTED)


def _json(request: Request) -> dict[str, Any]:
    """The object in a request's body. Raises Refused."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "the body is a JSON object (application/json)")
    try:
        found = json.loads(request.body)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise Refused(HTTPStatus.BAD_REQUEST, "the body is a JSON object")
    return found
