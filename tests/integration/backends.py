"""Backends that can die and come back, by a refusal or by silence, in a network namespace of their own."""

from __future__ import annotations

import itertools
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from types import TracebackType

import pytest

from .harness import PATIENCE, require

_GREETER = """
import socket, sys
with socket.create_server(("", int(sys.argv[1])), backlog=256) as listening:
    print(listening.getsockname()[1], flush=True)
    while True:
        accepted, _ = listening.accept()
        with accepted:
            try:
                accepted.sendall(str(listening.getsockname()[1]).encode())
            except OSError:
                continue
"""
"""Says its own port to everybody."""

_numbers = itertools.count()


class Backend:
    """A process that greets by its port; `kill` and `start` it, `silence` it and let it `speak`."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self.port = 0
        self.start()

    def start(self) -> None:
        """Listen, on the same port as before."""
        self._process = subprocess.Popen(
            self._place.within(sys.executable, "-c", _GREETER, str(self.port)),
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the backend did not start"
        self.port = int(line)

    def kill(self) -> None:
        """Die: who connects is refused from now on."""
        self._process.kill()
        self._process.wait(PATIENCE)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def silence(self) -> None:
        """Have all that comes to the port dropped: who connects hears nothing from now on."""
        self._place.drop("-I", self.port)

    def speak(self) -> None:
        """End the silence."""
        self._place.drop("-D", self.port)

    @property
    def address(self) -> str:
        """Where it is, as the log writes it."""
        return f"{self._place.host}:{self.port}"


class Place:
    """A network namespace behind a pair of virtual links; `host` is its address."""

    def __init__(self) -> None:
        number = os.getpid() * 4 + next(_numbers)
        self.name = f"cv{number}"
        # 198.18.0.0/15 is for tests of network devices (RFC 2544, C.2.2).
        network = f"198.{18 + number // 65536 % 2}.{number // 256 % 256}"
        low = number % 64 * 4
        self._near, self.host = f"{network}.{low + 1}", f"{network}.{low + 2}"
        self._stack = ExitStack()
        self._backends: list[Backend] = []

    def backend(self) -> Backend:
        """A new backend in here."""
        self._backends.append(Backend(self))
        return self._backends[-1]

    def within(self, *command: str) -> list[str]:
        """A command as it is run in here."""
        return ["ip", "netns", "exec", self.name, *command]

    def drop(self, how: str, port: int) -> None:
        """Add (`-I`) or delete (`-D`) the rule that drops what comes to a port."""
        rule = ("INPUT", "-p", "tcp", "--dport", str(port), "-j", "DROP")
        _run(self.within(require("iptables"), how, *rule))

    def __enter__(self) -> Place:
        require("ip")
        require("iptables")
        if subprocess.run(["ip", "netns", "add", self.name], capture_output=True, check=False).returncode:
            pytest.skip("a network namespace cannot be made here")
        self._stack.callback(_run, ["ip", "netns", "del", self.name])
        try:
            near, far = f"{self.name}a", f"{self.name}b"
            _run(["ip", "link", "add", near, "type", "veth", "peer", "name", far, "netns", self.name])
            self._stack.callback(_run, ["ip", "link", "del", near])
            _run(["ip", "addr", "add", f"{self._near}/30", "dev", near])
            _run(["ip", "link", "set", near, "up"])
            _run(["ip", "-n", self.name, "addr", "add", f"{self.host}/30", "dev", far])
            _run(["ip", "-n", self.name, "link", "set", far, "up"])
            with socket.socket() as probe:  # until the link is up, this fails
                probe.settimeout(PATIENCE)
                assert probe.connect_ex((self.host, 1)) != 0
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for backend in self._backends:
            backend.kill()
        self._stack.close()


def _run(command: Sequence[str]) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=PATIENCE)
