"""Asks a client's own machine who its user is (RFC 1413)."""

from __future__ import annotations

import asyncio
import contextlib

from culvert.errors import os_reason
from culvert.negotiate.ident import LINE_LIMIT, PORT, IdentError, owner, question
from culvert.negotiate.script import Ends


async def ask(ends: Ends, timeout: float) -> bytes:
    """The user to whom the ident server of a client gives its connection, within `timeout` seconds.

    It is asked from the address that the client connected to: only of such a connection can it know
    (RFC 1413, 3). Raises IdentError.
    """
    assert ends.source is not None  # noqa: S101  the caller has no such clients
    assert ends.destination is not None  # noqa: S101
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(timeout):
            reader, writer = await asyncio.open_connection(
                ends.source[0], PORT, local_addr=(ends.destination[0], 0), limit=LINE_LIMIT
            )
            writer.write(question(ends.source[1], ends.destination[1]))
            line = await reader.readuntil(b"\n")
    except TimeoutError:
        raise IdentError(f"gave no answer within {timeout:g} s") from None
    except asyncio.IncompleteReadError:
        raise IdentError("closed the connection without an answer") from None
    except asyncio.LimitOverrunError:
        raise IdentError(f"sent an answer of more than {LINE_LIMIT} bytes") from None
    except OSError as error:
        raise IdentError(f"cannot be asked: {os_reason(error)}") from None
    finally:
        if writer is not None:
            with contextlib.suppress(OSError):
                writer.transport.abort()
    return owner(line.rstrip(b"\r\n"), ends.source[1], ends.destination[1])
