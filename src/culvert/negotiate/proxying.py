"""Tells a backend by a PROXY header who its client is, whatever protocol is spoken besides."""

from __future__ import annotations

from collections.abc import Callable, Generator
from functools import partial
from typing import Any

from culvert.errors import BackendError
from culvert.negotiate.proxy_header import version_1, version_2
from culvert.negotiate.proxy_tls import tls_tlvs
from culvert.negotiate.script import (
    Connect,
    Ends,
    NegotiationError,
    Protocol,
    Script,
    Secured,
    Send,
    Side,
    Step,
)


def announcing(protocol: Protocol, version: int, *, server: bool) -> Protocol:
    """The protocol, with a header as the first bytes to whatever it connects to.

    Only a `server` that connects after its handshake can tell of its client's TLS: one that talks to its
    target before knows nothing of it yet, and the clients of a TLS client come in clear.
    """

    def before(ends: Ends) -> Script:
        return _with_header(protocol.before(ends), partial(_header, version, ends, None))

    def after(ends: Ends, secured: Secured) -> Script:
        known = secured if server else None
        return _with_header(protocol.after(ends, secured), partial(_header, version, ends, known))

    return protocol._replace(before=before, after=after)


def _header(version: int, ends: Ends, secured: Secured | None) -> bytes:
    if version == 1:
        return version_1(ends)
    return version_2(ends, tls_tlvs(secured) if secured is not None else b"")


def _with_header(script: Script, header: Callable[[], bytes]) -> Generator[Step, Any, Any]:
    """The script's own steps, and the header behind each `Connect`; what fails is the script's to know."""
    try:
        step = next(script)
        while True:
            try:
                result = yield step
                if isinstance(step, Connect):
                    yield Send(Side.SERVER, header())
            except (BackendError, NegotiationError) as error:
                step = script.throw(error)
            else:
                step = script.send(result)
    except StopIteration as end:
        return end.value
    finally:
        script.close()
