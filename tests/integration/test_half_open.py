"""Peers that are gone without a word: keep-alive ends their connections, on either side, in a network
namespace in which a filter swallows what they send."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .certificates import Certificates
from .daemon import needs_root
from .echo import trusting
from .harness import PATIENCE, Culvert, eventually, require
from .peers import PlainPeer, TlsPeer, read_exactly

Start = Callable[..., Culvert]

CLONE_NEWNET = 0x40000000


@contextlib.contextmanager
def network_of(pid: int) -> Iterator[None]:
    """Sockets that this thread opens meanwhile are in the network namespace of that process."""
    libc = ctypes.CDLL(None, use_errno=True)
    with Path("/proc/thread-self/ns/net").open("rb") as own, Path(f"/proc/{pid}/ns/net").open("rb") as other:
        assert libc.setns(other.fileno(), CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
        try:
            yield
        finally:
            assert libc.setns(own.fileno(), CLONE_NEWNET) == 0


def inside(daemon: Culvert, *words: str) -> str:
    """Runs a command in the daemon's network namespace."""
    return subprocess.run(
        [require("nsenter"), f"--net=/proc/{daemon.pid}/ns/net", *words],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    ).stdout


def alone() -> list[str]:
    """What runs a program in a network of its own; skips the test where that cannot be."""
    prefix = [require("unshare"), "--net", "--", "/bin/sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
    require("ip")
    if subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode:
        pytest.skip("there may be no network namespace here")
    return prefix


@needs_root
@pytest.mark.parametrize("silent", ["client", "target"])
def test_a_peer_that_is_gone_ends_its_connection(
    culvert: Start, certificates: Certificates, silent: str
) -> None:
    leaf = certificates.server
    side = "l" if silent == "client" else "r"
    quick = "".join(
        f"socket = {side}:{name}\n" for name in ("TCP_KEEPIDLE=1", "TCP_KEEPINTVL=1", "TCP_KEEPCNT=2")
    )
    services = (
        f"[s]\naccept = 127.0.0.1:0\nconnect = 127.0.0.1:7777\ncert = {leaf.cert}\nkey = {leaf.key}\n{quick}"
    )
    iptables = require("iptables")
    daemon = culvert(services, prefix=alone())

    def look() -> str:
        return inside(daemon, require("ss"), "-tnoH", "state", "established")

    with contextlib.ExitStack() as stack:
        with network_of(daemon.pid):
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 7777)))
            sock = stack.enter_context(
                socket.create_connection(("127.0.0.1", daemon.port("s")), timeout=PATIENCE)
            )
        tls = TlsPeer(sock, trusting(certificates.ca.cert), server=False)
        tls.handshake()
        listener.settimeout(PATIENCE)
        target, _ = listener.accept()
        stack.enter_context(target)
        target.settimeout(PATIENCE)
        plain = PlainPeer(target)
        for _ in range(2):  # what was not acknowledged yet would be sent again, for a quarter of an hour
            tls.send(b"alive")
            assert read_exactly(plain, 5) == b"alive"
            plain.send(b"alive")
            assert read_exactly(tls, 5) == b"alive"
        eventually(lambda: not re.search(r"timer:\(on,", look()), "that all is acknowledged")
        assert len(re.findall(r"timer:\(keepalive,", look())) == 2

        port = sock.getsockname()[1] if silent == "client" else 7777
        inside(daemon, iptables, "-A", "INPUT", "-p", "tcp", "--sport", str(port), "-j", "DROP")
        mark = daemon.log.mark()
        daemon.await_log(r"LOG3\[\S+\]: .*Connection timed out", since=mark, timeout=10)
        daemon.await_log("Connection reset: ", since=mark)
        lasting = plain if silent == "client" else tls
        with contextlib.suppress(ConnectionError):
            assert lasting.recv() == b""
