"""A request that the endpoint was sent, its answer, and what is refused before anybody looks at it."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import ipaddress
import json
import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from types import TracebackType
from typing import Any, Protocol, Self
from urllib.parse import parse_qsl, unquote

TARGET_LIMIT = 1024
"""Characters of a request's target: the longest that means anything has under two hundred."""

_HOST = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]*)(?::[0-9]{1,5})?")
_CHALLENGE = (("WWW-Authenticate", 'Bearer realm="culvert"'), ("WWW-Authenticate", 'Basic realm="culvert"'))


@dataclass(frozen=True, slots=True)
class Request:
    """One request. Header names are in lower case; `local`: it came over the Unix socket."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes
    local: bool

    @property
    def path(self) -> str:
        return unquote(self.target.partition("?")[0])

    @property
    def query(self) -> dict[str, str]:
        """The fields behind the path. Raises Refused."""
        try:
            return dict(parse_qsl(self.target.partition("?")[2], max_num_fields=16))
        except ValueError:
            raise Refused(HTTPStatus.BAD_REQUEST, "the query has too many fields") from None


@dataclass(frozen=True, slots=True)
class Response:
    """An answer."""

    status: HTTPStatus
    body: bytes
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()


class Streamed(Protocol):
    """An answer that is written as it comes about, for as long as that takes; entered for that time."""

    content_type: str

    async def joined(self) -> None:
        """Return once there is something to write. Raises Refused."""

    def pieces(self) -> AsyncIterator[bytes]:
        """The body."""

    async def __aenter__(self) -> Self: ...
    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> None: ...


def document(value: Any, status: HTTPStatus = HTTPStatus.OK) -> Response:
    """A response that is a JSON document."""
    return Response(status, json.dumps(value, ensure_ascii=True).encode() + b"\n")


class Refused(Exception):  # noqa: N818  it is an answer, and no fault of ours
    """A request that gets a status, and one sentence about why."""

    def __init__(self, status: HTTPStatus, reason: str, *headers: tuple[str, str]) -> None:
        self.status = status
        self.reason = reason
        self.headers = headers

    def response(self) -> Response:
        """The answer."""
        answer = document({"error": self.reason}, self.status)
        return Response(self.status, answer.body, headers=self.headers)


class Guard:
    """Decides who may ask.

    A browser can be made to send requests here by any page: to a name of the page's own that leads to this
    address (DNS rebinding), which its Host header gives away, or as a form, which can carry no token. So
    over TCP what changes something needs the token, as a header that no page can set. A Unix socket is out of
    a browser's reach until somebody forwards a port to it: there a Host that could be another's domain, which
    has a dot, is refused, and what changes something where a browser says that it asks for a page (Origin).
    """

    def __init__(self, token: bytes | None, names: frozenset[str]) -> None:
        """`names` are host names, in lower case, that lead here by right; addresses always do."""
        self._digest = None if token is None else hashlib.sha256(token).digest()
        self._names = names | {"localhost"}

    def check(self, request: Request, *, public: bool = False) -> None:
        """Raises Refused for a request that is not to be answered.

        What is `public` is read without the token, but under no other host's name all the same: a token that
        was typed into a page of such a name would be that host's.
        """
        if len(request.target) > TARGET_LIMIT:
            raise Refused(HTTPStatus.REQUEST_URI_TOO_LONG, f"a target has at most {TARGET_LIMIT} characters")
        if not request.target.startswith("/"):
            raise Refused(HTTPStatus.BAD_REQUEST, "the target is a path")
        proven = self._digest is not None and self._proves(request)
        if not (proven or self._is_ours(request.headers.get("host", ""), local=request.local)):
            raise Refused(HTTPStatus.MISDIRECTED_REQUEST, "this is not the host that the request names")
        public = public and request.method in ("GET", "HEAD")
        if self._digest is not None and not (proven or public):
            raise Refused(HTTPStatus.UNAUTHORIZED, "the token is missing or wrong", *_CHALLENGE)
        if request.method == "POST" and not (proven or (request.local and "origin" not in request.headers)):
            raise Refused(
                HTTPStatus.FORBIDDEN,
                "over TCP and from a web page, what changes something needs adminToken to be set and sent",
            )

    def _is_ours(self, host: str, *, local: bool) -> bool:
        if local and "." not in host:
            return True
        match = _HOST.fullmatch(host)
        if match is None:
            return False
        name = match["host"].strip("[]").lower().removesuffix(".")
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return name in self._names
        return True

    def _proves(self, request: Request) -> bool:
        """Whether the request brings the token; a browser's password prompt serves for reading alone."""
        scheme, _, value = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            offered = value.strip().encode("latin-1", "replace")
        elif scheme.lower() == "basic" and request.method in ("GET", "HEAD"):
            try:
                offered = base64.b64decode(value.strip(), validate=True).partition(b":")[2]
            except (binascii.Error, ValueError):
                return False
        else:
            return False
        return hmac.compare_digest(hashlib.sha256(offered).digest(), self._digest or b"")
