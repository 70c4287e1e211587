"""The border: whatever ends a command, the user gets a sentence and a status, never a traceback."""

from __future__ import annotations

import pytest

from culvert.cli.faults import guard, printable
from culvert.errors import ConfigurationError, Diagnostic, Location, Severity


def test_the_status_of_a_command_passes_through() -> None:
    assert guard(lambda: 5) == 5


def test_a_configurations_faults_are_written_one_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    where = Location("/etc/x.conf", 3, "accpt = 1")
    findings = (
        Diagnostic(Severity.ERROR, "there is no such option", where, hint="did you mean this?"),
        Diagnostic(Severity.WARNING, "nothing is verified", service="tunnel"),
    )

    def fail() -> int:
        raise ConfigurationError(findings)

    assert guard(fail) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        '[!] /etc/x.conf:3: "accpt = 1": there is no such option (did you mean this?)',
        "[:] Service [tunnel]: nothing is verified",
    ]


def test_a_fault_of_culvert_says_so_and_how_to_report_it(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> int:
        raise RuntimeError("two\nlines")

    assert guard(fail) == 70
    captured = capsys.readouterr()
    assert captured.out == ""
    fault, place, advice = captured.err.splitlines()
    assert fault == "[!] This is a fault of culvert, not of its configuration: RuntimeError: two.lines"
    assert "cli/test_faults.py:" in place
    assert "report it" in advice
    assert "Traceback" not in captured.err


def test_an_interrupt_ends_quietly(capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt() -> int:
        raise KeyboardInterrupt

    assert guard(interrupt) == 130
    assert capsys.readouterr().err == ""


def test_control_characters_are_shown_as_dots_and_tabs_as_spaces() -> None:
    assert printable("a\tb\x1b[1m\u202e") == "a b.[1m."
    assert printable("plain \N{SNOWMAN}") == "plain \N{SNOWMAN}"
