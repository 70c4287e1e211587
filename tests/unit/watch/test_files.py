"""Which names can change a file, and when files count as changed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from culvert import config
from culvert.watch import Watched

SERVER = "[tunnel]\naccept = 1\nconnect = 2\n"


def watched(*paths: Path) -> Watched:
    """These files, as they are now."""
    return Watched({str(path): b"" for path in paths}).now()


def changed(before: Watched) -> bool:
    """Whether the files hold now what they did not then."""
    return bool(before.changed(before.now()))


def names(path: Path, below: Path) -> set[str]:
    """The names that can change a file, of those in a folder, relative to it."""
    prefix = f"{below}/"
    return {name.removeprefix(prefix) for name in watched(path).places().names if name.startswith(prefix)}


def test_every_option_that_names_a_file_is_watched() -> None:
    text = SERVER + "cert = a.crt\nkey = /b/b.key\nCAfile = c.pem\nCApath = /d\nverifyChain = yes\n"
    services = config.loads(text.encode(), "server.conf").services
    here = Path.cwd()
    paths = [f"{here}/a.crt", "/b/b.key", f"{here}/c.pem", "/d"]
    assert sorted(Watched.of(services, None).contents) == sorted(paths)
    assert "/jail/d" in Watched.of(services, "/jail").contents  # used by the workers, read by OpenSSL there
    assert "/b/b.key" in Watched.of(services, "/jail").contents


def test_a_file_without_links(tmp_path: Path) -> None:
    (tmp_path / "one").touch()
    assert names(tmp_path / "one", tmp_path) == {"one"}
    assert names(tmp_path / "one", tmp_path.parent) == {tmp_path.name, f"{tmp_path.name}/one"}


def test_a_file_that_is_missing(tmp_path: Path) -> None:
    assert names(tmp_path / "folder" / "one", tmp_path) == {"folder", "folder/one"}


def test_links_on_the_way(tmp_path: Path) -> None:
    (tmp_path / "v1").mkdir()
    (tmp_path / "v1" / "tls.crt").touch()
    (tmp_path / "mount").mkdir()
    (tmp_path / "mount" / "..data").symlink_to("../v1")
    (tmp_path / "mount" / "tls.crt").symlink_to("..data/tls.crt")
    assert names(tmp_path / "mount" / "tls.crt", tmp_path) == {
        "mount",
        "mount/tls.crt",
        "mount/..data",
        "v1",
        "v1/tls.crt",
    }


def test_an_absolute_link(tmp_path: Path) -> None:
    (tmp_path / "live").symlink_to(tmp_path / "archive" / "one")
    assert names(tmp_path / "live", tmp_path) == {"live", "archive", "archive/one"}


def test_links_in_a_circle(tmp_path: Path) -> None:
    (tmp_path / "one").symlink_to("two")
    (tmp_path / "two").symlink_to("one")
    assert names(tmp_path / "one", tmp_path) == {"one", "two"}


def test_a_folder_counts_with_all_it_holds(tmp_path: Path) -> None:
    (tmp_path / "certs").mkdir()
    assert names(tmp_path / "certs", tmp_path) == {"certs", "certs/"}


def test_a_folder_that_was_replaced_is_another_place(tmp_path: Path) -> None:
    (tmp_path / "live").mkdir()
    (tmp_path / "next").mkdir()
    (tmp_path / "live" / "one").touch()
    before = watched(tmp_path / "live" / "one")
    places = before.places()
    assert before.places() == places
    (tmp_path / "live").rename(tmp_path / "old")
    (tmp_path / "next").rename(tmp_path / "live")
    assert before.places() != places
    assert before.places().names == places.names


def test_what_a_file_holds_counts(tmp_path: Path) -> None:
    one = tmp_path / "one"
    before = watched(one)
    one.write_bytes(b"1")
    assert changed(before)
    before = watched(one)
    assert not changed(before)
    os.utime(one, (1, 1))
    one.chmod(0o640)
    assert not changed(before)
    one.write_bytes(b"2")
    os.utime(one, (1, 1))
    assert changed(before)


@pytest.mark.parametrize("linked", [False, True])
def test_what_lies_in_a_folder_counts(tmp_path: Path, linked: bool) -> None:
    folder = tmp_path / "certs"
    folder.mkdir()
    one = folder / "0a1b2c3d.0"
    if linked:
        one.symlink_to("../one.pem")
        one = tmp_path / "one.pem"
    one.write_bytes(b"1")
    before = watched(folder)
    assert not changed(before)
    one.write_bytes(b"22")
    assert changed(before)
    before = watched(folder)
    one.unlink()
    assert changed(before)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert not changed(watched(tmp_path / "pipe"))
