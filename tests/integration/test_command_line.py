"""The ways to start the daemon, and the questions that its command line answers."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .certificates import Certificates
from .daemon import command, fixed_ports, run
from .echo import say_tls
from .harness import PATIENCE, Culvert

Start = Callable[..., Culvert]


@pytest.fixture
def port() -> Iterator[int]:
    """A port that stays the same whoever listens on it."""
    with fixed_ports(1) as ports:
        yield ports[0]


def configuration(certificates: Certificates, port: int) -> str:
    """A foreground daemon with one service."""
    leaf = certificates.server
    return (
        "foreground = yes\nsyslog = no\npid =\ndebug = 7\nworkers = 1\n"
        f"[echo]\naccept = 127.0.0.1:{port}\nexec = /bin/cat\ncert = {leaf.cert}\nkey = {leaf.key}\n"
    )


def serve(
    argv: list[str],
    trust: Path,
    port: int,
    descriptor: int | None = None,
    act: Callable[[subprocess.Popen[str]], None] = lambda _: None,
) -> str:
    """Runs a daemon by this command line, acts, says a line through it, ends it, and gives its log."""
    process = subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        pass_fds=[] if descriptor is None else [descriptor],
    )
    seen = ""
    try:
        assert process.stderr is not None
        for line in process.stderr:
            seen += line
            if "Accepting new connections" in line:
                act(process)
                say_tls(port, trust)
                break
    finally:
        process.terminate()
        stdout, rest = process.communicate(timeout=PATIENCE)
    assert "Accepting new connections" in seen, seen
    assert process.returncode == 0
    assert stdout == ""
    return seen + rest


class TestStart:
    """Every way to name the file."""

    @pytest.mark.parametrize("words", [["run"], [], ["stunnel"]], ids=["run", "file", "stunnel"])
    def test_a_file(self, tmp_path: Path, certificates: Certificates, port: int, words: list[str]) -> None:
        path = tmp_path / "daemon.conf"
        path.write_text(configuration(certificates, port))
        log = serve(command(*words, path), certificates.ca.cert, port)
        assert f"LOG5[main]: Reading configuration from file {path}" in log.replace("[ui]", "[main]")

    def test_a_file_named_like_a_command(self, tmp_path: Path, certificates: Certificates, port: int) -> None:
        path = tmp_path / "check"
        path.write_text(configuration(certificates, port))
        serve(command("stunnel", path), certificates.ca.cert, port)

    @pytest.mark.parametrize("flag", ["-fd", "-FD"])
    def test_a_descriptor(self, tmp_path: Path, certificates: Certificates, port: int, flag: str) -> None:
        path = tmp_path / "daemon.conf"
        path.write_text(configuration(certificates, port))
        with path.open() as file:
            number = file.fileno()
            argv = command("stunnel", flag, str(number))
            log = serve(argv, certificates.ca.cert, port, number)
        assert re.search(rf"Reading configuration from .*descriptor {number}\b", log)

    def test_a_pipe_as_descriptor_and_a_reload(self, certificates: Certificates, port: int) -> None:
        reading, writing = os.pipe()
        os.write(writing, configuration(certificates, port).encode())
        os.close(writing)

        def reload(process: subprocess.Popen[str]) -> None:
            assert process.stderr is not None
            process.send_signal(signal.SIGHUP)  # what was read from a pipe is gone: what runs goes on
            assert any(re.search("Configuration (failed|successful)", line) for line in process.stderr)

        try:
            argv = command("stunnel", "-fd", str(reading))
            log = serve(argv, certificates.ca.cert, port, reading, reload)
        finally:
            os.close(reading)
        assert "Traceback" not in log

    def test_the_name_stunnel(self, tmp_path: Path, certificates: Certificates, port: int) -> None:
        installed = Path(sys.executable).with_name("culvert")
        if not installed.exists():
            pytest.skip("the console script is not installed")
        name = tmp_path / "stunnel"
        name.symlink_to(installed)
        path = tmp_path / "daemon.conf"
        path.write_text(configuration(certificates, port))
        serve([str(name), str(path)], certificates.ca.cert, port)
        shown = run([str(name), "-Version"])
        assert shown.returncode == 0
        assert shown.stdout == ""
        assert "TIMEOUTidle" in shown.stderr


class TestStunnelFlags:
    """`culvert stunnel -…`: the answer on standard error, exit 0."""

    @staticmethod
    def ask(flag: str) -> str:
        """The answer."""
        finished = run(command("stunnel", flag))
        assert finished.returncode == 0
        assert finished.stdout == ""
        assert "Traceback" not in finished.stderr
        return finished.stderr

    @pytest.mark.parametrize("flag", ["-help", "-HELP"])
    def test_help_tells_the_options_in_the_known_form(self, flag: str) -> None:
        told = self.ask(flag)
        names = re.findall(r"(?m)^(\w+) += ", told)
        assert {"accept", "connect", "cert", "CAfile", "verify", "TIMEOUTidle", "workers", "chroot"} <= set(
            names
        )
        options = [line for line in told.splitlines() if re.match(r"\w+ += ", line)]
        assert all(re.match(r"\w+ *= \S", line) and line.index("=") == 23 for line in options)

    def test_help_leaves_out_what_is_not_supported(self) -> None:
        names = set(re.findall(r"(?m)^(\w+) += ", self.ask("-help")))
        assert not names & {"engine", "engineNum", "iconIdle", "compression", "sessiond", "provider"}

    @pytest.mark.parametrize("flag", ["-version", "-Version"])
    def test_version_tells_the_defaults(self, flag: str) -> None:
        told = self.ask(flag)
        assert re.search(r"(?m)^TIMEOUTbusy += 300\b", told)
        assert re.search(r"(?m)^securityLevel += 2$", told)
        assert re.search(r"(?m)^ciphers += HIGH:!aNULL:!SSLv2:!DH:!kDHEPSK$", told)
        assert "OpenSSL" in told

    @pytest.mark.parametrize("flag", ["-sockets", "-SOCKETS"])
    def test_sockets_tells_the_socket_options(self, flag: str) -> None:
        told = self.ask(flag)
        for option in ("SO_REUSEADDR", "SO_KEEPALIVE", "TCP_NODELAY", "SO_LINGER", "SO_BINDTODEVICE"):
            assert re.search(rf"(?m)^ +{option} +\|", told)

    @pytest.mark.parametrize("flag", ["-options", "-Options"])
    def test_options_tells_the_options_of_openssl(self, flag: str) -> None:
        told = self.ask(flag)
        for option in ("NO_TICKET", "NO_SSLv3", "CIPHER_SERVER_PREFERENCE", "DONT_INSERT_EMPTY_FRAGMENTS"):
            assert f"options = {option}\n" in told

    @pytest.mark.parametrize(
        "arguments",
        [["-nonsense"], ["-fd"], ["-fd", "many"], ["-fd", "1000"], ["-fd", "9" * 11], ["one", "two"], []],
    )
    def test_anything_else_is_an_error(self, arguments: list[str]) -> None:
        finished = run(command("stunnel", *arguments))
        assert finished.returncode == 1
        assert finished.stdout == ""
        assert "[!] " in finished.stderr
        assert "Traceback" not in finished.stderr


class TestAnswers:
    """`version`, `options` and the help."""

    def test_version(self) -> None:
        finished = run(command("version"))
        assert finished.returncode == 0
        assert re.search(r"culvert +\d+\.\d+", finished.stdout)
        assert re.search(r"OpenSSL +\d+\.\d+\.\d+", finished.stdout)

    def test_options_lists_every_option(self) -> None:
        finished = run(command("options"))
        assert finished.returncode == 0
        for name in ("accept", "connect", "workers", "chroot", "verifyPeer", "TIMEOUTclose", "protocol"):
            assert re.search(rf"(?m)^\s*{name}\b", finished.stdout)

    @pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["check", "--help"]])
    def test_help(self, arguments: list[str]) -> None:
        finished = run(command(*arguments))
        assert finished.returncode == 0
        assert "Usage" in finished.stdout

    def test_no_argument_at_all_shows_the_way(self) -> None:
        finished = run(command())
        assert "Usage" in finished.stdout + finished.stderr
        assert "Traceback" not in finished.stderr

    def test_an_unknown_option_of_the_command(self) -> None:
        finished = run(command("run", "--nonsense"))
        assert finished.returncode not in (0, 1)
        assert "Traceback" not in finished.stderr
