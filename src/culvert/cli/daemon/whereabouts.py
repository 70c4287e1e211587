"""How a command finds the daemon that is meant."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from culvert.address import Address, HostPort
from culvert.admin.token import checked_token, read_token
from culvert.cli.daemon.client import AdminClient
from culvert.cli.daemon.process import DaemonProcess, read_pid
from culvert.config.addresses import ADMIN
from culvert.config.excerpt import global_values
from culvert.config.values import BadValue
from culvert.errors import ConfigurationError
from culvert.jail import Place

DEFAULT_FILES = ("/etc/culvert/culvert.conf", "/etc/stunnel/stunnel.conf")
"""The first of these that is there is meant where nothing is said: the unit's own, and stunnel's."""

TOKEN_VARIABLE = "CULVERT_ADMIN_TOKEN"  # noqa: S105  its name, not a token

_WANTED = ("admin", "adminToken", "adminTokenFile", "chroot", "pid")


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command line says of the daemon."""

    file: str | None = None
    admin: str | None = None
    token_file: str | None = None
    pid_file: str | None = None


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """Where to find a daemon: by an endpoint, by a pid file, or by both. `file` is its configuration."""

    client: AdminClient | None
    pid_file: Place | None
    file: str | None

    def process(self) -> DaemonProcess | None:
        """The process that the pid file names, to be closed; None where none runs. Raises PidFileError."""
        pid = None if self.pid_file is None else read_pid(self.pid_file)
        return None if pid is None else DaemonProcess.find(pid)

    def absence(self) -> str:
        """Why there is no process, for a message. Raises PidFileError."""
        if self.pid_file is None:
            return "no pid file is known"
        pid = read_pid(self.pid_file)
        if pid is None:
            return f"there is no pid file {self.pid_file}"
        return f"the pid file {self.pid_file} is stale: process {pid} is no culvert"


def locate(asked: Asked) -> Whereabouts:
    """Find out where the daemon is. Raises ConfigurationError."""
    alone = asked.file is None and (asked.admin is not None or asked.pid_file is not None)
    file = None if alone else asked.file or _default_file()
    values = {} if file is None else global_values(file, _WANTED)
    address: Address | None = values.get("admin")
    token = None
    if asked.admin is not None:
        address = _address(asked.admin)
    if asked.token_file is not None:
        token = read_token(asked.token_file)
    elif asked.admin is None and "adminToken" in values:
        token = str(values["adminToken"]).encode()
    elif asked.admin is None and "adminTokenFile" in values:
        token = read_token(values["adminTokenFile"])
    elif address is not None and os.environ.get(TOKEN_VARIABLE):
        token = checked_token(os.environb[TOKEN_VARIABLE.encode()], f"{TOKEN_VARIABLE} in the environment")
    if asked.pid_file is not None:
        place: Place | None = Place(None, asked.pid_file)
    else:
        place = Place(values.get("chroot"), values["pid"]) if values.get("pid") else None
    if address is None and place is None:
        raise ConfigurationError.single(
            f"{file} sets neither 'admin' nor 'pid': its daemon cannot be found",
            hint="set one of them, or name --admin or --pid-file",
        )
    return Whereabouts(None if address is None else AdminClient(_reachable(address), token), place, file)


def _default_file() -> str:
    found = next((one for one in DEFAULT_FILES if Path(one).exists()), None)
    if found is None:
        raise ConfigurationError.single(
            f"Which daemon is meant is not known: there is neither {' nor '.join(DEFAULT_FILES)}",
            hint="name its configuration FILE, or --admin ADDRESS, or --pid-file FILE",
        )
    return found


def _address(text: str) -> Address:
    try:
        found: Address = ADMIN.parse(str(Path(text).absolute()) if "/" in text else text)
    except BadValue as bad:
        raise ConfigurationError.single(f"--admin takes {bad.expected or ADMIN.takes}") from None
    return found


def _reachable(address: Address) -> Address:
    """Where a client connects to for an address to listen on: an unspecified one is this machine."""
    if not isinstance(address, HostPort):
        return address
    if address.port == 0:
        raise ConfigurationError.single(
            "'admin' has port 0: only the daemon's log says which one it has", hint="name it: --admin PORT"
        )
    local = {None: "localhost", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  it is not listened on
    return HostPort(local.get(address.host, address.host), address.port)
