"""Paths that are meant inside the jail, seen from outside."""

from __future__ import annotations

from pathlib import Path

import pytest

from culvert.jail import inside


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
