"""The scripts of services that a test describes by lines of configuration."""

from __future__ import annotations

import functools

from culvert import config
from culvert.negotiate import protocol_of
from culvert.negotiate.script import Ends, Protocol, Script, Secured

NOWHERE = Ends(None, None)


@functools.cache
def protocol(name: str, *options: str, client: bool) -> Protocol:
    """The protocol of a service with these further options."""
    role = "client = yes" if client else "cert = server.pem"
    lines = ["[mail]", "accept = 1", "connect = 2", role, f"protocol = {name}", *options]
    return protocol_of(config.loads("\n".join(lines) + "\n", "test.conf").services[0])


def before(name: str, *options: str, client: bool) -> Script:
    """What is said before the handshake."""
    return protocol(name, *options, client=client).before(NOWHERE)


def after(name: str, carried: object, *options: str, client: bool) -> Script:
    """What is said after it."""
    secured = Secured(False, "TLSv1.3", "TLS_AES_128_GCM_SHA256", None, None, None, False, carried)
    return protocol(name, *options, client=client).after(NOWHERE, secured)
