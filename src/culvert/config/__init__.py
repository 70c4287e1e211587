"""The configuration: stunnel's dialect in, a frozen tree of typed values out."""

from culvert.config.lexer import MAX_BYTES
from culvert.config.loader import load, loads
from culvert.config.model import (
    AccessRules,
    AllowKind,
    AllowRule,
    Configuration,
    Debug,
    Failover,
    Foreground,
    GlobalOptions,
    LogId,
    LogMode,
    ProxyHeaders,
    Service,
    SocketOption,
    Sources,
    TlsVersion,
    VerifyPolicy,
)
from culvert.config.options import OPTIONS, Availability, Option, Scope
from culvert.config.socket_options import SOCKET_OPTIONS
from culvert.config.tls_options import TLS_OPTIONS

__all__ = [
    "MAX_BYTES",
    "OPTIONS",
    "SOCKET_OPTIONS",
    "TLS_OPTIONS",
    "AccessRules",
    "AllowKind",
    "AllowRule",
    "Availability",
    "Configuration",
    "Debug",
    "Failover",
    "Foreground",
    "GlobalOptions",
    "LogId",
    "LogMode",
    "Option",
    "ProxyHeaders",
    "Scope",
    "Service",
    "SocketOption",
    "Sources",
    "TlsVersion",
    "VerifyPolicy",
    "load",
    "loads",
]
