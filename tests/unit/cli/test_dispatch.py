"""Which arguments lead to which command, and what a wrong use gets."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from culvert.cli import faults
from culvert.privileges import ExitStatus

from .command import culvert, execute

BROKEN = "[tunnel]\naccpt = 1\n"


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """A configuration that every way to run it refuses, with the same line."""
    path = tmp_path / "broken.conf"
    path.write_text(BROKEN)
    return path


@pytest.mark.parametrize("before", [[], ["run"], ["run", "--"], ["stunnel"]])
def test_a_file_is_run_under_every_spelling(broken: Path, before: list[str]) -> None:
    result = culvert(*before, str(broken))
    assert result.returncode == ExitStatus.CONFIGURATION
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert lines[0] == f"[.] Reading configuration from file {broken}"
    assert any(line.startswith(f'[!] {broken}:2: "accpt = 1": ') for line in lines)
    assert lines[-1] == "[!] Configuration failed"


@pytest.mark.parametrize("name", ["stunnel", "stunnel4"])
def test_the_programs_name_selects_stunnels_command_line(tmp_path: Path, name: str) -> None:
    script = tmp_path / name
    script.write_text(f"#!{sys.executable}\nimport sys\nfrom culvert.cli import main\nsys.exit(main())\n")
    script.chmod(0o755)
    result = execute([str(script), "-help"])
    assert (result.returncode, result.stdout) == (0, "")
    assert "Global options:" in result.stderr


def test_a_misspelt_command_is_not_taken_for_a_file() -> None:
    result = culvert("chek")
    assert result.returncode == ExitStatus.CONFIGURATION
    assert result.stderr == "[!] chek is neither a command nor a file (did you mean 'check'?)\n"


def test_a_file_that_looks_like_a_command_is_run(tmp_path: Path) -> None:
    (tmp_path / "chek").write_text(BROKEN)
    result = execute(["env", "-C", str(tmp_path), sys.executable, "-m", "culvert", "chek"])
    assert "accpt" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run"], "FILE"),
        (["run", "a", "b"], "b"),
        (["run", "--fast", "a"], "--fast"),
        (["check"], "FILE"),
        (["check", "--format", "xml", "a"], "xml"),
        (["a", "b"], "a"),
        (["--fast"], "--fast"),
    ],
)
def test_wrong_use_is_told_apart_from_a_wrong_configuration(arguments: list[str], words: str) -> None:
    result = culvert(*arguments)
    assert result.returncode == 2
    assert result.stdout == ""
    assert words in result.stderr
    assert "Traceback" not in result.stderr


def test_help_names_every_command() -> None:
    result = culvert("--help")
    assert result.returncode == 0
    for command in ("ca", "check", "demo", "options", "run", "stunnel", "version"):
        assert f"\n  {command} " in result.stdout


def test_version_names_what_culvert_stands_on() -> None:
    result = culvert("version")
    assert result.returncode == 0
    parts = [line.split()[0] for line in result.stdout.splitlines()]
    assert parts == ["culvert", "python", "pyOpenSSL", "cryptography", "OpenSSL", "event"]
    assert "uvloop" in result.stdout or "asyncio" in result.stdout


@pytest.mark.parametrize("arguments", ["options", "version", "check /etc/passwd", "--help"])
def test_a_reader_that_goes_away_gets_no_complaint(arguments: str) -> None:
    command = f"{sys.executable} -m culvert {arguments} | head -c 1"
    result = execute(["sh", "-c", command])
    assert len(result.stdout) == 1
    assert result.stderr == ""


@pytest.mark.parametrize("command", ["version", "options", "check /etc/passwd --format json"])
def test_a_full_disk_under_the_output_is_named(command: str) -> None:
    result = execute(["sh", "-c", f"{sys.executable} -m culvert {command} > /dev/full"])
    assert result.returncode == 1
    assert result.stderr == "[!] Cannot write: No space left on device\n"


def test_without_standard_error_nothing_reaches_standard_output(broken: Path) -> None:
    command = f"exec {sys.executable} -m culvert stunnel {broken} 2>&-"
    result = execute(["sh", "-c", command])
    assert (result.returncode, result.stdout) == (ExitStatus.CONFIGURATION, "")


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    result = culvert("run", str(tmp_path / "missing.conf"))
    assert result.returncode == ExitStatus.CONFIGURATION
    assert f"{tmp_path / 'missing.conf'}: No such file or directory" in result.stderr


def test_the_statuses_are_those_of_the_supervisor() -> None:
    assert faults.CONFIGURATION_STATUS == ExitStatus.CONFIGURATION
    assert faults.CRASH_STATUS == ExitStatus.CRASH


def test_python_runs_no_terminal_library_for_a_tunnel(broken: Path) -> None:
    """-X importtime writes a line for every module that any of the processes imports."""
    for arguments in (["run", str(broken)], [str(broken)], ["stunnel", str(broken)], ["stunnel", "-help"]):
        result = execute([sys.executable, "-X", "importtime", "-m", "culvert", *arguments])
        modules = {line.rpartition("|")[2].strip() for line in result.stderr.splitlines()}
        assert "culvert.cli.dispatch" in modules
        assert not {name for name in modules if name.split(".")[0] in {"typer", "rich", "click"}}


def test_completion_lists_the_commands() -> None:
    environment = {"_CULVERT_COMPLETE": "complete_bash", "COMP_WORDS": "culvert ", "COMP_CWORD": "1"}
    assignments = [f"{name}={value}" for name, value in environment.items()]
    script = Path(sys.executable).with_name("culvert")
    result = execute(["env", *assignments, str(script)])
    assert {"check", "demo", "options", "run"} <= set(result.stdout.split())


def test_the_commands_about_a_daemon_load_no_tls() -> None:
    heavy = ["OpenSSL", "asyncio", "cryptography", "culvert.supervisor"]
    program = "import sys, culvert.cli.daemon.commands; print(*[n for n in sys.argv[1:] if n in sys.modules])"
    result = execute([sys.executable, "-c", program, *heavy])
    assert (result.stdout, result.stderr) == ("\n", "")
