"""Short ways to read a configuration from a string and to look at what came of it."""

from __future__ import annotations

import pytest

from culvert import config
from culvert.errors import ConfigurationError, Diagnostic

PATH = "test.conf"

CLIENT = "client = yes\naccept = 1\nconnect = 2\n"
"""The shortest service; it verifies nothing."""

SERVER = "accept = 1\nconnect = 2\ncert = server.pem\n"


def service(settings: str) -> config.Service:
    """The one service that has these settings."""
    (only,) = config.loads(f"[test]\n{settings}", PATH).services
    return only


def errors(text: str) -> list[str]:
    """The errors of a faulty configuration, each as LINE: message."""
    with pytest.raises(ConfigurationError) as caught:
        config.loads(text, PATH)
    return [shown(d) for d in caught.value.diagnostics if d.severity.value == "error"]


def findings(text: str) -> list[str]:
    """The warnings and notes of a good configuration, each as LINE: message."""
    return [shown(d) for d in config.loads(text, PATH).findings]


def shown(diagnostic: Diagnostic) -> str:
    line = "-" if diagnostic.location is None else str(diagnostic.location.line)
    hint = "" if diagnostic.hint is None else f" ({diagnostic.hint})"
    return f"{line}: {diagnostic.message}{hint}"
