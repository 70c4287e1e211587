"""The connection that a launcher hands to this process: on standard input and output, or by systemd.

Pitfall: O_NONBLOCK belongs to the open file description, which others may hold too (a shell its terminal,
a launcher its socket): set here, it would break their reads and writes, also after our end. So

- a socket keeps its flags; every call on it says MSG_DONTWAIT;
- a pipe or a terminal is opened anew, by way of /proc, and the description of our own does not wait;
- where that is not permitted (it may be another user's) the flag is set, and taken back at the end;
- what no epoll watches (a file, /dev/null) is ready at any time, and an eventfd stands in for it there.

uvloop sets the flag on whatever it watches: these streams are for asyncio's own event loop.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from culvert.description import open_anew
from culvert.errors import ConfigurationError, os_reason
from culvert.resolve import InternetAddress

FIRST_PASSED = 3
"""Where the descriptors begin that systemd passes (sd_listen_fds(3))."""

_INTERNET = frozenset({socket.AF_INET, socket.AF_INET6})


class InheritedSocket(socket.socket):
    """A socket that never waits, whatever its flags say."""

    def recv(self, bufsize: int, flags: int = 0, /) -> bytes:
        return super().recv(bufsize, flags | socket.MSG_DONTWAIT)

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        return super().recv_into(buffer, nbytes, flags | socket.MSG_DONTWAIT)

    def send(self, data: Any, flags: int = 0, /) -> int:
        return super().send(data, flags | socket.MSG_DONTWAIT)


class _Descriptor:
    """Standard input or output where it is no socket. `watched` is what an event loop can wait for."""

    def __init__(self, number: int, flags: int) -> None:
        """`flags` is O_RDONLY or O_WRONLY. Raises OSError where the descriptor is not open."""
        self._restore = False
        pollable = _pollable(number)
        own = open_anew(number, flags) if pollable else None
        self._fd = os.dup(number) if own is None else own
        os.set_inheritable(self._fd, False)
        if pollable and own is None and os.get_blocking(self._fd):
            os.set_blocking(self._fd, False)
            self._restore = True
        self.watched = (
            self._fd if pollable else os.eventfd(1, os.EFD_CLOEXEC | os.EFD_NONBLOCK)  # both ready for ever
        )

    def recv_into(self, buffer: bytearray, /) -> int:
        try:
            return os.readv(self._fd, [buffer])
        except OSError as error:
            if error.errno == errno.EIO:  # a terminal that hung up
                return 0
            raise

    def send(self, data: memoryview, /) -> int:
        return os.write(self._fd, data)

    def close(self) -> None:
        """Close it, once."""
        if self._fd < 0:
            return
        if self._restore:
            os.set_blocking(self._fd, True)
        for fd in {self._fd, self.watched}:
            os.close(fd)
        self._fd = self.watched = -1


class _SocketOutput:
    """Standard output where it is a socket, and another than standard input or the only one."""

    def __init__(self, sock: InheritedSocket) -> None:
        self._socket = sock
        self.watched = sock.fileno()
        self.send = sock.send

    def close(self) -> None:
        """End what is written to it; the socket may be open elsewhere."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)
        self._socket.close()


class StandardStreams:
    """One stream of two ends: standard input is read and standard output is written.

    `output` is what an event loop waits for until it can be written.
    """

    def __init__(self, number_in: int = 0, number_out: int = 1) -> None:
        """Raises OSError where one of them is not open."""
        # The flags of a description that both ends have are for both of them.
        self._joint = _same_file(number_in, number_out)
        if _is_socket(number_in):
            self._input: InheritedSocket | _Descriptor = InheritedSocket(fileno=os.dup(number_in))
        else:
            self._input = _Descriptor(number_in, os.O_RDONLY)
        if _is_socket(number_out):
            self._output: _SocketOutput | _Descriptor = _SocketOutput(
                InheritedSocket(fileno=os.dup(number_out))
            )
        else:
            self._output = _Descriptor(number_out, os.O_WRONLY)
        self.recv_into = self._input.recv_into
        self.send = self._output.send

    @property
    def output(self) -> int:
        return self._output.watched

    def fileno(self) -> int:
        return self._input.fileno() if isinstance(self._input, InheritedSocket) else self._input.watched

    def shutdown(self, how: int, /) -> None:
        """Close the output, which is how a pipe is half closed; a terminal cannot be."""
        if not self._joint:
            self._output.close()

    def close(self) -> None:
        self._output.close()
        self._input.close()


@dataclass(frozen=True, slots=True)
class Inherited:
    """A connection that was handed over. `address` is its client's, where it came over the internet;
    `output` is the descriptor to wait for before the stream can be written. `gone` is for a client of the
    internet that has broken off: nobody can tell any more where it came from."""

    stream: InheritedSocket | StandardStreams
    address: InternetAddress | None
    output: int
    gone: bool = False


def take() -> Inherited:
    """The connection of this process: what systemd has passed, else standard input and output.

    The standard descriptors that belong to it are /dev/null afterwards, so that nothing else can be written
    into it, nor anything hold it open. Raises ConfigurationError where there is no connection.
    """
    passed = passed_by_systemd()
    for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        os.environ.pop(name, None)
    try:
        if passed:
            return _connected(FIRST_PASSED)
        if _is_socket(0) and _same_file(0, 1):
            taken = _connected(0)
        else:
            _refuse_listening(0)
            streams = StandardStreams()
            # Where one of them is a pipe, the other one's client is the client.
            address, gone = _client_of(0) or _client_of(1), _is_gone(0) or _is_gone(1)
            taken = Inherited(streams, address, streams.output, gone)
    except OSError as error:
        where = "Standard input and output" if passed is None else "The socket that systemd passed"
        raise ConfigurationError.single(
            f"{where} cannot be used as a connection: {os_reason(error)}"
        ) from None
    _let_go(numbers=(2, 1, 0) if stderr_is_taken() else (1, 0))
    return taken


def stderr_is_taken() -> bool:
    """Whether standard error leads to where the connection does; a terminal may be both."""
    try:
        return not os.isatty(2) and (_same_file(2, 0) or _same_file(2, 1))
    except OSError:
        return False


def spare_the_client() -> bool:
    """Let go of a standard error that is the client's socket, as inetd leaves it; whether it was that.

    For the time before the configuration is read: whatever is wrong with it is not for the client to know.
    """
    try:
        taken = _is_socket(0) and _same_file(0, 2)
    except OSError:
        return False
    if taken:
        _let_go((2,))
    return taken


def passed_by_systemd() -> int:
    """How many sockets a socket unit with Accept=yes has passed, from FIRST_PASSED on: 0 or 1.

    The service has no StandardInput=socket then. Raises ConfigurationError.
    """
    passed = os.environ.get("LISTEN_FDS", "") if os.environ.get("LISTEN_PID") == str(os.getpid()) else ""
    if passed not in ("", "0", "1"):
        raise ConfigurationError.single(
            f"systemd passed '{passed[:20]}' sockets; without a [service] section there is one connection",
            hint="use one socket unit, with Accept=yes",
        )
    return int(passed or 0)


def _connected(number: int) -> Inherited:
    """A socket that is read and written. Raises OSError where there is none."""
    _refuse_listening(number)
    sock = InheritedSocket(fileno=os.dup(number))
    if number >= FIRST_PASSED:
        os.close(number)
    fd = sock.fileno()
    return Inherited(sock, _client_of(fd), fd, _is_gone(fd))


def _refuse_listening(number: int) -> None:
    """Raise ConfigurationError for a socket that is not a stream, or not one connection."""
    if not _is_socket(number):
        return
    with socket.socket(fileno=os.dup(number)) as sock:
        listening = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) != 0
        if listening or sock.type != socket.SOCK_STREAM:
            kind = "listens for connections" if listening else "is not a stream"
            raise ConfigurationError.single(
                "Without a [service] section one connection is served, and the socket that was passed in "
                f"{kind}",
                hint="inetd: 'stream', 'nowait'; systemd: Accept=yes; or set 'accept' in a [service] section",
            )


def _client_of(number: int) -> InternetAddress | None:
    """Whose connection it is; None where that has no address, or is gone already."""
    if not _is_socket(number):
        return None
    with socket.socket(fileno=os.dup(number)) as sock:
        try:
            address: InternetAddress = sock.getpeername()
        except OSError:
            return None
        return address if sock.family in _INTERNET else None


def _is_gone(number: int) -> bool:
    """Whether a client of the internet has reset its connection.

    It has no address any more by which it could be judged, and what it sent before can be read all the same.
    """
    if not _is_socket(number):
        return False
    with socket.socket(fileno=os.dup(number)) as sock:
        return sock.family in _INTERNET and _client_of(number) is None


def _let_go(numbers: Sequence[int]) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    for number in numbers:
        os.dup2(null, number)  # inheritable, as a standard descriptor is
    os.close(null)


def _pollable(number: int) -> bool:
    with select.epoll() as epoll:
        try:
            epoll.register(number, 0)
        except PermissionError:  # epoll_ctl(2): a file or a device that is always ready
            return False
    return True


def _is_socket(number: int) -> bool:
    return stat.S_ISSOCK(os.fstat(number).st_mode)


def _same_file(one: int, other: int) -> bool:
    return os.path.samestat(os.fstat(one), os.fstat(other))
