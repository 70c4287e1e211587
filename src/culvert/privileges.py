"""The daemon's standing in the system: its terminal, its pid file, its jail and its identity.

The order of a start is `restore_defaults` before anything is opened, `daemonize` and
`PidFile.create` once the configuration is known to be good, and `drop` in each worker. Names of users and
groups are looked up by `resolve` before the jail closes, for `/etc/passwd` is not in it.
"""

from __future__ import annotations

import contextlib
import enum
import grp
import os
import pwd
import resource
import signal
import stat
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from culvert import capabilities
from culvert.errors import ConfigurationError, Location, os_reason
from culvert.jail import Place

PID_FILE_MODE = 0o644
DAEMON_UMASK = 0o022
"""What exec'd programs inherit: their files are readable to all and writable to their owner, as is usual."""

REPORT_LIMIT = 4096
"""Longest report of a start in bytes: what a pipe takes in one write (PIPE_BUF), so it needs no framing."""

_UNCHANGED_ID = 2**32 - 1
"""setresuid(2) and setresgid(2) take this number as "leave it as it is": it must never pass for an id."""


class ExitStatus(enum.IntEnum):
    """How the daemon, or one worker, ended.

    OK: it was told to. CONFIGURATION: the operator's fault, found by the command line, by the supervisor (the
    pid file) or by a worker (the jail). FAILED_START: the workers did not get ready for another reason (2 is
    the command line's, for wrong usage). CUT_SHORT: it was told to, and connections were ended that had not
    finished within `drainTimeout`, or by a second signal. CRASH: a fault of culvert's own (EX_SOFTWARE of
    sysexits(3)).
    """

    OK = 0
    CONFIGURATION = 1
    FAILED_START = 3
    CUT_SHORT = 4
    CRASH = 70


def restore_defaults(passed: int = 0) -> None:
    """Undo what a launcher may have left to this process: closed and open descriptors, ignored children,
    core dumps, which would hold keys. The first `passed` descriptors above 2 stay: they are meant for us.

    With SIGCHLD ignored, which exec hands on, the kernel reaps children by itself and waiting for one fails.
    """
    fill_standard_descriptors()
    close_inherited_descriptors(passed)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _, highest = resource.getrlimit(resource.RLIMIT_CORE)  # a program that is run may raise its own again
    resource.setrlimit(resource.RLIMIT_CORE, (0, highest))


def close_inherited_descriptors(passed: int = 0) -> None:
    """Close all above 2, but for the first `passed` of them.

    A folder that the caller left open would lead out of the jail, a file could be read in it, and a pipe
    would keep whoever reads it waiting for as long as the daemon lives.
    """
    first = 3 + passed
    for fd in _possible_descriptors():
        if fd >= first:
            os.closerange(fd, fd + 1)  # unlike os.close, takes what is closed already


def _possible_descriptors() -> Iterable[int]:
    """Those that are open; without /proc all up to the limit, which may be a thousand million."""
    try:
        return map(int, os.listdir("/proc/self/fd"))  # noqa: PTH208 - numbers, not paths
    except FileNotFoundError:
        return range(resource.getrlimit(resource.RLIMIT_NOFILE)[0])


def fill_standard_descriptors() -> None:
    """Open /dev/null on each of the descriptors 0, 1 and 2 that this process was started without.

    Call it before anything is opened. Otherwise a listening socket could become descriptor 1, and be lost
    when `daemonize` lets go of the terminal or a program is given its own standard output.
    """
    null = os.open(os.devnull, os.O_RDWR)
    while null <= 2:
        os.set_inheritable(null, True)
        null = os.open(os.devnull, os.O_RDWR)
    os.close(null)


class StartReport:
    """The daemon's end of the pipe on which the process that the user called waits."""

    def __init__(self, fd: int) -> None:
        self._fd: int | None = fd

    @property
    def awaited(self) -> bool:
        """Whether a process still waits for it."""
        return self._fd is not None

    def send(self, status: int, reason: str = "") -> None:
        """Let the waiting process write `reason` on its standard error and exit with `status`; once only.

        With OK, the reason may be the daemon's pid, which that process introduces.
        """
        if self._fd is None:
            return
        # Nobody may be waiting any more (Ctrl-C): the daemon goes on all the same.
        with contextlib.suppress(BrokenPipeError):
            os.write(self._fd, bytes([status]) + reason.encode("utf-8", "replace")[: REPORT_LIMIT - 1])
        self.close()

    def close(self) -> None:
        """Let go of the pipe: in a worker, which has nothing to report."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def working_directory() -> Path | None:
    """The directory that relative paths of the configuration start at; None where it is gone."""
    try:
        return Path.cwd()
    except FileNotFoundError:
        return None


@contextlib.contextmanager
def back_in(directory: Path | None) -> Iterator[None]:
    """Be in the directory of the start again, for as long as a configuration is read.

    Where it cannot be entered (it is gone, or out of reach behind a jail) nothing changes. It is kept by
    name, for an open descriptor would lead a worker out of its jail.
    """
    with contextlib.ExitStack() as stack:
        if directory is not None:
            with contextlib.suppress(OSError):
                stack.enter_context(contextlib.chdir(directory))
        yield


def daemonize(silent_status: int, introduce: Callable[[int], None] | None = None) -> StartReport:
    """Go on as a daemon: a session of its own, no terminal, `/` as the directory, /dev/null on 0, 1 and 2.

    Only the daemon returns. The process that called waits for its report and exits with the status in it,
    or with `silent_status` when the daemon ends without a word. Before it exits because all is well, it calls
    `introduce` with the daemon's pid. Every open descriptor above 2 stays open.
    Paths that are still to be used must be absolute by now. Raises OSError when there can be no process.
    """
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()  # what is buffered would be written by both processes
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends the wait for the daemon, without a traceback
    reader, writer = os.pipe()
    child = os.fork()
    if child:
        os.close(writer)
        _await_report(reader, child, silent_status, introduce)
    os.close(reader)
    os.setsid()
    if os.fork():  # a session's leader could acquire a terminal again: its child cannot
        os._exit(0)
    os.chdir("/")
    os.umask(DAEMON_UMASK)
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)  # inheritable, unlike what os.open returns
    os.close(null)
    return StartReport(writer)


def _await_report(
    reader: int, child: int, silent_status: int, introduce: Callable[[int], None] | None
) -> NoReturn:
    """Wait for the daemon's report and exit as it says, without running anything that the daemon will run."""
    os.waitpid(child, 0)
    report = os.read(reader, REPORT_LIMIT)
    status, reason = silent_status, "The daemon ended before it was ready"
    if report:
        status, reason = report[0], report[1:].decode("utf-8", "replace")
    if status == ExitStatus.OK and reason.isdigit():
        if introduce is not None:
            introduce(int(reason))
        reason = ""
    with contextlib.suppress(OSError):  # a closed terminal: the status says it too
        for line in reason.splitlines():
            os.write(2, f"[!] {line}\n".encode())
    os._exit(status)


class PidFile:
    """The file that holds the daemon's pid, from `create` to `remove`."""

    def __init__(self, place: Place, location: Location | None = None) -> None:
        self.place = place
        self._location = location
        self._pid: int | None = None

    def create(self) -> None:
        """Write this process's pid. A file or symbolic link in its place is replaced, never written through.

        A reader finds the old file or the whole new one. Raises ConfigurationError.
        """
        pid = os.getpid()
        try:
            with self.place.folder() as (folder, name):
                _check_replaceable(folder, name)
                _write_whole(folder, name, f".{name}.{pid}", b"%d\n" % pid)
        except OSError as error:
            raise ConfigurationError.single(
                f"Cannot create the pid file {self.place}: {os_reason(error)}",
                self._location,
                hint="its directory must exist and be writable, inside 'chroot' where that is set",
            ) from None
        self._pid = pid

    def enter_jail(self) -> None:
        """Find the file from now on where it is for a process inside the jail."""
        self.place = self.place.in_jail()

    def remove(self) -> None:
        """Remove the file if this process wrote it and it still holds this process's pid. Raises OSError."""
        if self._pid != os.getpid():
            return
        with contextlib.suppress(FileNotFoundError), self.place.folder() as (folder, name):
            if _holds(folder, name, b"%d\n" % self._pid):
                os.unlink(name, dir_fd=folder)


def _check_replaceable(folder: int, name: str) -> None:
    """Refuse to replace a device, a socket or a directory: `pid = /dev/null` must not cost us that."""
    with contextlib.suppress(FileNotFoundError):
        mode = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode)):
            raise FileExistsError("something that is not a file is in its place")


def _write_whole(folder: int, name: str, temporary: str, content: bytes) -> None:
    """Write a file beside and put it in place by its name. Raises OSError and leaves nothing beside then."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary, dir_fd=folder)
    # O_EXCL: neither a file nor a link that somebody else put there is written to.
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, PID_FILE_MODE, dir_fd=folder)
    try:
        with os.fdopen(fd, "wb") as file:
            os.fchmod(fd, PID_FILE_MODE)  # whatever the umask is
            file.write(content)
        os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(temporary, dir_fd=folder)
        raise


def _holds(folder: int, name: str, content: bytes) -> bool:
    """Whether this is a file, not a link to one, with exactly this content."""
    if not stat.S_ISREG(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
        return False
    fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    with os.fdopen(fd, "rb") as file:
        return file.read(len(content) + 1) == content


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a worker is once root is gone: `groups` are all its supplementary groups."""

    uid: int
    gid: int
    groups: tuple[int, ...]


def resolve(
    setuid: str | int | None,
    setgid: str | int | None,
    setuid_at: Location | None = None,
    setgid_at: Location | None = None,
) -> Identity | None:
    """The identity that `setuid` and `setgid` ask for; None where neither is set.

    `setuid` alone takes the user's own group along: stunnel leaves the group of root in force, and with it
    the files that root's group may read. A user gets all groups that the system gives it (initgroups(3));
    `setgid` alone leaves that group and no other. Raises ConfigurationError for a name that does not exist,
    for a number without a known group, and where this process may not change its identity.
    """
    gid = None if setgid is None else find_group(setgid, setgid_at)
    if setuid is not None:
        identity = user_identity(setuid, gid, setuid_at)
    elif gid is not None:
        identity = Identity(os.geteuid(), gid, (gid,))
    else:
        return None
    if os.geteuid() != 0 and (identity.uid, identity.gid) != (os.geteuid(), os.getegid()):
        raise ConfigurationError.single(
            f"Only root can change user or group, and this process runs as user {os.geteuid()}",
            setuid_at or setgid_at,
            hint="start it as root, or leave out 'setuid' and 'setgid'",
        )
    return identity


def user_identity(user: str | int, gid: int | None, location: Location | None) -> Identity:
    """The identity of a user, with this group or else with its own. Raises ConfigurationError for a name that
    does not exist, and for a number without a known group.
    """
    uid = find_user(user, location)
    try:
        entry = pwd.getpwuid(uid) if isinstance(user, int) else pwd.getpwnam(user)
    except KeyError:
        if gid is None:
            raise ConfigurationError.single(
                f"User {uid} is unknown to this system, so its group is unknown too",
                location,
                hint="set 'setgid' as well",
            ) from None
        return Identity(uid, gid, (gid,))
    gid = entry.pw_gid if gid is None else gid
    return Identity(uid, gid, tuple(os.getgrouplist(entry.pw_name, gid)))


def find_user(user: str | int, location: Location | None = None) -> int:
    """The number of a user given by name or number. Raises ConfigurationError."""
    if isinstance(user, int):
        return _checked_id("User", user, location)
    try:
        return pwd.getpwnam(user).pw_uid
    except (KeyError, ValueError):
        raise ConfigurationError.single(f"There is no user '{user}' on this system", location) from None


def find_group(group: str | int, location: Location | None = None) -> int:
    """The number of a group given by name or number. Raises ConfigurationError."""
    if isinstance(group, int):
        return _checked_id("Group", group, location)
    try:
        return grp.getgrnam(group).gr_gid
    except (KeyError, ValueError):
        raise ConfigurationError.single(f"There is no group '{group}' on this system", location) from None


def _checked_id(kind: str, number: int, location: Location | None) -> int:
    if not 0 <= number < _UNCHANGED_ID:
        raise ConfigurationError.single(
            f"{kind} {number} is out of range, expected 0 to {_UNCHANGED_ID - 1}", location
        )
    return number


def drop(chroot: str | None, identity: Identity | None, keep: frozenset[int] = frozenset()) -> None:
    """Close the jail and become `identity`, for good, with nothing of root's powers but `keep`: the numbers
    of capabilities, of which programs that are run get none.

    Raises ConfigurationError where the system does not let us, RuntimeError where root is not given up as
    asked: the process must then end at once.
    """
    if chroot is not None:
        try:
            os.chroot(chroot)
            os.chdir("/")
        except OSError as error:
            raise ConfigurationError.single(
                f"Cannot enter the chroot directory {chroot}: {error.strerror}"
            ) from None
    if identity is not None:
        try:
            _become(identity, keep)
        except OSError as error:
            raise ConfigurationError.single(
                f"Cannot become user {identity.uid} and group {identity.gid}: {error.strerror}",
                hint="it takes root with the capabilities to set user and groups",
            ) from None


def _become(identity: Identity, keep: frozenset[int]) -> None:
    """Groups first: without root they can no longer be changed."""
    keeping = bool(keep) and os.geteuid() == 0 and identity.uid != 0
    if os.geteuid() == 0:
        os.setgroups(identity.groups)
    os.setresgid(identity.gid, identity.gid, identity.gid)
    if keeping:
        capabilities.empty_bounding_set()
        capabilities.keep_over_setuid(wanted=True)
    os.setresuid(identity.uid, identity.uid, identity.uid)
    if keeping:
        capabilities.keep_only(keep)
        capabilities.keep_over_setuid(wanted=False)
        if capabilities.permitted() != sum(1 << number for number in keep):
            raise RuntimeError(
                f"the capabilities are {capabilities.permitted():#x} and not {set(keep)} alone"
            )
    if os.getresuid() != (identity.uid,) * 3 or os.getresgid() != (identity.gid,) * 3:
        raise RuntimeError(f"identity is {os.getresuid()}, {os.getresgid()} after the change to {identity}")
    if identity.uid == 0:
        return
    try:
        os.setuid(0)
    except PermissionError:
        return
    raise RuntimeError(f"root could be regained after the change to {identity}")
