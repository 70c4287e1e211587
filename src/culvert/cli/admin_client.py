"""A client of the admin endpoint: where it is, and an answer that comes for as long as there is one."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from culvert import config
from culvert.address import Address, UnixPath
from culvert.config.addresses import ADMIN
from culvert.config.values import BadValue
from culvert.errors import ConfigurationError, os_reason

TOKEN_VARIABLE = "CULVERT_ADMIN_TOKEN"  # noqa: S105  the name of it
"""Environment: the token of the endpoint."""

_PATIENCE = 10.0
_HEAD_LIMIT = 16 * 1024
_BODY_LIMIT = 64 * 1024


@dataclass(frozen=True, slots=True)
class AdminEndpoint:
    """Where the endpoint is, and what it asks for."""

    address: Address
    token: str | None = field(repr=False)


def find_endpoint(file: str | None, written: str | None, token_file: str | None) -> AdminEndpoint:
    """The endpoint of a configuration file, or at an address. Raises ConfigurationError."""
    if file is not None:
        admin = config.load(file).options.admin
        if admin is None:
            raise ConfigurationError.single(
                f'{file} has no "admin": a daemon is reached by its admin endpoint alone'
            )
        token = None if token_file is not None else admin.token
        return AdminEndpoint(admin.address, token or _token(token_file or admin.token_file))
    try:
        address: Address = ADMIN.parse(written or "")
    except BadValue as error:
        expected = error.expected or ADMIN.takes
        raise ConfigurationError.single(f'"{written}" is no address: expected {expected}') from None
    return AdminEndpoint(address, _token(token_file))


def _token(file: str | None) -> str | None:
    if file is None:
        return os.environ.get(TOKEN_VARIABLE)
    try:
        return Path(file).read_text("ascii").strip()
    except OSError as error:
        raise ConfigurationError.single(f"Cannot read the token in {file}: {os_reason(error)}") from None
    except UnicodeDecodeError:
        raise ConfigurationError.single(f"{file} holds no token") from None


@contextlib.asynccontextmanager
async def posted(
    endpoint: AdminEndpoint, path: str, body: Mapping[str, object], *, line_limit: int
) -> AsyncIterator[asyncio.StreamReader]:
    """Post a JSON object; the body of the answer, as it comes. Raises ConfigurationError for a refusal."""
    where = endpoint.address
    try:
        async with asyncio.timeout(_PATIENCE):
            reader, writer = await _connect(where, line_limit)
    except OSError as error:
        reason = "no answer in time" if isinstance(error, TimeoutError) else os_reason(error)
        raise ConfigurationError.single(f"Nothing answers at the admin endpoint {where}: {reason}") from None
    try:
        try:
            async with asyncio.timeout(_PATIENCE):
                writer.write(_request(path, json.dumps(body).encode(), endpoint.token))
                status = _status(await reader.readuntil(b"\r\n\r\n"))
                refusal = None if status == 200 else _reason(status, await reader.read(_BODY_LIMIT))
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            refusal = "it does not speak HTTP"
        if refusal is not None:
            raise ConfigurationError.single(f"The admin endpoint {where} refuses: {refusal}")
        yield reader
    finally:
        writer.transport.abort()


async def _connect(where: Address, limit: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if isinstance(where, UnixPath):
        return await asyncio.open_unix_connection(where.path, limit=limit)
    return await asyncio.open_connection(where.host or "localhost", where.port, limit=limit)


def _request(path: str, body: bytes, token: str | None) -> bytes:
    """A request of HTTP/1.0: the answer ends with its connection, and is in no chunks."""
    lines = [
        f"POST {path} HTTP/1.0",
        "Host: localhost",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        *([] if token is None else [f"Authorization: Bearer {token}"]),
    ]
    return "".join(f"{line}\r\n" for line in lines).encode() + b"\r\n" + body


def _status(head: bytes) -> int:
    words = head.split(b" ", 2)
    return int(words[1]) if len(words) > 1 and words[0].startswith(b"HTTP/") and words[1].isdigit() else 0


def _reason(status: int, body: bytes) -> str:
    """The endpoint's own sentence, where it has said one."""
    try:
        found = json.loads(body)["error"]
    except (ValueError, KeyError, TypeError, RecursionError):
        found = None
    return found if isinstance(found, str) else f"it answers with status {status}"
