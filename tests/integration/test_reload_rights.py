"""SIGHUP where the workers may do nothing any more: low ports, private files, the jail, a moved directory."""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from .certificates import Certificates, Leaf
from .daemon import NOBODY, Detached, Jail, answers, children, fixed_ports, needs_root, status
from .echo import finish, open_tls, say_tls
from .harness import eventually
from .peers import TlsPeer


def reload(daemon: Detached, text: str | None = None) -> int:
    """Loads the configuration anew, waits until that is done, and gives the log's mark from before."""
    mark = daemon.log.mark()
    if text is not None:
        daemon.configure(text)
    daemon.send_signal(signal.SIGHUP)
    daemon.log.wait("Accepting new connections", since=mark)
    return mark


def shows(peer: TlsPeer, leaf: Leaf) -> bool:
    """Whether the daemon showed this certificate; ends the connection."""
    shown = peer.engine.get_peer_certificate()
    finish(peer)
    return shown is not None and shown.to_cryptography() == leaf.certificate


@contextlib.contextmanager
def low_ports(count: int) -> Iterator[list[int]]:
    """Ports below 1024 that nobody uses."""
    with contextlib.ExitStack() as stack:
        found: list[int] = []
        for port in range(1023, 512, -1):
            if len(found) == count:
                break
            sock = stack.enter_context(socket.socket())
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                sock.bind(("127.0.0.1", port))
            except OSError:
                continue
            found.append(port)
        if len(found) < count:
            pytest.skip("no free port below 1024")
        yield found


@needs_root
class TestJailed:
    """chroot, setuid and setgid in force."""

    PROGRAM = "exec = /bin/busybox\nexecArgs = busybox cat\n"

    @pytest.fixture
    def ports(self) -> Iterator[list[int]]:
        """Two low ports."""
        with low_ports(2) as ports:
            yield ports

    @pytest.fixture
    def files(self, tmp_path: Path, certificates: Certificates) -> Path:
        """A folder that root alone can enter, with the certificate and key in it."""
        folder = tmp_path / "private"
        folder.mkdir(mode=0o700)
        self.install(folder, certificates.server)
        return folder

    @staticmethod
    def install(folder: Path, leaf: Leaf) -> None:
        """Puts a certificate and its key in the place of the ones before."""
        shutil.copy(leaf.cert, folder / "live.crt")
        shutil.copy(leaf.key, folder / "live.key")
        (folder / "live.key").chmod(0o600)

    def service(self, name: str, port: int, files: Path) -> str:
        """A service that gives back what it gets."""
        return (
            f"[{name}]\naccept = 127.0.0.1:{port}\n{self.PROGRAM}"
            f"cert = {files}/live.crt\nkey = {files}/live.key\n"
        )

    @pytest.fixture
    def jail(self, tmp_path: Path) -> Jail:
        """A directory to be jailed in."""
        return Jail(tmp_path)

    @pytest.fixture
    def daemon(self, tmp_path: Path, jail: Jail, files: Path, ports: list[int]) -> Iterator[Detached]:
        """A jailed daemon on a low port."""
        text = jail.options + self.service("echo", ports[0], files)
        with Detached(tmp_path, text, pid_file=jail.pid_file, log_file=jail.log_file) as daemon:
            yield daemon

    def test_a_low_port_is_kept(self, daemon: Detached, certificates: Certificates, ports: list[int]) -> None:
        for _ in range(3):
            reload(daemon)
            say_tls(ports[0], certificates.ca.cert)

    def test_a_new_low_port_can_be_taken(
        self, daemon: Detached, certificates: Certificates, ports: list[int], jail: Jail, files: Path
    ) -> None:
        reload(daemon, jail.options + self.service("echo", ports[1], files))
        say_tls(ports[1], certificates.ca.cert)
        eventually(lambda: not answers(ports[0]), "the old port's end")

    def test_a_private_key_is_read_anew(
        self, daemon: Detached, certificates: Certificates, ports: list[int], files: Path
    ) -> None:
        renewed = certificates.ca.leaf("renewed", hosts=("localhost",))
        self.install(files, renewed)
        reload(daemon)
        assert shows(open_tls(ports[0], certificates.ca.cert), renewed)

    def test_new_workers_are_jailed_and_the_pid_file_stays(
        self, daemon: Detached, ports: list[int], jail: Jail, certificates: Certificates
    ) -> None:
        inode = jail.pid_file.stat().st_ino
        old = set(children(daemon.pid))
        reload(daemon)
        eventually(lambda: old.isdisjoint(children(daemon.pid)), "the old workers' end")
        for pid in children(daemon.pid):
            assert Path(f"/proc/{pid}/root").readlink() == jail.root
            assert status(pid)["Uid"] == [str(NOBODY)] * 4
        assert jail.pid_file.stat().st_ino == inode
        assert jail.pid_file.read_text() == f"{daemon.pid}\n"
        say_tls(ports[0], certificates.ca.cert)

    def test_a_new_log_inside_the_jail(
        self, daemon: Detached, ports: list[int], jail: Jail, files: Path, certificates: Certificates
    ) -> None:
        options = jail.options.replace("output = /run/daemon.log", "output = /run/moved.log")
        daemon.configure(options + self.service("echo", ports[0], files))
        daemon.send_signal(signal.SIGHUP)
        moved = jail.room / "moved.log"
        eventually(lambda: moved.exists() and "Accepting new" in moved.read_text(), "the moved log")
        say_tls(ports[0], certificates.ca.cert)
        eventually(lambda: "Connection closed" in moved.read_text(), "the connection in the moved log")


class TestFixedAtStart:
    """What a reload does not change is said, and stays."""

    @pytest.fixture
    def port(self) -> Iterator[int]:
        """A port that stays the same."""
        with fixed_ports(1) as ports:
            yield ports[0]

    @pytest.mark.parametrize(
        ("before", "after"),
        [
            ("pid = {folder}/daemon.pid", "pid = {folder}/other.pid"),
            ("", "chroot = {folder}/jail"),
            ("", "foreground = yes"),
            ("", "setuid = nobody"),
            ("", "setgid = nogroup"),
        ],
    )
    def test_a_change_is_ignored_with_a_warning(
        self, tmp_path: Path, certificates: Certificates, port: int, before: str, after: str
    ) -> None:
        name = after.partition(" ")[0]
        (tmp_path / "jail").mkdir()
        leaf = certificates.server

        def text(option: str) -> str:
            pid = "" if option.startswith("pid") else "pid = {folder}/daemon.pid\n"
            return (
                f"{pid}{option}\nsyslog = no\ndebug = 7\noutput = {{folder}}/daemon.log\n"
                f"[echo]\naccept = 127.0.0.1:{port}\nexec = /bin/cat\ncert = {leaf.cert}\nkey = {leaf.key}\n"
            ).format(folder=tmp_path)

        with Detached(tmp_path, text(before)) as daemon:
            mark = reload(daemon, text(after))
            daemon.log.wait(rf"LOG4\[\w+\]: .*\b{name}\b", since=mark)
            say_tls(port, certificates.ca.cert)
            assert daemon.pid_file.read_text() == f"{daemon.pid}\n"
            assert not (tmp_path / "other.pid").exists()
            for pid in children(daemon.pid):
                assert Path(f"/proc/{pid}/root").readlink() == Path("/")
                assert status(pid)["Uid"] == status(daemon.pid)["Uid"]
                assert status(pid)["Gid"] == status(daemon.pid)["Gid"]
            mark = reload(daemon, text(before))
            assert not daemon.log.find(rf"LOG4\[\w+\]: .*\b{name}\b", since=mark)
        assert not daemon.pid_file.exists()


def test_relative_paths_hold_after_the_daemon_has_moved(tmp_path: Path, certificates: Certificates) -> None:
    leaf = certificates.server
    shutil.copy(leaf.cert, tmp_path / "live.crt")
    shutil.copy(leaf.key, tmp_path / "live.key")
    (tmp_path / "parts").mkdir()
    with fixed_ports(1) as (port,):
        (tmp_path / "parts" / "echo.conf").write_text(
            f"[echo]\naccept = 127.0.0.1:{port}\nexec = /bin/cat\ncert = live.crt\nkey = live.key\n"
        )
        text = (
            "syslog = no\ndebug = 7\n"
            f"pid = {tmp_path}/daemon.pid\noutput = {tmp_path}/daemon.log\ninclude = parts\n"
        )
        daemon = Detached(tmp_path, text)
        try:
            daemon.start(Path("daemon.conf"))
            assert Path(f"/proc/{daemon.pid}/cwd").readlink() == Path("/")
            say_tls(port, certificates.ca.cert)
            renewed = certificates.ca.leaf("renewed", hosts=("localhost",))
            shutil.copy(renewed.cert, tmp_path / "live.crt")
            shutil.copy(renewed.key, tmp_path / "live.key")
            reload(daemon)
            assert shows(open_tls(port, certificates.ca.cert), renewed)
            daemon.stop()
        finally:
            daemon.kill()
