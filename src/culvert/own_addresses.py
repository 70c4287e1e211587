"""Whether an address is one of this machine's own: the kernel's routing table says so (rtnetlink(7)).

A list of the interfaces' addresses would miss those that only a local route makes the machine's, and needs a
library. Where a sandbox has no netlink, the answer is whether a socket can be bound to the address; with
`ip_nonlocal_bind` that is true of every address, so it errs to the safe side.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import struct

from culvert.address import IpAddress, unwrapped
from culvert.resolve import InternetAddress

WAIT = 1.0
"""Seconds for an answer of the kernel's, which is there when the request was sent."""

_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr: length, type, flags, sequence, port
_ROUTE = struct.Struct(
    "=BBBBBBBBI"
)  # struct rtmsg: family, two lengths, tos, table, protocol, scope, type, flags
_ATTRIBUTE = struct.Struct("=HH")  # struct rtattr: length, type

_ERROR, _GET_ROUTE, _NEW_ROUTE = 2, 26, 24  # NLMSG_ERROR, RTM_GETROUTE, RTM_NEWROUTE
_REQUEST = 1  # NLM_F_REQUEST
_DESTINATION, _OUTPUT = 1, 4  # RTA_DST, RTA_OIF
_LOCAL = 2  # RTN_LOCAL
_NO_ROUTE = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.EINVAL})


def is_own(sockaddr: InternetAddress) -> bool:
    """Whether a connection to this socket address would stay on this machine."""
    address = unwrapped(str(sockaddr[0]))
    zone = int(sockaddr[3]) if len(sockaddr) > 3 else 0
    try:
        return _route_type(address, zone) == _LOCAL
    except OSError:
        return _can_be_bound(address, zone)


def _route_type(address: IpAddress, zone: int) -> int | None:
    """The type of the route to the address, or None where there is none. Raises OSError."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    body = _ROUTE.pack(family, address.max_prefixlen, 0, 0, 0, 0, 0, 0, 0)
    body += _ATTRIBUTE.pack(_ATTRIBUTE.size + len(address.packed), _DESTINATION) + address.packed
    if zone:
        body += _ATTRIBUTE.pack(_ATTRIBUTE.size + 4, _OUTPUT) + struct.pack("=I", zone)
    request = _HEADER.pack(_HEADER.size + len(body), _GET_ROUTE, _REQUEST, 1, 0) + body
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as netlink:
        netlink.settimeout(WAIT)
        netlink.send(request)
        answer = netlink.recv(8192)
    kind = _HEADER.unpack_from(answer)[1]
    if kind == _NEW_ROUTE:
        return int(_ROUTE.unpack_from(answer, _HEADER.size)[7])
    number = -int(struct.unpack_from("=i", answer, _HEADER.size)[0]) if kind == _ERROR else errno.EPROTO
    if number in _NO_ROUTE:
        return None
    raise OSError(number, "netlink")


def _can_be_bound(address: IpAddress, zone: int) -> bool:
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    where = (str(address), 0) if address.version == 4 else (str(address), 0, 0, zone)
    with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.bind(where)
        return True
    return False
