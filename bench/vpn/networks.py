"""In a guest: two networks, each behind a gateway, and the link over which the gateways reach each other.

      near-lan            near                             far              far-lan
      10.1.0.2 --- 10.1.0.1   192.0.2.1 --- 192.0.2.2   10.2.0.1 --- 10.2.0.2
                        (client)     eth0      (server)

Neither network has a way to the other until a tunnel gives it one.
"""

from __future__ import annotations

from bench.uml.hosts import Host, link

NEAR, FAR = "192.0.2.1", "192.0.2.2"
NEAR_LAN, FAR_LAN = "10.1.0.2", "10.2.0.2"
NEAR_NETWORK, FAR_NETWORK = "10.1.0.0/24", "10.2.0.0/24"

INTERFACE = "eth0"
"""Of both gateways, towards each other."""

MODULES = ("veth", "ipv6")


class Networks:
    """All four hosts, joined."""

    def __init__(self) -> None:
        self.near, self.far = Host("near"), Host("far")
        self.near_lan, self.far_lan = Host("near-lan"), Host("far-lan")
        link((self.near, INTERFACE, f"{NEAR}/24"), (self.far, INTERFACE, f"{FAR}/24"))
        link((self.near, "eth1", "10.1.0.1/24"), (self.near_lan, "eth0", f"{NEAR_LAN}/24"))
        link((self.far, "eth1", "10.2.0.1/24"), (self.far_lan, "eth0", f"{FAR_LAN}/24"))
        self.near_lan.route("default", "via", "10.1.0.1")
        self.far_lan.route("default", "via", "10.2.0.1")
