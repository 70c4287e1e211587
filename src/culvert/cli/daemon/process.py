"""The process behind a pid file, held by a descriptor: a number alone may be another process's by now."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
from pathlib import Path
from types import TracebackType
from typing import Self

from culvert.cli.daemon.errors import PidFileError
from culvert.errors import os_reason
from culvert.idents import MEMORY_NAME
from culvert.jail import Place

_SIZE_LIMIT = 64
"""Bytes of a pid file: a number and a line's end."""

_NOBODY = frozenset({errno.ESRCH, errno.EINVAL, errno.ENOENT})
"""No process, or the number of a thread (pidfd_open(2))."""

_NAMES = frozenset({"culvert", "stunnel", "stunnel4"})


class DaemonProcess:
    """A living process that is a culvert's supervisor or only process."""

    def __init__(self, pid: int, fd: int) -> None:
        self.pid = pid
        self._fd = fd

    @classmethod
    def find(cls, pid: int) -> Self | None:
        """The process of this number; None where there is none, or it is no culvert. Raises PidFileError.

        What is looked up by the number is true of the process, if that still lives afterwards.
        """
        try:
            fd = os.pidfd_open(pid)
        except OSError as error:
            if error.errno in _NOBODY:
                return None
            raise PidFileError(f"Cannot look at process {pid}: {os_reason(error)}") from None
        with contextlib.ExitStack() as stack:
            found = cls(pid, fd)
            stack.enter_context(found)
            seen, it_is = Path(f"/proc/{pid}").exists(), _runs_a_daemon(pid)
            if found.wait(0):
                return None
            if not seen:
                raise PidFileError(f"Cannot look at process {pid}: /proc does not show it")
            if not it_is:
                return None
            stack.pop_all()
            return found

    def send(self, number: signal.Signals) -> bool:
        """Send a signal; False where the process has ended. Raises PidFileError."""
        try:
            signal.pidfd_send_signal(self._fd, number)
        except ProcessLookupError:
            return False
        except OSError as error:
            raise PidFileError(
                f"Cannot send {number.name} to process {self.pid}: {os_reason(error)}"
            ) from None
        return True

    def took(self, number: signal.Signals) -> bool:
        """Whether a signal does not wait any more to be taken: two that wait would be one."""
        try:
            status = Path(f"/proc/{self.pid}/status").read_text(errors="replace")
        except OSError:
            return True
        waiting = [int(line.split()[1], 16) for line in status.splitlines() if line.startswith("ShdPnd:")]
        return not any(mask >> (number - 1) & 1 for mask in waiting)

    def wait(self, seconds: float) -> bool:
        """Whether it ends within this time."""
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        return bool(poll.poll(seconds * 1000))

    def close(self) -> None:
        os.close(self._fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_pid(place: Place) -> int | None:
    """The number in a pid file; None where there is no file. Raises PidFileError."""
    try:
        fd = place.open(os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(fd, "rb") as file:
            content = file.read(_SIZE_LIMIT + 1) or b""
    except FileNotFoundError:
        return None
    except OSError as error:
        raise PidFileError(f"Cannot read the pid file {place}: {os_reason(error)}") from None
    text = content.strip()
    if not text.isdigit() or len(content) > _SIZE_LIMIT or not 0 < int(text) < 2**31:
        raise PidFileError(f"{place} holds no process's number")
    return int(text)


def _runs_a_daemon(pid: int) -> bool:
    """Whether this process is a culvert's first: a worker holds what its supervisor does."""
    held = _holds_daemon_memory(pid)
    if held is None:
        return _is_called_so(pid)
    return held and not _holds_daemon_memory(_parent(pid))


def _holds_daemon_memory(pid: int) -> bool | None:
    """Whether it holds what all processes of a daemon share; None where we may not see that."""
    try:
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # closed since
                if MEMORY_NAME in os.fspath(link.readlink()):
                    return True
    except PermissionError:
        return None
    except OSError:
        return False
    return False


def _is_called_so(pid: int) -> bool:
    """Whether it was started as culvert, or under stunnel's name: by a script, or by python -m."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return any(Path(os.fsdecode(word)).name in _NAMES for word in words[:4])


def _parent(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text(errors="replace")
    except OSError:
        return 0
    numbers = [line.split()[1] for line in status.splitlines() if line.startswith("PPid:")]
    return int(numbers[0]) if numbers else 0
