"""What a program that uses Culvert imports: the names of `culvert` itself, loaded when the first is used."""

from culvert.client import TlsSession, connect
from culvert.config.model import Configuration
from culvert.errors import BackendError, ConfigurationError, ConnectError, CulvertError, PeerError
from culvert.server import ConnectionState, Server, ServiceStats, load_config
from culvert.tls.failure import TlsError
from culvert.transport import TruncatedError

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
    "connect",
    "load_config",
]
