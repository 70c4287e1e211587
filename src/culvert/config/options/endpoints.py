"""Options of a service's two ends: who may come, where it leads, how long it waits and what it logs."""

from __future__ import annotations

from culvert.config.addresses import ACCEPT, CONNECT, HOST
from culvert.config.model import Failover, LogId, SocketOption, Transparent
from culvert.config.options.option import Availability, Option, Scope
from culvert.config.socket_options import SOCKET_OPTION
from culvert.config.values import (
    INTERVAL,
    PATH,
    RETRY,
    SECONDS,
    TEXT,
    WORDS,
    YES_NO,
    choice,
    enumeration,
)

KEEPALIVE = (("SO_KEEPALIVE", 1), ("TCP_KEEPIDLE", 120), ("TCP_KEEPINTVL", 30), ("TCP_KEEPCNT", 4))
"""A peer that is gone without a word is noticed after four minutes of silence. The first probe comes before
the usual NAT or firewall forgets a silent connection, which is after five minutes or more."""

_SOCKET_DEFAULTS = (
    SocketOption("a", "SO_REUSEADDR", 1),
    *(
        SocketOption(side, name, value)
        for side in ("l", "r")
        for name, value in (("TCP_NODELAY", 1), *KEEPALIVE)
    ),
)

ENDPOINTS = (
    Option(
        "accept",
        Scope.SERVICE,
        ACCEPT,
        "[host:]port or Unix socket to listen on",
        service_fields=("accept",),
    ),
    Option(
        "client",
        Scope.SERVICE,
        YES_NO,
        "yes|no speak TLS to the side of connect",
        default=False,
        service_fields=("client",),
    ),
    Option(
        "connect",
        Scope.SERVICE,
        CONNECT,
        "[host:]port or Unix socket to connect to",
        repeatable=True,
        default=(),
        service_fields=("connect",),
    ),
    Option(
        "delay",
        Scope.SERVICE,
        YES_NO,
        "yes|no look up the names of connect for each connection",
        default=False,
        service_fields=("delay",),
    ),
    Option(
        "exec",
        Scope.SERVICE,
        PATH,
        "program to run as the plain side",
        service_fields=("exec",),
    ),
    Option(
        "execArgs",
        Scope.SERVICE,
        WORDS,
        "arguments of exec, the program's own name ($0) first",
        default=(),
        service_fields=("exec_args",),
    ),
    Option(
        "failover",
        Scope.SERVICE,
        enumeration(Failover),
        "rr|prio|leastconn order in which the targets of connect are tried",
        default=Failover.PRIO,
        service_fields=("failover",),
    ),
    Option(
        "healthCheck",
        Scope.SERVICE,
        INTERVAL,
        "no|seconds between attempts to connect that find a dead target before a client does",
        service_fields=("health_check",),
    ),
    Option(
        "local",
        Scope.SERVICE,
        HOST,
        "source address of outgoing connections",
        service_fields=("local",),
    ),
    Option(
        "logId",
        Scope.SERVICE,
        enumeration(LogId),
        "sequential|unique|thread|process what names a connection in the log",
        default=LogId.SEQUENTIAL,
        service_fields=("log_id",),
    ),
    Option(
        "pty",
        Scope.SERVICE,
        YES_NO,
        "yes|no give exec a pseudoterminal",
        default=False,
        service_fields=("pty",),
    ),
    Option(
        "reset",
        Scope.SERVICE,
        YES_NO,
        "yes|no pass errors on as TCP resets",
        default=True,
        service_fields=("reset",),
    ),
    Option(
        "retry",
        Scope.SERVICE,
        RETRY,
        "yes|no|milliseconds start an exec and connect service again",
        service_fields=("retry",),
    ),
    Option(
        "socket",
        Scope.SERVICE,
        SOCKET_OPTION,
        "a|l|r:NAME=VALUE[:VALUE] socket option of the listening, accepted or remote socket",
        repeatable=True,
        default=_SOCKET_DEFAULTS,
        service_fields=("socket_options",),
    ),
    Option(
        "TIMEOUTbusy",
        Scope.SERVICE,
        SECONDS,
        "seconds to wait for data that must come",
        default=300.0,
        service_fields=("timeout_busy",),
    ),
    Option(
        "TIMEOUTclose",
        Scope.SERVICE,
        SECONDS,
        "seconds to wait for the other direction to close",
        default=60.0,
        service_fields=("timeout_close",),
    ),
    Option(
        "TIMEOUTconnect",
        Scope.SERVICE,
        SECONDS,
        "seconds to wait for a connection to one of the targets",
        default=10.0,
        service_fields=("timeout_connect",),
    ),
    Option(
        "TIMEOUTidle",
        Scope.SERVICE,
        SECONDS,
        "seconds to keep a connection on which nothing happens",
        default=43200.0,
        service_fields=("timeout_idle",),
    ),
    Option(
        "transparent",
        Scope.SERVICE,
        choice(
            {
                "none": Transparent.NONE,
                "source": Transparent.SOURCE,
                "destination": Transparent.DESTINATION,
                "both": Transparent.BOTH,
                "yes": Transparent.SOURCE,
                "no": Transparent.NONE,
            }
        ),
        "none|source|destination|both connect from the client's address, or to where it went",
        default=Transparent.NONE,
        service_fields=("transparent",),
    ),
    Option(
        "stack",
        Scope.SERVICE,
        TEXT,
        "bytes of a thread's stack",
        availability=Availability.NEEDLESS,
        reason="connections have no thread of their own here",
    ),
)
