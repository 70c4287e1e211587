"""Pid file, daemon, identities and the jail, each in real processes."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pwd
import resource
import select
import signal
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from culvert import privileges
from culvert.errors import ConfigurationError, Location
from culvert.privileges import Identity, PidFile

PATIENCE = 20.0
LINE = Location("stunnel.conf", 3, "the line")
NOBODY = pwd.getpwnam("nobody")

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give up root")


def in_child(body: Callable[[], None]) -> tuple[int, str]:
    """Run `body` in a forked process: its exit status (0 unless it raised) and what was raised."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            body()
            status = 0
        except BaseException as error:
            os.write(writer, f"{type(error).__name__}: {error}".encode())
        finally:
            os._exit(status)
    os.close(writer)
    said = read_to_end(reader)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), said


def read_to_end(fd: int) -> str:
    """All that comes until no process holds the other end."""
    deadline = time.monotonic() + PATIENCE
    parts = []
    while True:
        assert select.select([fd], [], [], max(0.0, deadline - time.monotonic()))[0], "a process goes on"
        part = os.read(fd, 4096)
        if not part:
            os.close(fd)
            return b"".join(parts).decode()
        parts.append(part)


class TestPidFile:
    def test_holds_the_pid_for_all_to_read_until_it_is_removed(self, tmp_path: Path) -> None:
        file = PidFile(tmp_path / "pid")
        before = os.umask(0o077)
        try:
            file.create()
        finally:
            os.umask(before)
        assert file.path.read_text() == f"{os.getpid()}\n"
        assert stat.S_IMODE(file.path.stat().st_mode) == 0o644
        assert list(tmp_path.iterdir()) == [file.path]
        file.remove()
        assert not any(tmp_path.iterdir())
        file.remove()

    def test_replaces_what_an_earlier_process_left(self, tmp_path: Path) -> None:
        file = PidFile(tmp_path / "pid")
        file.path.write_text("12345\nand more\n")
        file.create()
        assert file.path.read_text() == f"{os.getpid()}\n"

    def test_is_never_seen_empty_or_in_part(self, tmp_path: Path) -> None:
        file = PidFile(tmp_path / "pid")
        file.path.write_text("12345\n")
        with file.path.open() as held:
            file.create()
            assert held.read() == "12345\n"

    def test_does_not_follow_a_symbolic_link(self, tmp_path: Path) -> None:
        target = tmp_path / "passwd"
        target.write_text("root\n")
        file = PidFile(tmp_path / "pid")
        file.path.symlink_to(target)
        file.create()
        assert target.read_text() == "root\n"
        assert not file.path.is_symlink()

    def test_survives_a_temporary_file_that_a_crash_left(self, tmp_path: Path) -> None:
        file = PidFile(tmp_path / "pid")
        (tmp_path / f".pid.{os.getpid()}").write_text("left")
        file.create()
        assert list(tmp_path.iterdir()) == [file.path]

    def test_is_not_removed_by_a_child(self, tmp_path: Path) -> None:
        file = PidFile(tmp_path / "pid")
        file.create()
        assert in_child(file.remove) == (0, "")
        assert file.path.exists()

    @pytest.mark.parametrize("content", ["12345\n", f"{os.getpid()}0\n", f"{os.getpid()}\n\n", ""])
    def test_is_not_removed_once_it_holds_something_else(self, tmp_path: Path, content: str) -> None:
        file = PidFile(tmp_path / "pid")
        file.create()
        file.path.write_text(content)
        file.remove()
        assert file.path.read_text() == content

    def test_is_not_removed_once_a_link_is_in_its_place(self, tmp_path: Path) -> None:
        file = PidFile(tmp_path / "pid")
        file.create()
        file.path.rename(tmp_path / "moved")
        file.path.symlink_to(tmp_path / "moved")
        file.remove()
        assert file.path.is_symlink()

    def test_that_was_not_written_removes_nothing(self, tmp_path: Path) -> None:
        file = PidFile(tmp_path / "pid")
        file.path.write_text(f"{os.getpid()}\n")
        file.remove()
        assert file.path.exists()

    @pytest.mark.parametrize(
        ("path", "reason"),
        [
            ("none/pid", "No such file or directory"),
            ("file/pid", "Not a directory"),
            ("folder", "something that is not a file is in its place"),
            ("fifo", "something that is not a file is in its place"),
        ],
    )
    def test_that_cannot_be_written_is_told_with_path_reason_and_line(
        self, tmp_path: Path, path: str, reason: str
    ) -> None:
        (tmp_path / "file").touch()
        (tmp_path / "folder").mkdir()
        os.mkfifo(tmp_path / "fifo")
        before = sorted(tmp_path.iterdir())
        with pytest.raises(ConfigurationError) as failure:
            PidFile(tmp_path / path, LINE).create()
        (finding,) = failure.value.diagnostics
        assert finding.message == f"Cannot create the pid file {tmp_path / path}: {reason}"
        assert finding.location == LINE
        assert sorted(tmp_path.iterdir()) == before


class TestDaemonize:
    def launch(self, daemon: Callable[[privileges.StartReport], None]) -> int:
        """The exit status of a process that becomes `daemon`, after all of its descendants have ended."""
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                daemon(privileges.daemonize(silent_status=9))
            finally:
                os._exit(77)  # the launcher never gets here, the daemon's status is nobody's
        os.close(writer)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        read_to_end(reader)
        return status

    @pytest.mark.parametrize("status", [0, 3, 70])
    def test_the_launcher_ends_with_the_reported_status(
        self, capfd: pytest.CaptureFixture[str], status: int
    ) -> None:
        assert self.launch(lambda report: report.send(status)) == status
        assert capfd.readouterr() == ("", "")

    def test_the_launcher_tells_the_reason(self, capfd: pytest.CaptureFixture[str]) -> None:
        assert self.launch(lambda report: report.send(1, "no pid\nfile")) == 1
        assert capfd.readouterr() == ("", "[!] no pid\n[!] file\n")

    def test_a_reason_beyond_all_bounds_does_not_hold_it_up(self, capfd: pytest.CaptureFixture[str]) -> None:
        assert self.launch(lambda report: report.send(1, "x" * 1_000_000)) == 1
        assert len(capfd.readouterr().err) <= privileges.REPORT_LIMIT + 4

    def test_only_the_first_report_counts(self) -> None:
        def twice(report: privileges.StartReport) -> None:
            report.send(0)
            report.send(5)

        assert self.launch(twice) == 0

    def test_a_silent_end_is_a_failure(self, capfd: pytest.CaptureFixture[str]) -> None:
        assert self.launch(lambda report: None) == 9
        assert capfd.readouterr().err == "[!] The daemon ended before it was ready\n"

    def test_the_launcher_waits_for_the_report(self) -> None:
        waiting, go_on = os.pipe()

        def slow(report: privileges.StartReport) -> None:
            os.close(go_on)
            os.read(waiting, 1)
            report.send(4)

        child = os.fork()
        if child == 0:
            try:
                slow(privileges.daemonize(9))
            finally:
                os._exit(77)
        handle = os.pidfd_open(child)
        assert not select.select([handle], [], [], 0.2)[0]
        os.close(go_on)
        assert select.select([handle], [], [], PATIENCE)[0]
        os.close(handle)
        os.close(waiting)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 4

    def test_the_daemon_outlives_a_launcher_that_was_killed(self) -> None:
        reader, writer = os.pipe()
        waiting, go_on = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                report = privileges.daemonize(9)
                os.write(writer, b"detached\n")
                os.close(go_on)
                os.read(waiting, 1)
                report.send(0)
                os.write(writer, b"alive\n")
            finally:
                os._exit(77)
        os.close(writer)
        assert os.read(reader, 9) == b"detached\n"
        os.kill(child, signal.SIGINT)  # Ctrl-C
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGINT
        os.close(go_on)
        os.close(waiting)
        assert read_to_end(reader) == "alive\n"

    def test_the_daemon_has_left_everything_but_its_descriptors(self, tmp_path: Path) -> None:
        kept = os.open(tmp_path / "kept", os.O_RDWR | os.O_CREAT)

        def check(report: privileges.StartReport) -> None:
            assert os.getpid() not in (os.getsid(0), os.getpgrp())
            assert Path.cwd() == Path("/")
            assert os.umask(0) == privileges.DAEMON_UMASK
            for fd in (0, 1, 2):
                assert Path(f"/proc/self/fd/{fd}").readlink() == Path(os.devnull)
                assert os.get_inheritable(fd)
            os.write(kept, b"kept")
            report.send(0)

        assert self.launch(check) == 0
        os.close(kept)
        assert (tmp_path / "kept").read_text() == "kept"

    def test_descriptors_that_were_missing_at_the_start_are_filled(self) -> None:
        def start_without_input_and_errors() -> None:
            os.close(0)
            os.close(2)
            privileges.fill_standard_descriptors()
            assert os.open("/", os.O_RDONLY) > 2
            for fd in (0, 2):
                assert Path(f"/proc/self/fd/{fd}").readlink() == Path(os.devnull)
                assert not fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC

        assert in_child(start_without_input_and_errors) == (0, "")

    def test_descriptors_that_are_there_are_left_alone(self) -> None:
        def start() -> None:
            before = sorted(os.listdir("/proc/self/fd")), [os.fstat(fd) for fd in range(3)]
            privileges.fill_standard_descriptors()
            assert (sorted(os.listdir("/proc/self/fd")), [os.fstat(fd) for fd in range(3)]) == before

        assert in_child(start) == (0, "")


class TestInside:
    @pytest.mark.parametrize(
        ("chroot", "path", "expected"),
        [
            (None, "/run/pid", "/run/pid"),
            ("/jail", "/run/pid", "/jail/run/pid"),
            ("/jail/", "//run//pid", "/jail/run/pid"),
            ("/jail", "run/pid", "/jail/run/pid"),
            ("/jail", "/../../etc/pid", "/jail/etc/pid"),
            ("/", "/run/pid", "/run/pid"),
        ],
    )
    def test_a_path_of_the_jail(self, chroot: str | None, path: str, expected: str) -> None:
        assert privileges.inside(chroot, path) == Path(expected)

    def test_it_is_absolute(self) -> None:
        assert privileges.inside(None, "pid") == Path.cwd() / "pid"
        assert privileges.inside("jail", "pid") == Path.cwd() / "jail" / "pid"


class TestResolve:
    def test_nothing_asked_for_is_nothing_to_change(self) -> None:
        assert privileges.resolve(None, None) is None

    @needs_root
    @pytest.mark.parametrize("user", ["nobody", NOBODY.pw_uid])
    def test_a_user_alone_brings_its_own_groups(self, user: str | int) -> None:
        groups = tuple(os.getgrouplist("nobody", NOBODY.pw_gid))
        assert privileges.resolve(user, None) == Identity(NOBODY.pw_uid, NOBODY.pw_gid, groups)

    @needs_root
    def test_a_user_with_a_group(self) -> None:
        identity = privileges.resolve("nobody", 12345)
        assert identity is not None
        assert (identity.uid, identity.gid) == (NOBODY.pw_uid, 12345)
        assert 0 not in identity.groups

    @needs_root
    def test_a_group_alone_leaves_the_user_and_no_other_group(self) -> None:
        assert privileges.resolve(None, 12345) == Identity(0, 12345, (12345,))

    @needs_root
    def test_an_unknown_number_needs_a_group(self) -> None:
        assert privileges.resolve(54321, 12345) == Identity(54321, 12345, (12345,))
        with pytest.raises(ConfigurationError, match="User 54321 is unknown to this system"):
            privileges.resolve(54321, None)

    @pytest.mark.parametrize(
        ("setuid", "setgid", "message"),
        [
            ("no such user", None, "There is no user 'no such user' on this system"),
            (None, "no such group", "There is no group 'no such group' on this system"),
            ("nul\0", None, "There is no user"),
            (-1, None, "User -1 is out of range"),
            (2**32 - 1, 5, "User 4294967295 is out of range"),
            (None, 2**32 - 1, "Group 4294967295 is out of range"),
        ],
    )
    def test_what_does_not_exist_is_told_with_its_line(
        self, setuid: str | int | None, setgid: str | int | None, message: str
    ) -> None:
        with pytest.raises(ConfigurationError) as failure:
            privileges.resolve(setuid, setgid, LINE, LINE)
        (finding,) = failure.value.diagnostics
        assert finding.message.startswith(message)
        assert finding.location == LINE

    @needs_root
    def test_without_root_only_the_identity_at_hand_is_possible(self) -> None:
        def unprivileged() -> None:
            own = privileges.resolve("nobody", None)
            privileges.drop(None, own)
            assert privileges.resolve("nobody", None) == own
            privileges.drop(None, own)
            with pytest.raises(ConfigurationError, match="Only root can change user or group"):
                privileges.resolve(None, 12345)

        assert in_child(unprivileged) == (0, "")


@needs_root
class TestDrop:
    @pytest.fixture
    def jail(self, tmp_path: Path) -> Iterator[Path]:
        (tmp_path / "secret").write_text("a key\n")
        jail = tmp_path / "jail"
        jail.mkdir()
        (jail / "inside").write_text("in the jail\n")
        yield jail

    def test_root_and_the_files_outside_are_out_of_reach(self, jail: Path) -> None:
        identity = privileges.resolve("nobody", None)
        assert identity is not None

        def confined() -> None:
            privileges.drop(str(jail), identity)
            assert os.getresuid() == (NOBODY.pw_uid,) * 3
            assert os.getresgid() == (NOBODY.pw_gid,) * 3
            assert sorted(os.getgroups()) == sorted(identity.groups)
            assert os.listdir("/") == ["inside"]
            assert Path("inside").read_text() == "in the jail\n"  # the directory is the jail's root
            assert not Path("/../secret").exists()
            assert not Path("/etc/passwd").exists()
            for regain in (
                lambda: os.setuid(0),
                lambda: os.seteuid(0),
                lambda: os.setgid(0),
                lambda: os.setgroups([0]),
                lambda: os.chroot("/"),
            ):
                with pytest.raises(PermissionError):
                    regain()

        assert in_child(confined) == (0, "")

    def test_a_group_alone(self) -> None:
        def confined() -> None:
            privileges.drop(None, privileges.resolve(None, 12345))
            assert os.getresuid() == (0, 0, 0)
            assert os.getresgid() == (12345,) * 3
            assert os.getgroups() == [12345]

        assert in_child(confined) == (0, "")

    def test_a_jail_alone(self, jail: Path) -> None:
        def confined() -> None:
            privileges.drop(str(jail), None)
            assert Path.cwd() == Path("/")
            assert os.listdir("/") == ["inside"]
            assert os.geteuid() == 0

        assert in_child(confined) == (0, "")

    def test_a_jail_that_is_not_there(self, tmp_path: Path) -> None:
        status, said = in_child(lambda: privileges.drop(f"{tmp_path}/none", None))
        assert status == 1
        assert said == (
            f"ConfigurationError: Cannot enter the chroot directory {tmp_path}/none: No such file or directory"
        )

    def test_no_core_is_dumped_whatever_else_is_asked_for(self) -> None:
        def confined() -> None:
            privileges.drop(None, None)
            assert resource.getrlimit(resource.RLIMIT_CORE) == (0, 0)
            with contextlib.suppress(ValueError):
                resource.setrlimit(resource.RLIMIT_CORE, (1, 1))

        assert in_child(confined) == (0, "")

    def test_a_change_that_the_system_does_not_make_good_is_an_error(self) -> None:
        def half_root() -> None:
            os.setresuid(NOBODY.pw_uid, NOBODY.pw_uid, 0)  # root is still saved
            privileges.drop(None, Identity(54321, 54321, (54321,)))

        status, said = in_child(half_root)
        assert status == 1
        assert said.startswith("PermissionError")
