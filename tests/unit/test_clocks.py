"""The wall clock is for what people read and for certificates: it may jump, and no time-out goes by it."""

from __future__ import annotations

import ast
from pathlib import Path

import culvert.version

PACKAGE = Path(culvert.version.__file__).parent

WALL = {
    ("time", "time"),
    ("time", "time_ns"),
    ("time", "localtime"),
    ("time", "gmtime"),
    ("datetime", "now"),
    ("datetime", "utcnow"),
    ("datetime", "today"),
}

ALLOWED = {
    "log/lines.py": "the time of a line",
    "log/sinks.py": "the time of a syslog message",
    "drain.py": "until when connections may go on, for the log",
    "trace/tracing.py": "the time of day at which a connection began, for people and captures",
    "cli/trace/passive.py": "the same",
    "cli/trace/text.py": "the same, printed",
    "metrics.py": "when the daemon was reloaded, for people",
    "admin/overview.py": "the time of a status document, and the days until a certificate expires",
    "failures.py": "when a connection failed, for people",
    "generation.py": "since when is counted, for people",
    "contexts.py": "the days until a certificate expires",
    "cli/commands.py": "the same",
    "cli/daemon/orders.py": "the same",
    "cli/top/columns.py": "when a connection failed, shown",
    "cli/ca/commands.py": "when certificates are made and expire",
    "cli/demo/authority.py": "the same",
    "revocation.py": "whether an OCSP answer is in its time",
    "staple_renewal.py": "the same",
    "negotiate/http_connect.py": "the time in an NTLM message",
}


def test_no_timeout_goes_by_the_wall_clock() -> None:
    found = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Attribute) and (_owner(node.value), node.attr) in WALL
    }
    assert found == set(ALLOWED), "a new use of the wall clock: say here what for, or use a monotonic one"


def _owner(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
