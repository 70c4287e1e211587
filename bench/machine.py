"""On what the figures were taken: the machine, and the versions of what was compared."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import subprocess
from pathlib import Path

from cryptography.hazmat.backends.openssl.backend import backend

from bench.peers import STUNNEL


def facts() -> dict[str, str]:
    """Machine and versions by name, in the order to show them."""
    stunnel, stunnel_openssl = _stunnel_versions()
    return {
        "machine": f"{_processor()}, {len(os.sched_getaffinity(0))} cores, Linux {platform.release()}",
        "Culvert": f"{importlib.metadata.version('culvert')}, {backend.openssl_version_text()}, "
        f"Python {platform.python_version()}, uvloop {_uvloop_version()}",
        "stunnel": f"{stunnel}, {stunnel_openssl}",
    }


def _processor() -> str:
    found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[1] if found else platform.machine()


def _uvloop_version() -> str:
    try:
        return importlib.metadata.version("uvloop")
    except importlib.metadata.PackageNotFoundError:
        return "none"


def _stunnel_versions() -> tuple[str, str]:
    shown = subprocess.run(
        [*STUNNEL.command, "-version"], capture_output=True, text=True, timeout=10, check=False
    ).stderr
    version = re.search(r"^stunnel (\S+)", shown, re.MULTILINE)
    # Two lines where the library is newer than the one it was compiled with.
    library = re.search(r"^(?:Running  with|Compiled/running with) (OpenSSL \S+)", shown, re.MULTILINE)
    return version[1] if version else "unknown", library[1] if library else "OpenSSL unknown"
