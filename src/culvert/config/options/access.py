"""Options that say who may come in by where it comes from, and how a client's address is handed on."""

from __future__ import annotations

from culvert.config.networks import NETWORKS, PROXIES
from culvert.config.options.option import Option, Scope
from culvert.config.values import NAME, YES_NO, choice

ACCESS = (
    Option(
        "acceptProxy",
        Scope.SERVICE,
        YES_NO,
        "yes|no clients come through a proxy and bring a PROXY header",
        default=False,
        service_fields=("proxy",),
    ),
    Option(
        "allowFrom",
        Scope.SERVICE,
        NETWORKS,
        "ADDRESS[/LENGTH]|unix from where alone clients may come",
        repeatable=True,
        default=(),
        service_fields=("access",),
    ),
    Option(
        "denyFrom",
        Scope.SERVICE,
        NETWORKS,
        "ADDRESS[/LENGTH]|unix from where clients may not come",
        repeatable=True,
        default=(),
        service_fields=("access",),
    ),
    Option(
        "ident",
        Scope.SERVICE,
        NAME,
        "user whom the client's ident server must name",
        service_fields=("access",),
    ),
    Option(
        "libwrap",
        Scope.SERVICE,
        YES_NO,
        "yes|no heed hosts.allow and hosts.deny",
        default=False,
        service_fields=("access",),
    ),
    Option(
        "proxyProtocol",
        Scope.SERVICE,
        choice({"v1": 1, "v2": 2}),
        "v1|v2 tell the target the client's address by a PROXY header",
        service_fields=("proxy",),
    ),
    Option(
        "trustProxy",
        Scope.SERVICE,
        PROXIES,
        "ADDRESS[/LENGTH] of a proxy whose PROXY headers are believed",
        repeatable=True,
        default=(),
        service_fields=("proxy",),
    ),
)
