"""TLS tunnels for programs that know nothing of TLS.

For use in asyncio programs: `load_config` and `Server` serve what a configuration says, `connect` opens a
TLS connection. docs/library.md shows how. These names are loaded with the first use of one of them: the
daemon imports this package too, and needs none of them.
"""

from typing import TYPE_CHECKING

from culvert.version import __version__

if TYPE_CHECKING:
    from culvert.face import (
        BackendError,
        Configuration,
        ConfigurationError,
        ConnectError,
        ConnectionState,
        CulvertError,
        PeerError,
        Server,
        ServiceStats,
        TlsError,
        TlsSession,
        TruncatedError,
        connect,
        load_config,
    )
else:

    def __getattr__(name: str) -> object:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from culvert import face  # noqa: PLC0415

        return getattr(face, name)


__all__ = [
    "BackendError",
    "Configuration",
    "ConfigurationError",
    "ConnectError",
    "ConnectionState",
    "CulvertError",
    "PeerError",
    "Server",
    "ServiceStats",
    "TlsError",
    "TlsSession",
    "TruncatedError",
    "__version__",
    "connect",
    "load_config",
]
