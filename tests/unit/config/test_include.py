"""`include`: which files, in which order, and what keeps it from going on for ever."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from culvert import config
from culvert.config.lexer import MAX_BYTES
from culvert.errors import ConfigurationError

from .reading import CLIENT, shown


def write(folder: Path, **files: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("_", ".")).write_text(text, encoding="utf-8")
    return folder


def errors(text: str) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        config.loads(text, "main.conf")
    return [shown(d) for d in caught.value.diagnostics if d.severity.value == "error"]


def test_files_come_by_name_at_any_place(tmp_path: Path) -> None:
    folder = write(
        tmp_path / "conf.d",
        b_conf="[b]\naccept = 2\n",
        a_conf="[a]\naccept = 1\n",
        C="[c]\naccept = 3\n",
    )
    (folder / "subfolder").mkdir()
    configuration = config.loads(
        f"client = yes\nconnect = 9\n[first]\naccept = 8\nINCLUDE = {folder}\n[last]\naccept = 7\n",
        "main.conf",
    )
    assert [service.name for service in configuration.services] == ["first", "c", "a", "b", "last"]
    assert str(configuration.services[2].location) == f"{folder}/a.conf:1"


def test_global_options_can_be_included(tmp_path: Path) -> None:
    folder = write(tmp_path / "with space", global_conf="\ufeffforeground = yes\ndebug = 7\n")
    configuration = config.loads(f"include = {folder}\n[a]\n{CLIENT}", "main.conf")
    assert configuration.options.foreground is config.Foreground.YES
    assert configuration.services[0].debug.level == 7


def test_folder_can_be_included_in_two_places(tmp_path: Path) -> None:
    folder = write(tmp_path / "conf.d", common="sslVersionMin = TLSv1.3\n")
    text = "client = yes\nconnect = 9\n"
    for number in (1, 2):
        text += f"[{number}]\naccept = {number}\ninclude = {folder}\n"
    configuration = config.loads(text, "main.conf")
    assert {service.version_min for service in configuration.services} == {config.TlsVersion.TLS1_3}


def test_missing_folder() -> None:
    assert errors("include = /nonexistent") == [
        '1: "include" cannot read the folder "/nonexistent": No such file or directory',
        '-: main.conf: there is no [service], and neither "connect" nor "exec": nothing to do',
    ]


def test_file_in_place_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert errors(f"[a]\n{CLIENT}include = {tmp_path}/file") == [
        f'5: "include" cannot read the folder "{tmp_path}/file": Not a directory'
    ]


def test_dangling_link_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "service.conf").symlink_to("nowhere")
    assert errors(f"[a]\n{CLIENT}include = {tmp_path}") == [
        f"5: cannot read the configuration file {tmp_path}/service.conf: No such file or directory"
    ]


def test_what_is_no_regular_file_is_left_alone(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to("fifo")
    assert len(config.loads(f"[a]\n{CLIENT}include = {tmp_path}", "main.conf").services) == 1


def test_all_files_together_are_bounded(tmp_path: Path) -> None:
    folder = write(tmp_path / "conf.d", a_conf="; one\n")
    assert errors(f"[a]\n{CLIENT};{' ' * MAX_BYTES}\ninclude = {folder}") == [
        f"6: cannot read the configuration file {folder}/a.conf: a configuration has at most 16 MB"
    ]


def test_circle(tmp_path: Path) -> None:
    folder = write(tmp_path / "conf.d", a_conf=f"include = {tmp_path}/conf.d/../conf.d\n")
    assert errors(f"[a]\n{CLIENT}include = {folder}") == [
        f'1: "include" goes round in a circle: "{folder}/../conf.d" is being read'
    ]


def test_depth(tmp_path: Path) -> None:
    for number in range(9):
        write(tmp_path / str(number), a=f"include = {tmp_path}/{number + 1}\n")
    assert errors(f"[a]\n{CLIENT}include = {tmp_path}/0") == ['1: "include" goes deeper than 8 folders']


def test_error_names_the_included_file(tmp_path: Path) -> None:
    folder = write(tmp_path / "conf.d", a_conf="\nclientt = yes\n")
    with pytest.raises(ConfigurationError) as caught:
        config.loads(f"[a]\n{CLIENT}include = {folder}", "main.conf")
    assert (
        f'{folder}/a.conf:2: "clientt = yes": there is no option "clientt" (did you mean "client"?)'
        in str(caught.value).splitlines()
    )


def test_strange_file_name(tmp_path: Path) -> None:
    (tmp_path / "a\udcff").write_text("fault\n")
    with pytest.raises(ConfigurationError) as caught:
        config.loads(f"[a]\n{CLIENT}include = {tmp_path}", "main.conf")
    assert str(caught.value.diagnostics[-1].location) == f"{tmp_path}/a\\xff:1"
