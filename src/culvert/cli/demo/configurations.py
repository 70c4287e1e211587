"""The configuration files of the demo: the classic set-up of a tunnel, as its manual would show it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

BY_ADDRESS = "echo-by-address"
BY_NAME = "echo-by-name"
FOREIGN = "echo-foreign"


@dataclass(frozen=True, slots=True)
class Confinement:
    """The server's jail, and whom it runs as."""

    jail: Path
    user: str
    group: str


def server_configuration(certificate: Path, echo_program: str, confinement: Confinement | None) -> str:
    """The server's end: TLS in, an echo program behind it; in a jail where that is possible.

    With a jail, `echo_program` and the pid file are paths inside it.
    """
    folder = certificate.parent
    confined = (
        f"chroot = {confinement.jail}\nsetuid = {confinement.user}\nsetgid = {confinement.group}\n"
        if confinement is not None
        else ""
    )
    pid = "/run/culvert.pid" if confinement is not None else str(folder / "culvert.pid")
    return (
        f"foreground = yes\n"
        f"syslog = no\n"
        f"debug = info\n"
        f"drainTimeout = 0\n"
        f"{confined}"
        f"pid = {pid}\n"
        f"\n"
        f"cert = {certificate}\n"
        f"ciphers = HIGH:!aNULL:!SHA1\n"
        f"options = DONT_INSERT_EMPTY_FRAGMENTS\n"
        f"\n"
        f"[echo]\n"
        f"accept = 127.0.0.1:0\n"
        f"exec = {echo_program}\n"
        f"execArgs = {Path(echo_program).name}\n"
    )


def client_configuration(authority: Path, echo_port: int, foreign_port: int) -> str:
    """The client's end: plain in, TLS out to three servers, of which each must show a good certificate."""
    targets = {
        BY_ADDRESS: f"127.0.0.1:{echo_port}",
        BY_NAME: f"localhost:{echo_port}",
        FOREIGN: f"127.0.0.1:{foreign_port}",
    }
    services = "".join(
        f"\n[{name}]\naccept = 127.0.0.1:0\nconnect = {target}\n" for name, target in targets.items()
    )
    return (
        f"foreground = yes\n"
        f"syslog = no\n"
        f"debug = info\n"
        f"drainTimeout = 0\n"
        f"\n"
        f"CAfile = {authority}\n"
        f"verify = 2\n"
        f"client = yes\n"
        f"{services}"
    )
