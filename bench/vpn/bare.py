"""`python -m bench.vpn.bare ROLE INTERFACE ADDRESS PEER HOST PORT CERTIFICATE`: the least a tunnel can be.

A loop between an interface and a TCP connection, without frames, checks, counters or an event loop: what a
ping takes through it is what Python and OpenSSL take by themselves. Each read is one packet, so it is for
pings alone. ROLE is `server` or `client`, CERTIFICATE a path, or `-` for no TLS. It runs until it is ended.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable

from OpenSSL import SSL

from culvert.tls._openssl import ffi, lib

PATIENCE = 10.0
"""Seconds for the other end to listen."""

_LONGEST = 64 * 1024
_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x0001, 0x1000

Seal = Callable[[bytes], bytes]
Unseal = Callable[[bytes], list[bytes]]


def main(words: list[str]) -> None:
    """Carry packets."""
    role, interface, address, peer, host, port, certificate = words
    tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(tun, _TUNSETIFF, struct.pack("16sH22x", interface.encode(), _IFF_TUN | _IFF_NO_PI))
    quiet = f"link set {interface} addrgenmode none"  # no packets of IPv6, which would run into pings
    for command in (quiet, f"address add {address} peer {peer} dev {interface}", f"link set {interface} up"):
        subprocess.run(["ip", *command.split()], check=True)
    sock = _accept(host, int(port)) if role == "server" else _connect(host, int(port))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    seal, unseal = _in_clear() if certificate == "-" else _secure(sock, role, certificate)
    sock.setblocking(False)
    with contextlib.suppress(ConnectionError):
        _carry(tun, sock, seal, unseal)


def _carry(tun: int, sock: socket.socket, seal: Seal, unseal: Unseal) -> None:
    with select.epoll() as epoll:
        epoll.register(tun, select.EPOLLIN)
        epoll.register(sock, select.EPOLLIN)
        while True:
            for fd, _ in epoll.poll():
                if fd != tun:
                    data = sock.recv(_LONGEST)
                    if not data:
                        return
                    for packet in unseal(data):
                        os.write(tun, packet)
                with contextlib.suppress(BlockingIOError):
                    sock.send(seal(os.read(tun, _LONGEST)))


def _accept(host: str, port: int) -> socket.socket:
    with socket.create_server((host, port)) as listener:
        return listener.accept()[0]


def _connect(host: str, port: int) -> socket.socket:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return socket.create_connection((host, port))
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.05)


def _in_clear() -> tuple[Seal, Unseal]:
    return bytes, lambda data: [data]


def _secure(sock: socket.socket, role: str, certificate: str) -> tuple[Seal, Unseal]:
    """Shake hands; how to seal a packet, and how to unseal one."""
    context = SSL.Context(SSL.TLS_METHOD)
    context.use_certificate_file(certificate)
    context.use_privatekey_file(certificate)
    tls = SSL.Connection(context)
    tls.set_accept_state() if role == "server" else tls.set_connect_state()
    done = False
    while not done:
        try:
            tls.do_handshake()
            done = True
        except SSL.WantReadError:
            pass
        with contextlib.suppress(SSL.WantReadError):
            sock.sendall(tls.bio_read(_LONGEST))
        if not done:
            tls.bio_write(sock.recv(_LONGEST))

    # pyOpenSSL's methods take twice the time of these with cold caches.
    ssl, incoming, outgoing = tls._ssl, tls._into_ssl, tls._from_ssl
    buffer = bytearray(_LONGEST)
    target = ffi.from_buffer(buffer)
    write, read, put, take = lib.SSL_write, lib.SSL_read, lib.BIO_write, lib.BIO_read

    def seal(packet: bytes) -> bytes:
        write(ssl, packet, len(packet))
        return bytes(buffer[: take(outgoing, target, _LONGEST)])

    def unseal(data: bytes) -> list[bytes]:
        put(incoming, data, len(data))
        packets = []
        while (count := read(ssl, target, _LONGEST)) > 0:
            packets.append(bytes(buffer[:count]))
        return packets

    return seal, unseal


if __name__ == "__main__":
    main(sys.argv[1:])
