"""A tunnel interface of Linux (tun(4), Documentation/networking/tuntap.rst), opened by ioctl.

The interface lives as long as the descriptor: it, its addresses and its routes go with the process, however
that ends. With IFF_VNET_HDR each packet has a header of 10 bytes, in little-endian order here on every
machine (TUNSETVNETLE), and with TUNSETOFFLOAD the kernel hands over up to 64 kB of a TCP or UDP flow as one
packet, whose checksum it has not computed yet.
"""

from __future__ import annotations

import enum
import errno
import fcntl
import os
import struct

from culvert.errors import os_reason

CLONE = "/dev/net/tun"

_TUNSETIFF = 0x400454CA
_TUNSETOFFLOAD = 0x400454D0
_TUNSETVNETLE = 0x400454DC
_IFF_TUN = 0x0001
_IFF_NO_PI = 0x1000
_IFF_VNET_HDR = 0x4000
_IFF_TUN_EXCL = 0x8000
_REQUEST = struct.Struct("16sH22x")


class Offload(enum.IntFlag):
    """What the kernel may leave undone in a packet that is read (TUN_F_* of linux/if_tun.h)."""

    NONE = 0
    CHECKSUM = 0x01
    TCP4 = 0x02
    TCP6 = 0x04
    ECN = 0x08
    UDP4 = 0x20
    UDP6 = 0x40


TCP = Offload.CHECKSUM | Offload.TCP4 | Offload.TCP6 | Offload.ECN
ALL = TCP | Offload.UDP4 | Offload.UDP6
"""With UDP since Linux 6.2."""


class DeviceError(Exception):
    """A tunnel interface cannot be had; the text says why, and what to do."""


def open_clone() -> int:
    """A descriptor that `create` makes an interface of: a path, so to be opened outside a jail.

    Raises DeviceError.
    """
    try:
        return os.open(CLONE, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise DeviceError(
            f"{CLONE} does not exist: the kernel has no tun driver, or it is not loaded (modprobe tun)"
        ) from None
    except OSError as error:
        raise DeviceError(
            f"Cannot open {CLONE}: {os_reason(error)} (the daemon must be started as root, and a container "
            "needs the device and CAP_NET_ADMIN)"
        ) from None


def create(fd: int, name: str, wanted: Offload) -> Offload:
    """Make the descriptor of `open_clone` a new interface of that name; what is offloaded of `wanted`.

    Raises DeviceError; the descriptor can be tried with again.
    """
    flags = _IFF_TUN | _IFF_NO_PI | _IFF_VNET_HDR | _IFF_TUN_EXCL
    try:
        fcntl.ioctl(fd, _TUNSETIFF, _REQUEST.pack(name.encode(), flags))
    except PermissionError:
        raise DeviceError(
            f"No permission to create the interface {name}: it takes CAP_NET_ADMIN, which root has unless a "
            "container or a unit takes it away"
        ) from None
    except OSError as error:
        taken = error.errno in (errno.EBUSY, errno.EEXIST)
        reason = "there is an interface of this name already" if taken else os_reason(error)
        raise DeviceError(f"Cannot create the interface {name}: {reason}") from None
    fcntl.ioctl(fd, _TUNSETVNETLE, struct.pack("i", 1))
    return offload(fd, wanted)


def offload(fd: int, wanted: Offload) -> Offload:
    """Have the kernel offload as much of `wanted` as it can; returns what that is."""
    for offered in (wanted, wanted & TCP):
        try:
            fcntl.ioctl(fd, _TUNSETOFFLOAD, int(offered))
        except OSError:
            continue
        return offered
    return Offload.NONE
