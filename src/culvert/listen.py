"""Listening sockets: made outside the jail, as root, and handed to every worker by inheritance.

A reload shares what is bound already, socket by socket, by the address and not by how it is written. Until
the new generation is committed a shared socket stays as it is; then `Listener.take_over` gives it the
options and the owner that the new configuration asks for.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from culvert import sockopt, transparent
from culvert.address import Address, HostPort, UnixPath, show, unwrapped
from culvert.config.model import Service, Transparent
from culvert.errors import ConfigurationError, Location, os_reason
from culvert.jail import Place
from culvert.latecomers import turn_away
from culvert.resolve import InternetAddress, SocketAddress, resolve

BACKLOG = 4096
"""Connections that may wait to be accepted; the kernel lowers it to net.core.somaxconn."""

_WILDCARDS = frozenset({"0.0.0.0", "::"})  # noqa: S104
_PRIVATE = ((socket.SOL_SOCKET, socket.SO_REUSEADDR, 1),)
_ADVICE = {
    errno.EACCES: "a port below 1024 takes root, or the capability CAP_NET_BIND_SERVICE",
    errno.EADDRINUSE: "another program listens there: 'ss -ltnp' shows which",
    errno.EADDRNOTAVAIL: "this machine has no such address: 'ip addr' shows those that it has",
}
"""What to do where the system refuses an address; one that Culvert itself has in the way says more."""
_V6ONLY = (socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)


@dataclass(frozen=True, slots=True)
class Owner:
    """To whom a Unix socket belongs; None is whoever bound it."""

    uid: int | None
    gid: int | None


@dataclass(frozen=True, slots=True)
class Refusal:
    """One address of several that could not be bound."""

    address: str
    reason: str
    errno: int


class OverlapError(OSError):
    """A socket of the running generation is in the way: its port could not be taken over.

    This process may have given up the right to do so, or somebody else is in the way as well.
    """


class SocketFile:
    """The file by which clients find a Unix socket, told from what others may put in its place."""

    def __init__(self, path: str) -> None:
        """Raises OSError where there is no socket at `path`."""
        self._place = Place(None, path)
        found = os.lstat(path)
        if not stat.S_ISSOCK(found.st_mode):
            raise FileExistsError(errno.EEXIST, "not a socket")
        self._identity = (found.st_dev, found.st_ino)
        self._bound_by = (found.st_uid, found.st_gid)

    def is_at(self, path: str) -> bool:
        """Whether `path` leads to this very file."""
        try:
            found = os.lstat(path)
        except OSError:
            return False
        return (found.st_dev, found.st_ino) == self._identity

    def give_to(self, owner: Owner) -> None:
        """Raises OSError. No link is followed: who owns the folder could put one there meanwhile."""
        uid, gid = (
            bound if wanted is None else wanted
            for wanted, bound in zip((owner.uid, owner.gid), self._bound_by, strict=True)
        )
        with self._found() as (folder, name):
            os.chown(name, uid, gid, dir_fd=folder, follow_symlinks=False)

    def remove(self) -> None:
        """Remove the file. Raises FileNotFoundError, or another OSError, where it is not there any more."""
        with self._found() as (folder, name):
            os.unlink(name, dir_fd=folder)

    @contextlib.contextmanager
    def _found(self) -> Iterator[tuple[int, str]]:
        with self._place.folder() as (folder, name):
            found = os.stat(name, dir_fd=folder, follow_symlinks=False)
            if (found.st_dev, found.st_ino) != self._identity:
                raise FileExistsError(errno.EEXIST, "something else is in its place")
            yield folder, name


class Bound:
    """One listening socket, which generations may share.

    `asked` is the address as it was wanted: with port 0, not the one that was got. `file` is a Unix
    socket's. The options in force are those of the generation that is current. One that was `passed` is the
    service manager's, which may go on holding it.
    """

    def __init__(
        self,
        sock: socket.socket,
        asked: SocketAddress,
        settings: Iterable[sockopt.Setting],
        file: SocketFile | None = None,
        *,
        passed: bool = False,
    ) -> None:
        self.sock = sock
        self.passed = passed
        self.asked = asked
        self.file = file
        self._in_force = _by_option(settings)
        self._owner = Owner(None, None)

    @property
    def address(self) -> SocketAddress:
        """What is bound, as the system says it."""
        found: SocketAddress = self.sock.getsockname()
        return found

    def serves(self, other: socket.socket, address: SocketAddress) -> bool:
        """Whether this is what `other`, a socket that is not bound yet, would become at `address`."""
        if (self.sock.family, self.sock.type) != (other.family, other.type):
            return False
        if _only_ipv6(self.sock) != _only_ipv6(other):
            return False
        if self.file is not None:
            return self.file.is_at(str(address))
        return address in (self.asked, self.address)

    def overlaps(self, other: socket.socket, address: SocketAddress) -> bool:
        """Whether `other`, bound to this address, would take connections that this one takes."""
        mine = self.address
        if isinstance(mine, str) or isinstance(address, str) or mine[1] != address[1]:
            return False
        if self.sock.type != other.type:
            return False
        if self.sock.family == other.family:
            return mine[0] == address[0] or not _WILDCARDS.isdisjoint((mine[0], address[0]))
        ipv6, host = (self.sock, mine[0]) if self.sock.family == socket.AF_INET6 else (other, address[0])
        return host == "::" and not _only_ipv6(ipv6)

    def adjust(self, settings: Iterable[sockopt.Setting]) -> None:
        """Set these options, and those in force that are not among them back. Raises OSError."""
        wanted = _by_option(settings)
        wanted.pop(_V6ONLY, None)  # as it is already, and refused once a socket is bound
        sockopt.restore(self.sock, self._in_force.keys() - wanted.keys() - {_V6ONLY})
        sockopt.apply(
            self.sock,
            [(*option, value) for option, value in wanted.items() if self._in_force.get(option) != value],
        )
        self._in_force = wanted

    def give_to(self, owner: Owner) -> None:
        """Hand a Unix socket to those who may connect to it. Raises OSError."""
        if self.file is not None and owner != self._owner:
            self.file.give_to(owner)
            self._owner = owner

    def close(self) -> None:
        """Stop listening in this process; nobody connects to the socket any more, whoever has it. A Unix
        socket's file is removed.
        """
        if self.file is not None:
            # Replaced, or out of reach behind a jail or without root: the next start removes what is stale.
            with contextlib.suppress(OSError):
                self.file.remove()
            self.file = None  # what is there from now on is somebody else's
        self.turn_away()
        self.sock.close()

    def turn_away(self) -> None:
        """Let nobody connect any more: who waits can still be accepted, and after that nobody comes."""
        if not self.passed:  # its owner goes on listening, and the next daemon on it
            turn_away(self.sock)


def _settings(service: Service, family: int) -> tuple[sockopt.Setting, ...]:
    """What is set on a listening socket.

    One that takes connections to elsewhere must be allowed to, where they reach it unchanged (TPROXY); those
    that netfilter redirected need no such right, which this process may not have.
    """
    chosen = sockopt.settings(service.socket_options, "a", family)
    if (
        Transparent.DESTINATION in service.transparent
        and family != socket.AF_UNIX
        and transparent.obstacle(family) is None
    ):
        return (*chosen, transparent.setting(family))
    return chosen


def _by_option(settings: Iterable[sockopt.Setting]) -> dict[tuple[int, int], int | bytes]:
    return {(level, number): value for level, number, value in settings}


def _only_ipv6(sock: socket.socket) -> bool:
    return sock.family == socket.AF_INET6 and sock.getsockopt(*_V6ONLY) != 0


@dataclass(frozen=True, slots=True)
class Listener:
    """What one service of a generation listens on, and the addresses that could not be had."""

    service: Service
    owner: Owner
    bound: tuple[Bound, ...]
    refusals: tuple[Refusal, ...] = ()
    datagrams: tuple[Bound, ...] = ()
    """Sockets of UDP beside those of TCP, at the same addresses, where the service takes datagrams."""

    @property
    def sockets(self) -> tuple[socket.socket, ...]:
        """The sockets themselves."""
        return tuple(bound.sock for bound in self.bound)

    def close(self) -> None:
        """Let go of all of it in this process alone."""
        for bound in (*self.bound, *self.datagrams):
            bound.sock.close()

    def take_over(self) -> list[str]:
        """Give the sockets what this service asks for; returns what could not be done, a sentence each.

        To be called when the generation is committed: they may have been another's until then.
        """
        failures = []
        for bound in self.bound:
            try:
                bound.adjust(_settings(self.service, bound.sock.family))
                bound.give_to(self.owner)
            except OSError as error:
                failures.append(
                    f"Service [{self.service.name}] at {show(bound.address)} keeps options or the owner of "
                    f"before: {os_reason(error)} ({error.errno})"
                )
        return failures


class Binder:
    """Makes the listeners of one generation, and shares what the running one has bound already."""

    def __init__(self, running: Iterable[Bound] = ()) -> None:
        self._rivals = [bound for bound in running if not bound.passed]
        """Of the running generation, and not of this one: their ports may be taken over."""
        self._shareable = list(self._rivals)
        self._shared: list[Bound] = []
        self._fresh: list[Bound] = []

    def listen(self, service: Service, owner: Owner) -> Listener:
        """Listen on the service's `accept`. Raises ConfigurationError where no address could be had."""
        if isinstance(service.accept, UnixPath):
            return self._listen_unix(service, service.accept.path, owner)
        if isinstance(service.accept, HostPort):
            return self.accompany(self._listen_internet(service, service.accept, owner))
        raise TypeError(f"service {service.name} has no accept")

    def listen_privately(
        self, address: Address, where: Location | None, *, local_only: bool
    ) -> tuple[Bound, ...]:
        """Listen for the admin endpoint. Nobody but this process's user may connect to a Unix socket; an
        internet address must be this machine's own where it is `local_only`. Raises ConfigurationError.
        """
        try:
            if isinstance(address, UnixPath):
                return (self._obtain_private(address.path),)
            return self._obtain_each(address, local_only=local_only)
        except OSError as error:
            raise ConfigurationError.single(
                f"Cannot listen on the admin address {address}: {os_reason(error)} ({error.errno})", where
            ) from None

    def _obtain_private(self, path: str) -> Bound:
        mask = os.umask(0o177)  # from its first moment on
        try:
            bound = self._obtain(socket.AF_UNIX, path, ())
        finally:
            os.umask(mask)
        if stat.S_IMODE(os.lstat(path).st_mode) & 0o177:
            raise OSError(errno.EADDRINUSE, "it is a service's")
        return bound

    def _obtain_each(self, address: HostPort, *, local_only: bool) -> tuple[Bound, ...]:
        found: list[Bound] = []
        failure: OSError | None = None
        for family, (host, port, *rest) in resolve(address.host or "localhost", address.port, passive=True):
            if local_only and not unwrapped(host).is_loopback:
                raise OSError(errno.EACCES, "not loopback")
            chosen = found[0].sock.getsockname()[1] if found and port == 0 else port
            settings = _PRIVATE if family == socket.AF_INET else (*_PRIVATE, (*_V6ONLY, 1))
            try:
                found.append(self._obtain(family, (host, chosen, *rest), settings))
            except OSError as error:  # a machine may have no ::1
                failure = error
        if not found:
            raise failure or OSError(errno.EADDRNOTAVAIL, "no address")
        return tuple(found)

    def accompany(self, listener: Listener) -> Listener:
        """Listen for datagrams at the same addresses, where the service takes them.

        Raises ConfigurationError.
        """
        service = listener.service
        if service.vpn is None or not service.vpn.datagrams:
            return listener
        found = []
        for bound in listener.bound:
            settings = ((*_V6ONLY, 1),) if _only_ipv6(bound.sock) else ()
            try:
                found.append(self._obtain(bound.sock.family, bound.address, settings, socket.SOCK_DGRAM))
            except OSError as error:
                raise ConfigurationError.single(
                    f"Binding service [{service.name}] to {show(bound.address)} for UDP failed: "
                    f"{_reason(error)} ({error.errno})",
                    service.where("accept"),
                    service.name,
                ) from None
        return replace(listener, datagrams=tuple(found))

    def undo(self) -> None:
        """Close what was made here: the generation failed. What is shared stays."""
        for bound in self._fresh:
            bound.close()

    def _listen_internet(self, service: Service, address: HostPort, owner: Owner) -> Listener:
        found: list[Bound] = []
        refusals: list[Refusal] = []
        for family, (host, port, *rest) in _addresses(service, address):
            # Where the kernel chose the port for the first address, the others follow it.
            chosen = found[0].sock.getsockname()[1] if found and port == 0 else port
            sockaddr = (host, chosen, *rest)
            settings = _settings(service, family)
            if found and family == socket.AF_INET6:
                settings = ((*_V6ONLY, 1), *settings)
            try:
                found.append(self._obtain(family, sockaddr, settings))
            except OSError as error:
                refusals.append(Refusal(show(sockaddr), _reason(error), error.errno or 0))
        if not found:
            raise ConfigurationError.single(
                f"Binding service [{service.name}] failed: "
                + "; ".join(f"{one.address}: {one.reason} ({one.errno})" for one in refusals),
                service.where("accept"),
                service.name,
                _advice(refusals),
            )
        return Listener(service, owner, tuple(found), tuple(refusals))

    def _listen_unix(self, service: Service, path: str, owner: Owner) -> Listener:
        try:
            bound = self._obtain(socket.AF_UNIX, path, _settings(service, socket.AF_UNIX))
        except OSError as error:
            raise ConfigurationError.single(
                f"Binding service [{service.name}] to {path} failed: {os_reason(error)} ({error.errno})",
                service.where("accept"),
                service.name,
            ) from None
        if bound in self._fresh:
            try:
                bound.give_to(owner)
            except OSError as error:
                raise ConfigurationError.single(
                    f"Cannot give {path} to its owner: {os_reason(error)}",
                    service.where("setuid", "setgid"),
                    service.name,
                ) from None
        return Listener(service, owner, (bound,))

    def _obtain(
        self,
        family: int,
        address: SocketAddress,
        settings: Sequence[sockopt.Setting],
        kind: int = socket.SOCK_STREAM,
    ) -> Bound:
        """A listening socket at this address, shared or new. Raises OSError, also for options that fail."""
        sock = socket.socket(family, kind)
        try:
            sock.setblocking(False)
            sockopt.apply(sock, settings)
            for bound in self._shareable:
                if bound.serves(sock, address):
                    self._share(bound)
                    sock.close()
                    return bound
            self._bind(sock, address)
            fresh = Bound(sock, address, settings, SocketFile(address) if isinstance(address, str) else None)
        except BaseException:
            sock.close()
            raise
        self._fresh.append(fresh)
        return fresh

    def _share(self, bound: Bound) -> None:
        self._shareable.remove(bound)
        self._rivals.remove(bound)
        self._shared.append(bound)

    def _bind(self, sock: socket.socket, address: SocketAddress) -> None:
        if isinstance(address, str):
            _remove_stale(address)
        overlapping = [bound for bound in self._rivals if bound.overlaps(sock, address)]
        if any(bound.overlaps(sock, address) for bound in (*self._shared, *self._fresh)):
            overlapping = []  # the system is to refuse what two services of one configuration want
        try:
            with _sharing_their_port([sock, *(bound.sock for bound in overlapping)] if overlapping else []):
                sock.bind(address)
                if sock.type == socket.SOCK_STREAM:
                    sock.listen(BACKLOG)
        except OSError as error:
            if overlapping and error.errno == errno.EADDRINUSE:
                raise OverlapError(*error.args) from None
            raise
        self._shareable = [bound for bound in self._shareable if bound not in overlapping]


@contextlib.contextmanager
def _sharing_their_port(sockets: Sequence[socket.socket]) -> Iterator[None]:
    """Let one of these be bound beside the others, which are about to be closed, so that no moment is lost.

    Only for as long as it takes: another daemon that wants the port is to be told that it is in use. (Linux
    remembers, until the last of them is closed, that it was shared by this user's processes. One of them
    that asks for SO_REUSEPORT by itself, which no Culvert does at a start, could still join.)
    """
    before = [(sock, sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)) for sock in sockets]
    try:
        for sock in sockets:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        yield
    finally:
        for sock, value in before:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, value)


def _reason(error: OSError) -> str:
    """Why an address could not be had."""
    if isinstance(error, OverlapError):
        return (
            f"{os_reason(error)}, it overlaps with what the running configuration accepts on: restart for it"
        )
    return os_reason(error)


def _advice(refusals: Iterable[Refusal]) -> str | None:
    """What to do where an address could not be had."""
    reasons = {refusal.reason for refusal in refusals}
    return next((advice for number, advice in _ADVICE.items() if os.strerror(number) in reasons), None)


def _addresses(service: Service, address: HostPort) -> Iterator[tuple[int, InternetAddress]]:
    # A port alone means every IPv4 address, and every IPv6 address besides.
    hosts = [address.host] if address.host is not None else ["0.0.0.0", "::"]  # noqa: S104
    for host in hosts:
        try:
            yield from resolve(host, address.port, passive=True)
        except OSError as error:
            raise ConfigurationError.single(
                f"Cannot resolve the address {address}: {os_reason(error)}",
                service.where("accept"),
                service.name,
            ) from None


def _remove_stale(path: str) -> None:
    """Remove a socket that nobody listens on any more. Raises OSError where somebody does."""
    try:
        file = SocketFile(path)
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            file.remove()
            return
        except BlockingIOError:
            pass  # somebody listens, and has a full queue
    raise OSError(errno.EADDRINUSE, "in use")
