"""The pid file: what it holds, what it replaces, and who removes it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from culvert.errors import ConfigurationError, Location
from culvert.jail import Place
from culvert.privileges import PidFile

from .forked import in_child

LINE = Location("stunnel.conf", 3, "the line")


def test_it_holds_the_pid_for_all_to_read_until_it_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    file = PidFile(Place(None, str(path)))
    before = os.umask(0o077)
    try:
        file.create()
    finally:
        os.umask(before)
    assert path.read_text() == f"{os.getpid()}\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert list(tmp_path.iterdir()) == [path]
    file.remove()
    assert not any(tmp_path.iterdir())
    file.remove()


def test_it_replaces_what_an_earlier_process_left(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    file = PidFile(Place(None, str(path)))
    path.write_text("12345\nand more\n")
    file.create()
    assert path.read_text() == f"{os.getpid()}\n"


def test_it_is_never_seen_empty_or_in_part(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    file = PidFile(Place(None, str(path)))
    path.write_text("12345\n")
    with path.open() as held:
        file.create()
        assert held.read() == "12345\n"


def test_it_does_not_follow_a_symbolic_link(tmp_path: Path) -> None:
    target = tmp_path / "passwd"
    target.write_text("root\n")
    path = tmp_path / "pid"
    file = PidFile(Place(None, str(path)))
    path.symlink_to(target)
    file.create()
    assert target.read_text() == "root\n"
    assert not path.is_symlink()


def test_it_survives_a_temporary_file_that_a_crash_left(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    file = PidFile(Place(None, str(path)))
    (tmp_path / f".pid.{os.getpid()}").write_text("left")
    file.create()
    assert list(tmp_path.iterdir()) == [path]


def test_it_is_not_removed_by_a_child(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    file = PidFile(Place(None, str(path)))
    file.create()
    assert in_child(file.remove) == (0, "")
    assert path.exists()


@pytest.mark.parametrize("form", ["12345\n", "{pid}0\n", "{pid}\n\n", ""])
def test_it_is_not_removed_once_it_holds_something_else(tmp_path: Path, form: str) -> None:
    content = form.format(pid=os.getpid())
    path = tmp_path / "pid"
    file = PidFile(Place(None, str(path)))
    file.create()
    path.write_text(content)
    file.remove()
    assert path.read_text() == content


def test_it_is_not_removed_once_a_link_is_in_its_place(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    file = PidFile(Place(None, str(path)))
    file.create()
    path.rename(tmp_path / "moved")
    path.symlink_to(tmp_path / "moved")
    file.remove()
    assert path.is_symlink()


def test_that_was_not_written_removes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    file = PidFile(Place(None, str(path)))
    path.write_text(f"{os.getpid()}\n")
    file.remove()
    assert path.exists()


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
    tmp_path: Path, path: str, reason: str
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "fifo")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ConfigurationError) as failure:
        PidFile(Place(None, str(tmp_path / path)), LINE).create()
    (finding,) = failure.value.diagnostics
    assert finding.message == f"Cannot create the pid file {tmp_path / path}: {reason}"
    assert finding.location == LINE
    assert sorted(tmp_path.iterdir()) == before


class TestInAJail:
    """Seen from outside, where whoever is confined may have planted what leads out."""

    @pytest.fixture
    def jail(self, tmp_path: Path) -> Path:
        """The jail, beside a folder that it must not lead to."""
        (tmp_path / "jail" / "run").mkdir(parents=True)
        (tmp_path / "victim").mkdir()
        return tmp_path / "jail"

    def test_it_is_written_and_removed_inside(self, jail: Path) -> None:
        file = PidFile(Place(str(jail), "/run/pid"))
        file.create()
        assert (jail / "run" / "pid").read_text() == f"{os.getpid()}\n"
        file.remove()
        assert not any((jail / "run").iterdir())

    def test_it_is_not_written_through_a_linked_folder(self, jail: Path, tmp_path: Path) -> None:
        (jail / "var").symlink_to(tmp_path / "victim")
        with pytest.raises(ConfigurationError) as failure:
            PidFile(Place(str(jail), "/var/pid"), LINE).create()
        (finding,) = failure.value.diagnostics
        assert finding.message == (
            f"Cannot create the pid file {jail}/var/pid: 'var' is a symbolic link, "
            "and none is followed inside 'chroot': put the file or folder itself there"
        )
        assert finding.location == LINE
        assert not any((tmp_path / "victim").iterdir())

    def test_it_is_not_removed_through_a_folder_that_became_a_link(self, jail: Path, tmp_path: Path) -> None:
        file = PidFile(Place(str(jail), "/run/pid"))
        file.create()
        (jail / "run").rename(jail / "moved")
        (jail / "run").symlink_to(tmp_path / "victim")
        target = tmp_path / "victim" / "pid"
        target.write_text(f"{os.getpid()}\n")
        with pytest.raises(OSError, match="'run' is a symbolic link"):
            file.remove()
        assert target.exists()

    @pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
    def test_it_is_removed_from_inside(self, jail: Path) -> None:
        file = PidFile(Place(str(jail), "run/pid"))

        def confined() -> None:
            file.create()
            os.chroot(jail)
            file.enter_jail()
            file.remove()

        assert in_child(confined) == (0, "")
        assert not any((jail / "run").iterdir())


def test_it_is_not_removed_once_a_pipe_is_in_its_place(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    file = PidFile(Place(None, str(path)))
    file.create()
    path.unlink()
    os.mkfifo(path)
    file.remove()
    assert path.is_fifo()
