"""The pid file: what it holds, what it replaces, and who removes it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from culvert.errors import ConfigurationError, Location
from culvert.privileges import PidFile

from .forked import in_child

LINE = Location("stunnel.conf", 3, "the line")


def test_it_holds_the_pid_for_all_to_read_until_it_is_removed(tmp_path: Path) -> None:
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


def test_it_replaces_what_an_earlier_process_left(tmp_path: Path) -> None:
    file = PidFile(tmp_path / "pid")
    file.path.write_text("12345\nand more\n")
    file.create()
    assert file.path.read_text() == f"{os.getpid()}\n"


def test_it_is_never_seen_empty_or_in_part(tmp_path: Path) -> None:
    file = PidFile(tmp_path / "pid")
    file.path.write_text("12345\n")
    with file.path.open() as held:
        file.create()
        assert held.read() == "12345\n"


def test_it_does_not_follow_a_symbolic_link(tmp_path: Path) -> None:
    target = tmp_path / "passwd"
    target.write_text("root\n")
    file = PidFile(tmp_path / "pid")
    file.path.symlink_to(target)
    file.create()
    assert target.read_text() == "root\n"
    assert not file.path.is_symlink()


def test_it_survives_a_temporary_file_that_a_crash_left(tmp_path: Path) -> None:
    file = PidFile(tmp_path / "pid")
    (tmp_path / f".pid.{os.getpid()}").write_text("left")
    file.create()
    assert list(tmp_path.iterdir()) == [file.path]


def test_it_is_not_removed_by_a_child(tmp_path: Path) -> None:
    file = PidFile(tmp_path / "pid")
    file.create()
    assert in_child(file.remove) == (0, "")
    assert file.path.exists()


@pytest.mark.parametrize("content", ["12345\n", f"{os.getpid()}0\n", f"{os.getpid()}\n\n", ""])
def test_it_is_not_removed_once_it_holds_something_else(tmp_path: Path, content: str) -> None:
    file = PidFile(tmp_path / "pid")
    file.create()
    file.path.write_text(content)
    file.remove()
    assert file.path.read_text() == content


def test_it_is_not_removed_once_a_link_is_in_its_place(tmp_path: Path) -> None:
    file = PidFile(tmp_path / "pid")
    file.create()
    file.path.rename(tmp_path / "moved")
    file.path.symlink_to(tmp_path / "moved")
    file.remove()
    assert file.path.is_symlink()


def test_that_was_not_written_removes_nothing(tmp_path: Path) -> None:
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
    tmp_path: Path, path: str, reason: str
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
