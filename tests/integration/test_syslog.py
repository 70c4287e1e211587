"""The log on its way to syslogd: a real datagram socket at /dev/log, where the machine has none."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .admin_client import Admin
from .certificates import Certificates
from .daemon import Detached, Jail, fixed_ports, needs_root
from .echo import echo_service, say_tls
from .handed import Handed, tcp_pair
from .harness import Culvert, eventually

DEV_LOG = Path("/dev/log")

DAEMON, LOCAL3 = 3, 19
"""Numbers of facilities (RFC 5424, 6.2.1)."""

MESSAGE = re.compile(
    r"^<(?P<priority>\d+)>[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d "
    r"(?P<ident>[^ \[\]:]+): LOG(?P<level>[0-7])\[(?P<id>[^\]]+)\]: (?P<text>.+)$"
)


class Syslogd:
    """The messages that arrived at /dev/log so far."""

    def __init__(self) -> None:
        self.messages: list[str] = []
        self.open()

    def open(self) -> None:
        """Listens."""
        self._ended = False
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._sock.bind(str(DEV_LOG))
        self._sock.settimeout(0.1)
        DEV_LOG.chmod(0o666)
        self._thread = threading.Thread(target=self._receive, daemon=True)
        self._thread.start()

    def _receive(self) -> None:
        while not self._ended:
            with contextlib.suppress(TimeoutError):
                self.messages.append(self._sock.recv(8192).decode(errors="replace"))

    def wait(self, text: str) -> re.Match[str]:
        """The first message that holds `text`, in its parts."""
        found = eventually(lambda: [m for m in self.messages if text in m], text)
        match = MESSAGE.match(found[0].rstrip("\0\n"))
        assert match, f"not a syslog message of the daemon: {found[0]!r}"
        return match

    def restart(self) -> None:
        """Takes the socket away and puts a new one there, as a restart of syslogd does."""
        self.close()
        self.open()

    def close(self) -> None:
        """Ends the service and takes its socket away."""
        self._ended = True
        self._thread.join()
        self._sock.close()
        DEV_LOG.unlink()


@pytest.fixture
def syslogd() -> Iterator[Syslogd]:
    """A syslogd for the test; skipped where the machine has its own, or where there is no right to be one."""
    if os.path.lexists(DEV_LOG):
        pytest.skip("the machine has a /dev/log")
    try:
        service = Syslogd()
    except OSError as error:
        pytest.skip(f"/dev/log cannot be made: {error}")
    yield service
    service.close()


HEADER = "foreground = yes\npid =\n"


def test_messages_have_ident_level_and_id(
    syslogd: Syslogd, culvert: Callable[..., Culvert], certificates: Certificates
) -> None:
    daemon = culvert(echo_service(certificates), header=HEADER + "debug = info\n")
    start = syslogd.wait("Accepting new connections")
    assert (start["ident"], start["level"]) == ("stunnel", "6")
    assert start["id"] in ("ui", "main")
    assert int(start["priority"]) == DAEMON * 8 + 6
    say_tls(daemon.port("echo"), certificates.ca.cert)
    accepted = syslogd.wait("Service [echo] accepted connection from 127.0.0.1:")
    assert int(accepted["priority"]) == DAEMON * 8 + 5
    assert accepted["id"] == "0"
    assert syslogd.wait("Connection closed: ")["id"] == "0"


def test_ident_and_facility_are_what_the_file_says(
    syslogd: Syslogd, culvert: Callable[..., Culvert], certificates: Certificates
) -> None:
    culvert(
        echo_service(certificates), header=HEADER + "syslog = yes\nservice = tunnel\ndebug = local3.info\n"
    )
    start = syslogd.wait("Accepting new connections")
    assert start["ident"] == "tunnel"
    assert int(start["priority"]) == LOCAL3 * 8 + 6


def test_no_turns_it_off(
    syslogd: Syslogd, culvert: Callable[..., Culvert], certificates: Certificates
) -> None:
    daemon = culvert(echo_service(certificates), header=HEADER + "syslog = no\ndebug = 7\n")
    say_tls(daemon.port("echo"), certificates.ca.cert)
    daemon.await_log("Connection closed")
    assert syslogd.messages == []


@needs_root
def test_it_is_reached_from_the_jail(syslogd: Syslogd, tmp_path: Path, certificates: Certificates) -> None:
    jail = Jail(tmp_path)
    with fixed_ports(1) as ports:
        text = jail.options.replace("syslog = no", "syslog = yes")
        text += echo_service(certificates, ports[0], sink="exec = /bin/busybox\nexecArgs = busybox cat")
        with Detached(tmp_path, text, pid_file=jail.pid_file, log_file=jail.log_file):
            say_tls(ports[0], certificates.ca.cert)
            syslogd.wait("Connection closed: ")


def test_a_machine_without_syslogd_is_served_too(
    culvert: Callable[..., Culvert], certificates: Certificates
) -> None:
    if os.path.lexists(DEV_LOG):
        pytest.skip("the machine has a /dev/log")
    daemon = culvert(echo_service(certificates), header=HEADER + "debug = 7\n")
    say_tls(daemon.port("echo"), certificates.ca.cert)
    daemon.await_log("Connection closed")


def test_one_that_takes_nothing_harms_no_connection(
    culvert: Callable[..., Culvert], certificates: Certificates
) -> None:
    if os.path.lexists(DEV_LOG):
        pytest.skip("the machine has a /dev/log")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as deaf:
        try:
            deaf.bind(str(DEV_LOG))
        except OSError as error:
            pytest.skip(f"/dev/log cannot be made: {error}")
        try:
            daemon = culvert(echo_service(certificates), header=HEADER + "debug = 7\n")
            for _ in range(20):
                say_tls(daemon.port("echo"), certificates.ca.cert)
        finally:
            DEV_LOG.unlink()


def test_it_is_found_again_after_a_restart(
    syslogd: Syslogd, culvert: Callable[..., Culvert], certificates: Certificates
) -> None:
    daemon = culvert(echo_service(certificates), header=HEADER + "debug = info\n")
    say_tls(daemon.port("echo"), certificates.ca.cert)
    syslogd.wait("Connection closed")
    syslogd.restart()
    syslogd.messages.clear()
    for _ in range(3):
        say_tls(daemon.port("echo"), certificates.ca.cert)
    syslogd.wait("Connection closed")


def test_what_it_did_not_hear_is_counted(
    syslogd: Syslogd, culvert: Callable[..., Culvert], certificates: Certificates, tmp_path: Path
) -> None:
    admin = tmp_path / "admin"
    header = f"{HEADER}debug = info\nadmin = {admin}\n"
    daemon = culvert(echo_service(certificates), header=header, workers=1)
    syslogd.close()
    try:
        for _ in range(3):
            say_tls(daemon.port("echo"), certificates.ca.cert)
        eventually(lambda: len(daemon.log.find("Connection closed")) == 3, "three connections")
    finally:
        syslogd.open()
    daemon.send_signal(signal.SIGUSR1)
    say_tls(daemon.port("echo"), certificates.ca.cert)
    told = syslogd.wait("could not be written")
    assert (told["level"], told["id"]) == ("4", "main")
    daemon.send_signal(signal.SIGUSR2)
    lost = daemon.await_log(r"LOG5\[main\]: Log lines lost in process \d+: (\d+) for syslog$")
    assert Admin(admin).metric("culvert_log_lines_lost_total", log="syslog") >= int(lost[1]) > 0


def test_a_client_of_inetd_is_not_told_what_is_wrong(syslogd: Syslogd, tmp_path: Path) -> None:
    """Its socket is on standard error too: what a start has to say goes to syslog alone."""
    ours, theirs = tcp_pair()
    fd = theirs.detach()
    with ours, Handed(tmp_path, "nonsense = 1\n", fd, fd, header="", stderr=fd) as process:
        assert ours.recv(100) == b""
        process.wait(1)
    message = syslogd.wait('there is no option "nonsense"')
    assert (message["ident"], message["level"], message["id"]) == ("stunnel", "3", "ui")
