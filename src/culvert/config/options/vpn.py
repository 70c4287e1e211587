"""Options of a VPN: a service with `tun` in place of `connect` or `exec`."""

from __future__ import annotations

from culvert.config.options.option import Option, Scope
from culvert.config.values import INTERVAL, YES_NO, Form
from culvert.config.vpn import VpnTransport
from culvert.config.vpn_values import (
    DEVICE,
    POOL,
    VPN_ADDRESS,
    VPN_CLIENT,
    VPN_INTERFACE,
    VPN_MTU,
    VPN_NETWORKS,
    VPN_TRANSPORT,
)

KEEPALIVE = 20.0
"""Seconds of silence after which a peer is asked whether it is there: below what a NAT forgets UDP after, and
three of them make a minute."""


def _several(name: str, form: Form, help_text: str) -> Option:
    return Option(
        name,
        Scope.SERVICE,
        form,
        help_text,
        repeatable=True,
        default=(),
        service_fields=("vpn",),
        since="0.2",
    )


VPN = (
    Option(
        "transport",
        Scope.SERVICE,
        VPN_TRANSPORT,
        "tls|dtls what the packets of tun go through",
        default=VpnTransport.TLS,
        service_fields=("vpn",),
        since="0.2",
    ),
    Option(
        "tun",
        Scope.SERVICE,
        DEVICE,
        "name of the tunnel interface of a VPN",
        service_fields=("vpn",),
        since="0.2",
    ),
    _several(
        "tunAccept",
        VPN_NETWORKS,
        "ADDRESS[/LENGTH] within which routes that the peer tells are set",
    ),
    _several("tunAddress", VPN_INTERFACE, "ADDRESS[/LENGTH] of this end of the VPN"),
    _several(
        "tunClient",
        VPN_CLIENT,
        "NAME:ADDRESS[,NETWORK...] what a client gets by its certificate's name",
    ),
    Option(
        "tunClientToClient",
        Scope.SERVICE,
        YES_NO,
        "yes|no clients of a VPN may reach one another",
        default=False,
        service_fields=("vpn",),
        since="0.2",
    ),
    Option(
        "tunKeepalive",
        Scope.SERVICE,
        INTERVAL,
        "no|seconds of silence after which a VPN's peer is probed",
        default=KEEPALIVE,
        service_fields=("vpn",),
        since="0.2",
    ),
    Option(
        "tunMTU",
        Scope.SERVICE,
        VPN_MTU,
        "bytes of the longest packet of the VPN, in place of the path's",
        service_fields=("vpn",),
        since="0.2",
    ),
    Option(
        "tunOffload",
        Scope.SERVICE,
        YES_NO,
        "yes|no have the kernel pass up to 64 kB of a flow as one packet",
        default=True,
        service_fields=("vpn",),
        since="0.2",
    ),
    Option(
        "tunParity",
        Scope.SERVICE,
        YES_NO,
        "yes|no make up by parities for what a VPN's datagrams lose",
        default=True,
        service_fields=("vpn",),
        since="0.2",
    ),
    _several("tunPeer", VPN_ADDRESS, "ADDRESS of the other end of a VPN of two"),
    _several("tunPool", POOL, "NETWORK/LENGTH from which a VPN's server gives its clients addresses"),
    _several("tunRoute", VPN_NETWORKS, "ADDRESS[/LENGTH] of a network behind this end, told to the peer"),
)
