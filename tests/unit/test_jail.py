"""Paths that are meant inside the jail, seen and used from outside."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from culvert.jail import Place, inside

NEW = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC


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
        assert inside(chroot, path) == Path(expected)

    def test_it_is_absolute(self) -> None:
        assert inside(None, "pid") == Path.cwd() / "pid"
        assert inside("jail", "pid") == Path.cwd() / "jail" / "pid"


def write(place: Place) -> None:
    """Makes the file, or writes to the one that is there."""
    fd = place.open(NEW)
    os.write(fd, b"written")
    os.close(fd)


class TestPlace:
    @pytest.fixture
    def jail(self, tmp_path: Path) -> Path:
        """A jail with a folder in it, beside a folder that it must not lead to."""
        (tmp_path / "jail" / "run" / "deep").mkdir(parents=True)
        (tmp_path / "victim").mkdir()
        return tmp_path / "jail"

    @pytest.mark.parametrize("path", ["/file", "file", "/run/deep/file", "//run/./deep//file", "../run/file"])
    def test_a_file_in_a_jail(self, jail: Path, path: str) -> None:
        place = Place(str(jail), path)
        write(place)
        assert inside(str(jail), path).read_bytes() == b"written"
        assert str(place) == str(inside(str(jail), path))

    @pytest.mark.parametrize(
        "target", ["../victim/file", "/etc/culvert-test-target", "run/deep/file", "none"]
    )
    def test_a_link_in_the_place_of_the_file_is_refused(self, jail: Path, target: str) -> None:
        (jail / "file").symlink_to(target)
        with pytest.raises(OSError, match="'file' is a symbolic link, and none is followed inside 'chroot'"):
            write(Place(str(jail), "/file"))
        assert (jail / "file").is_symlink()
        assert not (jail / target).exists()

    @pytest.mark.parametrize("path", ["/link/file", "/link/deep/file"])
    def test_a_link_in_the_place_of_a_folder_is_refused(self, jail: Path, tmp_path: Path, path: str) -> None:
        (tmp_path / "victim" / "deep").mkdir()
        (jail / "link").symlink_to(tmp_path / "victim")
        place = Place(str(jail), path)
        with pytest.raises(OSError, match="'link' is a symbolic link"):
            write(place)
        with pytest.raises(OSError, match="'link' is a symbolic link"), place.folder():
            pytest.fail("a folder behind a link was given")
        assert [entry.name for entry in tmp_path.rglob("file")] == []

    def test_a_link_to_the_jail_itself_is_the_operators(self, jail: Path, tmp_path: Path) -> None:
        (tmp_path / "entrance").symlink_to(jail)
        write(Place(str(tmp_path / "entrance"), "/file"))
        assert (jail / "file").exists()

    def test_without_a_jail_links_are_followed(self, tmp_path: Path) -> None:
        (tmp_path / "real").mkdir()
        (tmp_path / "folder").symlink_to("real")
        (tmp_path / "real" / "file").symlink_to("target")
        write(Place(None, str(tmp_path / "folder" / "file")))
        assert (tmp_path / "real" / "target").read_bytes() == b"written"

    def test_a_relative_path_stays_what_it_was(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        place = Place(None, "file")
        monkeypatch.chdir("/")
        write(place)
        assert (tmp_path / "file").exists()

    @pytest.mark.parametrize(
        ("path", "error"),
        [
            ("/none/file", FileNotFoundError),
            ("/plain/file", NotADirectoryError),
            ("/run", IsADirectoryError),
            ("/", IsADirectoryError),
        ],
    )
    @pytest.mark.parametrize("jailed", [True, False])
    def test_other_failures_are_the_systems(
        self, jail: Path, path: str, error: type[OSError], jailed: bool
    ) -> None:
        (jail / "plain").touch()
        before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
        with pytest.raises(error):
            write(Place(str(jail), path) if jailed else Place(None, f"{jail}{path}"))
        assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208

    def test_its_folder_and_name(self, jail: Path) -> None:
        before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
        with Place(str(jail), "/run/deep/file").folder() as (folder, name):
            assert name == "file"
            assert os.fstat(folder).st_ino == (jail / "run" / "deep").stat().st_ino
            assert not os.get_inheritable(folder)
        assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208

    def test_the_mode_is_handed_on(self, jail: Path) -> None:
        os.close(Place(str(jail), "/file").open(NEW, 0o600))
        assert stat.S_IMODE((jail / "file").stat().st_mode) == 0o600

    @pytest.mark.parametrize(
        ("chroot", "path", "expected"),
        [
            ("/jail", "/run/file", "/run/file"),
            ("/jail/", "run/../file", "/file"),
            (None, "/run/file", "/run/file"),
        ],
    )
    def test_from_within(self, chroot: str | None, path: str, expected: str) -> None:
        assert str(Place(chroot, path).in_jail()) == expected
