"""The client of the admin endpoint: one request, one answer, everything bounded."""

from __future__ import annotations

import errno
import json
import socket
import time
from http import HTTPStatus
from typing import Any

from culvert.address import Address, HostPort, UnixPath
from culvert.cli.daemon.errors import AdminError, LostError, NobodyListensError, RefusedError
from culvert.errors import os_reason
from culvert.http_response import HttpError, ResponseReader
from culvert.resolve import resolve

PATIENCE = 5.0
"""Seconds for a request: the endpoint itself waits three for its workers."""

RELOAD_PATIENCE = 30.0
"""Seconds for a reload, of which the endpoint tells after twenty how far it is."""

ANSWER_LIMIT = 32 * 1024 * 1024
"""Bytes of an answer: a thousand connections have half a million, ten thousand services twenty."""

_READ = 65536
_NOBODY = frozenset({errno.ECONNREFUSED, errno.ENOENT})


class AdminClient:
    """Asks the endpoint at one address. Each method raises AdminError."""

    def __init__(self, address: Address, token: bytes | None = None) -> None:
        self.address = address
        self._token = token

    @property
    def local(self) -> bool:
        """Whether it is surely this machine's own, and the numbers of its processes are ours."""
        return isinstance(self.address, UnixPath)

    def get(self, path: str) -> dict[str, Any]:
        """The document at a path."""
        return self._ask("GET", path, b"", PATIENCE)[1]

    def post(
        self, path: str, body: dict[str, Any] | None = None, patience: float = PATIENCE
    ) -> tuple[int, dict[str, Any]]:
        """Have something done: the status and the document that answers."""
        return self._ask("POST", path, b"" if body is None else json.dumps(body).encode(), patience)

    def _ask(self, method: str, path: str, body: bytes, patience: float) -> tuple[int, dict[str, Any]]:
        deadline = time.monotonic() + patience
        try:
            with self._connect(deadline) as sock:
                reader = self._exchange(sock, self._request(method, path, body), deadline)
        except TimeoutError:
            raise AdminError(f"{self.address} did not answer within {patience:g} seconds") from None
        except HttpError as error:
            raise AdminError(f"What answers at {self.address} is no culvert: {error}") from None
        document = self._document(reader)
        if not 200 <= reader.status < 300:
            raise self._refusal(reader.status, document)
        return reader.status, document

    def _connect(self, deadline: float) -> socket.socket:
        """A connection. Raises AdminError and TimeoutError."""
        try:
            if isinstance(self.address, UnixPath):
                return _connected(socket.AF_UNIX, self.address.path, deadline)
            found = resolve(self.address.host or "localhost", self.address.port)
            for family, sockaddr in found[:-1]:
                try:
                    return _connected(family, sockaddr, deadline)
                except OSError:
                    continue
            return _connected(*found[-1], deadline)
        except TimeoutError:
            raise
        except OSError as error:
            if error.errno in _NOBODY:
                raise NobodyListensError(f"Nobody listens at {self.address} ({os_reason(error)})") from None
            raise AdminError(f"Cannot connect to {self.address}: {os_reason(error)}") from None

    def _exchange(self, sock: socket.socket, request: bytes, deadline: float) -> ResponseReader:
        reader = ResponseReader(ANSWER_LIMIT, any_status=True)
        try:
            sock.sendall(request)
            while True:
                sock.settimeout(_left(deadline))
                data = sock.recv(_READ)
                if not data and not reader.status:
                    raise LostError(f"{self.address} hung up without an answer")
                if not data:
                    reader.end()
                    return reader
                if reader.feed(data):
                    return reader
        except TimeoutError:
            raise
        except OSError as error:
            raise LostError(f"{self.address} hung up: {os_reason(error)}") from None

    def _request(self, method: str, path: str, body: bytes) -> bytes:
        headers = {"Host": self._host(), "Connection": "close", "Accept": "application/json"}
        if method == "POST":
            headers["Content-Length"] = str(len(body))
        if body:
            headers["Content-Type"] = "application/json"
        head = f"{method} {path} HTTP/1.1\r\n" + "".join(
            f"{name}: {one}\r\n" for name, one in headers.items()
        )
        token = b"" if self._token is None else b"Authorization: Bearer " + self._token + b"\r\n"
        return head.encode() + token + b"\r\n" + body

    def _host(self) -> str:
        if not isinstance(self.address, HostPort) or self.address.host is None:
            return "localhost"
        host = self.address.host
        return f"[{host}]" if ":" in host else host

    def _document(self, reader: ResponseReader) -> dict[str, Any]:
        try:
            found = json.loads(reader.body)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise AdminError(
                f"What answers at {self.address} is no culvert: status {reader.status}, and no document"
            )
        return found

    def _refusal(self, status: int, document: dict[str, Any]) -> AdminError:
        reason = document.get("error")
        if not isinstance(reason, str):
            return AdminError(f"What answers at {self.address} is no culvert: it says {status}")
        if status == HTTPStatus.UNAUTHORIZED:
            reason = (
                "the token is wrong"
                if self._token is not None
                else "it wants a token: --token-file, or CULVERT_ADMIN_TOKEN in the environment"
            )
        return RefusedError(status, f"{self.address} refuses it: {reason}")


def _connected(family: int, sockaddr: Any, deadline: float) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.settimeout(_left(deadline))
        sock.connect(sockaddr)
    except BaseException:
        sock.close()
        raise
    return sock


def _left(deadline: float) -> float:
    """Seconds to a time of the monotonic clock. Raises TimeoutError where it is over."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left
