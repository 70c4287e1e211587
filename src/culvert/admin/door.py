"""Where the admin endpoint listens, and what it asks of whoever comes: made before the jail closes."""

from __future__ import annotations

from dataclasses import dataclass, field

from culvert.admin.token import read_token
from culvert.config.model import AdminOptions, GlobalOptions
from culvert.listen import Binder, Bound
from culvert.resolve import SocketAddress


@dataclass(frozen=True, slots=True)
class Door:
    """The endpoint's sockets, the host that its address was written with, and its token."""

    bound: tuple[Bound, ...]
    host: str | None
    token: bytes | None = field(repr=False)

    @property
    def addresses(self) -> list[SocketAddress]:
        """What is bound, as the system says it."""
        return [one.address for one in self.bound]

    def let_go(self) -> None:
        """Listen no more in this process, and leave the addresses to the others that have the sockets."""
        for one in self.bound:
            one.sock.close()


def open_door(options: GlobalOptions, binder: Binder) -> Door | None:
    """Listen where the options say; None where they say nothing. Raises ConfigurationError."""
    admin = options.admin
    if admin is None:
        return None
    token = _token(admin, options)
    bound = binder.listen_privately(admin.address, options.locations.get("admin"), local_only=token is None)
    return Door(bound, getattr(admin.address, "host", None), token)


def _token(admin: AdminOptions, options: GlobalOptions) -> bytes | None:
    if admin.token_file is None:
        return None if admin.token is None else admin.token.encode()
    return read_token(admin.token_file, options.locations.get("adminTokenFile"))
