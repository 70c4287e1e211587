"""Identities and the jail, in real processes that give up what they had."""

from __future__ import annotations

import ctypes
import os
import pwd
import resource
from collections.abc import Callable
from pathlib import Path

import pytest

from culvert import privileges
from culvert.errors import ConfigurationError, Location
from culvert.privileges import Identity

from .forked import in_child

LINE = Location("stunnel.conf", 3, "the line")
NOBODY = pwd.getpwnam("nobody")

PR_SET_SECUREBITS = 28
SECBIT_NO_SETUID_FIXUP = 4

REGAIN: tuple[Callable[[], None], ...] = (
    lambda: os.setuid(0),
    lambda: os.seteuid(0),
    lambda: os.setgid(0),
    lambda: os.setgroups([0]),
    lambda: os.chroot("/"),
)

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give up root")


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
    def jail(self, tmp_path: Path) -> Path:
        (tmp_path / "secret").write_text("a key\n")
        jail = tmp_path / "jail"
        jail.mkdir()
        (jail / "inside").write_text("in the jail\n")
        return jail

    def test_root_and_the_files_outside_are_out_of_reach(self, jail: Path) -> None:
        identity = privileges.resolve("nobody", None)
        assert identity is not None

        def confined() -> None:
            privileges.drop(str(jail), identity)
            assert os.getresuid() == (NOBODY.pw_uid,) * 3
            assert os.getresgid() == (NOBODY.pw_gid,) * 3
            assert sorted(os.getgroups()) == sorted(identity.groups)
            assert list(Path("/").iterdir()) == [Path("/inside")]
            assert Path("inside").read_text() == "in the jail\n"  # the directory is the jail's root
            assert not Path("/../secret").exists()
            assert not Path("/etc/passwd").exists()
            for regain in REGAIN:
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
            assert list(Path("/").iterdir()) == [Path("/inside")]
            assert os.geteuid() == 0

        assert in_child(confined) == (0, "")

    def test_a_jail_that_is_not_there(self, tmp_path: Path) -> None:
        status, said = in_child(lambda: privileges.drop(f"{tmp_path}/none", None))
        assert status == 1
        reason = "No such file or directory"
        assert said == f"ConfigurationError: Cannot enter the chroot directory {tmp_path}/none: {reason}"

    def test_no_core_is_dumped_unless_a_program_asks_for_it(self) -> None:
        def confined() -> None:
            _, highest = resource.getrlimit(resource.RLIMIT_CORE)
            privileges.restore_defaults()
            assert resource.getrlimit(resource.RLIMIT_CORE) == (0, highest)

        assert in_child(confined) == (0, "")

    def test_root_that_could_be_regained_is_a_fault(self) -> None:
        def half_confined() -> None:
            # With this bit the kernel leaves all capabilities to a process that changes its user.
            assert ctypes.CDLL(None).prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP, 0, 0, 0) == 0
            privileges.drop(None, privileges.resolve("nobody", None))

        status, said = in_child(half_confined)
        assert status == 1
        assert said.startswith("RuntimeError: root could be regained")
