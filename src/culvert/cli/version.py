"""The versions of Culvert and of what it stands on."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform

from OpenSSL import SSL

from culvert.version import __version__


def versions() -> dict[str, str]:
    """Name and version of each part, Culvert first."""
    return {
        "culvert": __version__,
        "python": f"{platform.python_version()} ({platform.python_implementation()})",
        "pyOpenSSL": importlib.metadata.version("pyOpenSSL"),
        "cryptography": importlib.metadata.version("cryptography"),
        "OpenSSL": openssl_version(),
        "event loop": event_loop(),
    }


def openssl_version() -> str:
    """The OpenSSL in use, which is the one inside the `cryptography` package, with its date."""
    return SSL.OpenSSL_version(SSL.OPENSSL_VERSION).decode("ascii").removeprefix("OpenSSL ")


def event_loop() -> str:
    """uvloop with its version where it is installed, else asyncio."""
    if importlib.util.find_spec("uvloop") is None:
        return "asyncio"
    return f"uvloop {importlib.metadata.version('uvloop')}"
