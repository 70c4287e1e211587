"""A few options of a file that may be wrong elsewhere."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from culvert.config.excerpt import global_values
from culvert.errors import ConfigurationError

WANTED = ("pid", "admin", "debug")


def excerpt(folder: Path, content: bytes) -> dict[str, object]:
    """What a file with this content sets of them."""
    path = folder / "culvert.conf"
    path.write_bytes(content)
    return global_values(str(path), WANTED)


def test_only_what_stands_before_the_services_counts(tmp_path: Path) -> None:
    assert excerpt(tmp_path, b"PID = /a\npid = /b\nnonsense\n[x\n[x]\npid = /c\n") == {"pid": "/b"}


def test_included_files_count(tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "a.conf").write_text("pid = /c\n")
    assert excerpt(tmp_path, b"include = %s\n" % str(tmp_path / "more").encode()) == {"pid": "/c"}


def test_a_wrong_value_is_told_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r'culvert\.conf:2: "admin = :x"'):
        excerpt(tmp_path, b"pid = /a\nadmin = :x\n")


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot read the configuration file"):
        global_values(str(tmp_path / "none"), WANTED)


@settings(deadline=None)
@given(st.binary(max_size=200) | st.text("adminpd =:/\n[]x1\0", max_size=60).map(str.encode))
def test_any_bytes_end_in_values_or_in_one_kind_of_error(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        try:
            assert set(excerpt(Path(folder), content)) <= set(WANTED)
        except ConfigurationError:
            return
