"""Addresses and routes of a tunnel interface, by rtnetlink(7).

pyroute2 writes and reads the messages; they go over a socket of our own, for its sockets run an event loop
that goes together neither with uvloop's nor with one that runs already. Everything here belongs to the
interface and ends with it: no route leads anywhere but to it.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import importlib.util
import ipaddress
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from culvert.config.vpn import Interface, IpAddress, Network

_NEWLINK, _NEWADDR, _DELADDR, _GETADDR, _NEWROUTE, _DELROUTE, _GETROUTE = 16, 20, 21, 22, 24, 25, 26
_ERROR, _DONE = 2, 3
_REQUEST, _ACK, _DUMP, _EXCLUSIVE, _CREATE = 0x1, 0x4, 0x300, 0x200, 0x400
_MAIN_TABLE, _PROTOCOL_STATIC, _UNICAST = 254, 4, 1
_SCOPE_LINK, _SCOPE_UNIVERSE = 253, 0
_UP = 1
_NO_DAD = 0x02
"""IFA_F_NODAD: there is nobody on a tunnel interface who could have the address as well."""

_ANSWER_LIMIT = 256 * 1024
_PATIENCE = 5.0
"""Seconds for the kernel's answer, which takes microseconds."""

PACKAGE = "pyroute2"

_RESOLVERS = ("/etc/resolv.conf", "/run/systemd/resolve/resolv.conf")
"""Where systemd-resolved is in use, the first names it alone, and the second whom it asks."""


class NetworkError(Exception):
    """An address or a route cannot be set; the text says which, and why."""


class Setup(Protocol):
    """What a VPN needs of the network's configuration; `Routing` is it."""

    def up(self, mtu: int) -> None: ...
    def add_address(self, address: Interface) -> None: ...
    def remove_address(self, address: Interface) -> None: ...
    def add_route(self, network: Network) -> None: ...
    def remove_route(self, network: Network) -> None: ...
    def neighbourhood(self) -> list[tuple[Network, str]]: ...
    def gateway(self, address: IpAddress) -> IpAddress | None: ...
    def resolvers(self) -> list[IpAddress]: ...


def installed() -> bool:
    """Whether pyroute2 is there."""
    return importlib.util.find_spec(PACKAGE) is not None


def preload() -> None:
    """Load what `Routing` needs, while its files can still be seen."""
    for name in ("ifaddrmsg", "ifinfmsg", "marshal", "rtmsg"):
        importlib.import_module(f"{PACKAGE}.netlink.rtnl.{name}")


class Routing:
    """The configuration of one interface. Everything raises NetworkError."""

    def __init__(self, name: str) -> None:
        # Late, for it takes 15 MB and a quarter of a second, which only the process of a VPN is to spend.
        preload()
        messages = importlib.import_module(f"{PACKAGE}.netlink.rtnl")
        self._address_message: Any = messages.ifaddrmsg.ifaddrmsg
        self._link_message: Any = messages.ifinfmsg.ifinfmsg
        self._route_message: Any = messages.rtmsg.rtmsg
        self._parse: Any = messages.marshal.MarshalRtnl().parse
        self._name = name
        self._index = socket.if_nametoindex(name)
        self._routed: set[Network] = set()
        self._sequence = 0
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        self._socket.bind((0, 0))
        self._socket.settimeout(_PATIENCE)

    def close(self) -> None:
        """Give up the socket; what was set stays."""
        self._socket.close()

    def up(self, mtu: int) -> None:
        """Have the interface up, with this MTU."""
        message = self._link_message()
        message["index"], message["flags"], message["change"] = self._index, _UP, _UP
        message["attrs"] = [("IFLA_MTU", mtu)]
        self._ask(f"bring up {self._name} with an MTU of {mtu}", message, _NEWLINK, _ACK)

    def add_address(self, address: Interface) -> None:
        """Give the interface an address, which no other interface may have; it may have it already."""
        self._check_free(address.ip)
        what = f"set the address {address} on {self._name}"
        self._address(what, address, _NEWADDR, _CREATE | _EXCLUSIVE, errno.EEXIST)

    def remove_address(self, address: Interface) -> None:
        """Take an address away; somebody may have done so already."""
        what = f"remove the address {address} from {self._name}"
        self._address(what, address, _DELADDR, 0, errno.EADDRNOTAVAIL)

    def add_route(self, network: Network) -> None:
        """Route a network to the interface.

        The default route goes as its two halves: they win over the one that there is, and leave it alone. One
        that was set before is set again where it has gone, as with an interface that was down for a moment.
        """
        fine = errno.EEXIST if network in self._routed else 0
        for part in _parts(network):
            self._route(f"route {part} to {self._name}", part, _NEWROUTE, _CREATE | _EXCLUSIVE, fine)
        self._routed.add(network)

    def remove_route(self, network: Network) -> None:
        """Take a route away; it may have gone with its address."""
        self._routed.discard(network)
        for part in _parts(network):
            self._route(f"remove the route {part} to {self._name}", part, _DELROUTE, 0, errno.ESRCH)

    def neighbourhood(self) -> list[tuple[Network, str]]:
        """The addresses of all other interfaces, and the networks that they are in, each with who has it."""
        found: dict[Network, str] = {}
        for entry in self._addresses():
            if entry["index"] == self._index:
                continue
            name = _interface_name(entry["index"])
            if (local := _attribute(entry, "IFA_LOCAL")) is not None:
                found[ipaddress.ip_network(local)] = name
            if (beyond := _attribute(entry, "IFA_ADDRESS")) is not None:
                found[ipaddress.ip_network((beyond, entry["prefixlen"]), strict=False)] = name
        return list(found.items())

    def gateway(self, address: IpAddress) -> IpAddress | None:
        """The router by which this machine reaches an address now; None where there is none on the way."""
        message = self._route_message()
        message["family"], message["dst_len"] = _family(address.version), address.max_prefixlen
        message["attrs"] = [("RTA_DST", str(address))]
        try:
            found = self._ask(f"look for the route to {address}", message, _GETROUTE, _ACK)
        except NetworkError:  # there is no way at present
            return None
        return _attribute(found[0], "RTA_GATEWAY") if found else None

    def resolvers(self) -> list[IpAddress]:
        """The name servers that this machine asks, as far as that can be seen from here."""
        return [address for path in _RESOLVERS for address in _name_servers(path)]

    def _check_free(self, address: IpAddress) -> None:
        for found in self._addresses():
            taken = _attribute(found, "IFA_LOCAL") or _attribute(found, "IFA_ADDRESS")
            if address == taken and found["index"] != self._index:
                holder = _interface_name(found["index"])
                raise NetworkError(
                    f"Cannot set the address {address} on {self._name}: {holder} has it already"
                )

    def _addresses(self) -> list[Any]:
        return self._ask("read the addresses of this machine", self._address_message(), _GETADDR, _DUMP)

    def _address(self, what: str, address: Interface, kind: int, flags: int, fine: int) -> None:
        message = self._address_message()
        message["index"], message["prefixlen"] = self._index, address.network.prefixlen
        message["family"] = _family(address.version)
        message["attrs"] = [
            ("IFA_LOCAL", str(address.ip)),
            ("IFA_ADDRESS", str(address.ip)),
            ("IFA_FLAGS", _NO_DAD),
        ]
        self._ask(what, message, kind, _ACK | flags, fine)

    def _route(self, what: str, network: Network, kind: int, flags: int, fine: int) -> None:
        message = self._route_message()
        message["family"], message["dst_len"] = _family(network.version), network.prefixlen
        message["table"], message["proto"], message["type"] = _MAIN_TABLE, _PROTOCOL_STATIC, _UNICAST
        message["scope"] = _SCOPE_LINK if network.version == 4 else _SCOPE_UNIVERSE
        message["attrs"] = [("RTA_DST", str(network.network_address)), ("RTA_OIF", self._index)]
        self._ask(what, message, kind, _ACK | flags, fine)

    def _ask(self, what: str, message: Any, kind: int, flags: int, fine: int = 0) -> list[Any]:
        """Send a request and read its answer to the end. The error `fine` is none: what was asked for is so
        already.
        """
        self._sequence += 1
        message["header"] = {
            "type": kind,
            "flags": _REQUEST | flags,
            "sequence_number": self._sequence,
            "pid": 0,
        }
        message.encode()
        try:
            self._socket.send(message.data)
            return list(self._answers())
        except OSError as error:
            number = error.errno or 0
            if fine and number == fine:
                return []
            reason = _REASONS.get(number) or os.strerror(number)
            raise NetworkError(f"Cannot {what}: {reason}") from None

    def _answers(self) -> Iterator[Any]:
        while True:
            for found in self._parse(self._socket.recv(_ANSWER_LIMIT)):
                header = found["header"]
                if header["sequence_number"] != self._sequence or header["type"] == _DONE:
                    if header["type"] == _DONE:
                        return
                    continue
                if header["type"] != _ERROR:
                    yield found
                    continue
                if (error := header.get("error")) is not None:
                    raise OSError(error.code, "")
                return


_REASONS = {
    errno.EPERM: "it takes CAP_NET_ADMIN",
    errno.EEXIST: "there is such a one already",
}


def _parts(network: Network) -> list[Network]:
    return list(network.subnets()) if network.prefixlen == 0 else [network]


def _family(version: int) -> int:
    return socket.AF_INET if version == 4 else socket.AF_INET6


def _attribute(found: Any, name: str) -> IpAddress | None:
    """An address that an answer of the kernel's has."""
    text = found.get_attr(name)
    return ipaddress.ip_address(text.partition("%")[0]) if text is not None else None


def _name_servers(path: str) -> Iterator[IpAddress]:
    """Those of a file in the form of resolv.conf(5)."""
    try:
        lines = Path(path).read_text("utf-8", "replace").splitlines()
    except OSError:  # there is none, or it is outside the jail
        return
    for keyword, *words in (line.split() for line in lines if line.strip()):
        if keyword == "nameserver" and words:
            with contextlib.suppress(ValueError):
                yield ipaddress.ip_address(words[0].partition("%")[0])


def _interface_name(index: int) -> str:
    try:
        return socket.if_indextoname(index)
    except OSError:
        return "another interface"
