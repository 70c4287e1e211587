"""The same files and signals to Debian's stunnel4 and to `culvert stunnel`: what a user sees is the same."""

from __future__ import annotations

import itertools
import socket
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from .certificates import Certificates
from .daemon import command, fixed_ports, run
from .harness import require
from .session import SERVICES, Result, play


@dataclass(frozen=True)
class Both:
    """The two command lines."""

    stunnel: list[str]
    culvert: list[str]


@pytest.fixture(scope="module")
def both() -> Both:
    """stunnel4, and Culvert in its place."""
    return Both([require("stunnel4")], command("stunnel"))


@pytest.fixture(scope="module")
def results(
    tmp_path_factory: pytest.TempPathFactory, certificates: Certificates, both: Both
) -> Iterator[tuple[Result, Result]]:
    """What the session left behind, first by stunnel, then by Culvert."""
    with fixed_ports(len(SERVICES) + 1) as ports:
        yield (
            play(tmp_path_factory.mktemp("stunnel"), both.stunnel, certificates, ports),
            play(tmp_path_factory.mktemp("culvert"), both.culvert, certificates, ports),
        )


class TestSession:
    """Start, connections, failures, reloads, rotation, end."""

    def test_the_start_is_silent_and_succeeds(self, results: tuple[Result, Result]) -> None:
        for result in results:
            assert (result.launched, result.stdout) == (0, "")

    def test_the_pid_file(self, results: tuple[Result, Result]) -> None:
        for result in results:
            assert result.pid_text == f"{result.pid}\n"
            assert result.pid_mode == 0o644
            assert not result.pid_left

    def test_the_logs_mode(self, results: tuple[Result, Result]) -> None:
        stunnel, culvert = results
        assert oct(culvert.log_mode) == oct(stunnel.log_mode)

    def test_reloads_and_rotation(self, results: tuple[Result, Result]) -> None:
        for result in results:
            assert result.kept_after_reload
            assert result.reopened

    def test_no_identifier_comes_twice(self, results: tuple[Result, Result]) -> None:
        stunnel, culvert = results
        assert len(culvert.identifiers) == len(stunnel.identifiers)
        for identifiers in (stunnel.identifiers, culvert.identifiers):
            assert len(set(identifiers)) == len(identifiers), identifiers

    def test_no_line_is_missing(self, results: tuple[Result, Result]) -> None:
        stunnel, culvert = results
        assert len(stunnel.lines) > 40
        missing = Counter(stunnel.lines) - Counter(culvert.lines)
        assert not missing, f"stunnel writes these, Culvert does not: {dict(missing)}"

    def test_the_lines_come_in_the_same_order(self, results: tuple[Result, Result]) -> None:
        stunnel, culvert = results
        remaining = iter(culvert.lines)
        for position, line in enumerate(stunnel.lines):
            before = stunnel.lines[max(0, position - 3) : position]
            assert line in remaining, f"{line} does not come after {before}:\n" + side_by_side(*results)


def side_by_side(stunnel: Result, culvert: Result) -> str:
    """Both logs, line by line."""
    rows = itertools.zip_longest(stunnel.lines, culvert.lines, fillvalue=(0, ""))
    return "\n".join(f"{a[0]} {a[1]:<90} | {b[0]} {b[1]}" for a, b in rows)


GOOD = "foreground = yes\nsyslog = no\npid =\n"


class TestErrors:
    """What cannot be run: exit status, an empty standard output, and the form of the message."""

    @pytest.fixture
    def port(self) -> Iterator[int]:
        """A port that nobody listens on."""
        with fixed_ports(1) as ports:
            yield ports[0]

    def compare(self, both: Both, arguments: list[str]) -> tuple[str, str]:
        """Runs both and compares exit status and standard output; gives the two standard errors."""
        told = []
        for argv in (both.stunnel, both.culvert):
            finished = run([*argv, *arguments])
            told.append((finished.returncode, finished.stdout, finished.stderr))
        assert told[0][:2] == told[1][:2]
        return told[0][2], told[1][2]

    @pytest.mark.parametrize(
        "line",
        ["verify = 9", "acept = 80", "nonsense", "TIMEOUTidle = soon"],
    )
    def test_a_wrong_line_is_shown_alike(
        self, both: Both, tmp_path: Path, certificates: Certificates, port: int, line: str
    ) -> None:
        leaf = certificates.server
        path = tmp_path / "daemon.conf"
        path.write_text(
            f"{GOOD}cert = {leaf.cert}\nkey = {leaf.key}\n[echo]\naccept = 127.0.0.1:{port}\n"
            f"exec = /bin/cat\n{line}\n"
        )
        for told in self.compare(both, [str(path)]):
            assert f'[!] {path}:9: "{line}": ' in told
            assert "[!] Configuration failed" in told

    @pytest.mark.parametrize(
        "arguments",
        [
            ["-help"],
            ["-VERSION"],
            ["-sockets"],
            ["-options"],
            ["-nonsense"],
            ["-fd"],
            ["-fd", "1000"],
            ["/missing"],
        ],
        ids=" ".join,
    )
    def test_the_command_line(self, both: Both, arguments: list[str]) -> None:
        for told in self.compare(both, arguments):
            assert told

    def test_a_busy_port(self, both: Both, tmp_path: Path, certificates: Certificates, port: int) -> None:
        leaf = certificates.server
        path = tmp_path / "daemon.conf"
        path.write_text(
            f"{GOOD}cert = {leaf.cert}\nkey = {leaf.key}\n"
            f"[echo]\naccept = 127.0.0.1:{port}\nexec = /bin/cat\n"
        )
        with socket.socket() as rival:
            rival.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            rival.bind(("127.0.0.1", port))
            rival.listen()
            for told in self.compare(both, [str(path)]):
                assert "Binding service [echo] failed" in told
                assert f"127.0.0.1:{port}: Address already in use (98)" in told

    @pytest.mark.parametrize(
        "options",
        [
            "setuid = no-such-user\n",
            "chroot = /nonexistent\n",
            "output = /nonexistent/the.log\n",
            "key = /etc/passwd\n",
        ],
    )
    def test_what_the_machine_does_not_have(
        self, both: Both, tmp_path: Path, certificates: Certificates, port: int, options: str
    ) -> None:
        leaf = certificates.server
        path = tmp_path / "daemon.conf"
        key = "" if options.startswith("key") else f"key = {leaf.key}\n"
        path.write_text(
            f"{GOOD}{options}{key}cert = {leaf.cert}\n[echo]\naccept = 127.0.0.1:{port}\nexec = /bin/cat\n"
        )
        for told in self.compare(both, [str(path)]):
            assert "[!] " in told
