"""What stands around a VPN's hub in unit tests: transports that keep what they are given, and a machine."""

from __future__ import annotations

import ipaddress

from culvert.config.vpn import Interface, IpAddress, Network
from culvert.tls.engine import Scratch
from culvert.vpn.transport import Kind


class Way:
    """A transport that keeps what it is given."""

    name = "TLS"
    offload = True
    path_mtu: int | None = None
    worn = False
    overdue = False

    def __init__(self, scratch: Scratch) -> None:
        self._scratch = scratch
        self.busy = False
        self.packets: list[bytes] = []
        self.messages: list[tuple[Kind, bytes]] = []
        self.end = ""
        self.cuts = False

    def send_message(self, kind: Kind, body: bytes) -> None:
        self.messages.append((kind, body))

    def send_packet(self, start: int, count: int, offloaded: bool) -> None:
        first = start - 10 if offloaded else start
        self.packets.append(bytes(self._scratch.received[first : start + count]))

    def send_alone(self, start: int, count: int, offloaded: bool) -> None:
        self.send_packet(start, count, offloaded)

    def flush(self) -> None:
        pass

    def cut_datagrams(self) -> None:
        self.cuts = True

    def close(self) -> None:
        self.end = self.end or "closed"

    def abort(self, reason: str) -> None:
        self.end = self.end or reason


class Machine:
    """A machine's network: what is set on the interface, and what other interfaces have."""

    def __init__(self, neighbours: dict[str, str] | None = None, gateway: str | None = None) -> None:
        """`neighbours` are networks with the interface that is in each; `gateway` leads everywhere else."""
        self._neighbours = neighbours or {}
        self.name_servers: list[str] = []
        self._gateway = ipaddress.ip_address(gateway) if gateway is not None else None
        self.mtu = 0
        self.addresses: set[str] = set()
        self.routes: set[str] = set()

    def up(self, mtu: int) -> None:
        self.mtu = mtu

    def add_address(self, address: Interface) -> None:
        self.addresses.add(str(address.ip))

    def remove_address(self, address: Interface) -> None:
        self.addresses.remove(str(address.ip))

    def add_route(self, network: Network) -> None:
        self.routes.add(str(network))

    def remove_route(self, network: Network) -> None:
        self.routes.remove(str(network))

    def neighbourhood(self) -> list[tuple[Network, str]]:
        return [(ipaddress.ip_network(network), name) for network, name in self._neighbours.items()]

    def gateway(self, address: IpAddress) -> IpAddress | None:
        return self._gateway

    def resolvers(self) -> list[IpAddress]:
        return [ipaddress.ip_address(one) for one in self.name_servers]
