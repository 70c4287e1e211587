"""What a configuration that cannot be used gets: path, line, reason; exit 1; no traceback."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from .certificates import Certificates
from .daemon import command, fixed_ports, needs_root, run
from .harness import require

WAYS = [["run"], ["stunnel"], []]


@pytest.fixture
def port() -> Iterator[int]:
    """A port that nobody listens on."""
    with fixed_ports(1) as ports:
        yield ports[0]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The configuration file."""
    return tmp_path / "daemon.conf"


HEADER = "foreground = yes\nsyslog = no\npid =\n"


def service(certificates: Certificates, port: int, more: str = "") -> str:
    """A service that can be used; its options stand on the lines 5 to 8, `more` from line 9 on."""
    leaf = certificates.server
    return (
        HEADER
        + f"[echo]\naccept = 127.0.0.1:{port}\nexec = /bin/cat\ncert = {leaf.cert}\nkey = {leaf.key}\n{more}"
    )


def refused(path: Path, way: list[str] | None = None) -> str:
    """Runs the file, which is refused in order; gives standard error."""
    finished = run(command(*(["run"] if way is None else way), path))
    assert finished.returncode == 1, finished.stderr
    assert finished.stdout == ""
    assert "Traceback" not in finished.stderr
    assert "Accepting new connections" not in finished.stderr
    return finished.stderr


class TestLines:
    """Errors of a line."""

    @pytest.mark.parametrize("way", WAYS, ids=["run", "stunnel", "file"])
    def test_the_form(self, path: Path, certificates: Certificates, port: int, way: list[str]) -> None:
        path.write_text(service(certificates, port, "verify = 9\n"))
        told = refused(path, way)
        assert f'{path}:9: "verify = 9": ' in told
        assert "Configuration failed" in told

    def test_a_descriptor_is_named_by_its_number(
        self, path: Path, certificates: Certificates, port: int
    ) -> None:
        path.write_text(service(certificates, port, "verify = 9\n"))
        with path.open() as file:
            number = file.fileno()
            finished = run(command("stunnel", "-fd", str(number)), descriptors=[number])
        assert finished.returncode == 1
        assert ':9: "verify = 9": ' in finished.stderr

    def test_all_of_them_are_shown_together(self, path: Path, certificates: Certificates, port: int) -> None:
        path.write_text(
            "foreground = perhaps\n"
            + service(certificates, port, "verify = 9\nTIMEOUTidle = soon\nnonsense\n")
            + "[second]\naccept = 127.0.0.1:99999\n"
        )
        told = refused(path)
        for number, line in [
            (1, "foreground = perhaps"),
            (10, "verify = 9"),
            (11, "TIMEOUTidle = soon"),
            (12, "nonsense"),
            (14, "accept = 127.0.0.1:99999"),
        ]:
            assert f'{path}:{number}: "{line}": ' in told

    @pytest.mark.parametrize(
        ("line", "meant"),
        [("acept = 80", "accept"), ("conect = 80", "connect"), ("TIMEOUTiddle = 5", "TIMEOUTidle")],
    )
    def test_the_nearest_name_is_told(
        self, path: Path, certificates: Certificates, port: int, line: str, meant: str
    ) -> None:
        path.write_text(service(certificates, port, line + "\n"))
        (told,) = (x for x in refused(path).splitlines() if f'{path}:9: "{line}": ' in x)
        assert f'"{meant}"' in told.partition(f'"{line}": ')[2]

    @pytest.mark.parametrize(
        "line",
        [
            "engine = pkcs11",
            "iconIdle = idle.ico",
            "compression = zlib",
            "CAstore = file:/x",
            "config = DHParameters:x",
        ],
    )
    def test_what_never_comes_is_refused_with_the_reason(
        self, path: Path, certificates: Certificates, port: int, line: str
    ) -> None:
        path.write_text(line + "\n" + service(certificates, port))
        told = refused(path)
        assert f'{path}:1: "{line}": ' in told
        assert "OpenSSL" in told or "Windows" in told

    def test_a_file_without_a_section(self, path: Path, certificates: Certificates, port: int) -> None:
        path.write_text(service(certificates, port).replace("[echo]\n", ""))
        told = refused(path)
        assert "accept" in told
        assert "section" in told

    def test_a_service_without_its_ends(self, path: Path, certificates: Certificates, port: int) -> None:
        path.write_text(f"{HEADER}[alone]\nclient = yes\naccept = 127.0.0.1:{port}\n")
        assert "alone" in refused(path)

    def test_a_server_without_a_certificate(self, path: Path, port: int) -> None:
        path.write_text(f"{HEADER}[bare]\naccept = 127.0.0.1:{port}\nexec = /bin/cat\n")
        told = refused(path)
        assert "certificate" in told
        assert "bare" in told


class TestFiles:
    """Files that are not what they should be."""

    @pytest.mark.parametrize("way", WAYS, ids=["run", "stunnel", "file"])
    def test_no_file(self, path: Path, way: list[str]) -> None:
        told = refused(path, way)
        assert str(path) in told
        assert "No such file or directory" in told

    def test_a_directory(self, tmp_path: Path) -> None:
        told = refused(tmp_path)
        assert str(tmp_path) in told
        assert "directory" in told

    @pytest.mark.parametrize(
        "content",
        [bytes(range(256)) * 20, b"\x00" * 4096, b"\xff\xfe" + "[a]\n".encode("utf-16-le"), b"a" * 100_000],
        ids=["binary", "zeros", "utf-16", "long line"],
    )
    def test_bytes_that_are_no_configuration(self, path: Path, content: bytes) -> None:
        path.write_bytes(content)
        assert str(path) in refused(path)

    def test_an_empty_file(self, path: Path) -> None:
        path.write_text("")
        refused(path)

    def test_a_missing_key(self, path: Path, certificates: Certificates, port: int) -> None:
        missing = path.with_name("missing.key")
        path.write_text(service(certificates, port).replace(str(certificates.server.key), str(missing)))
        told = refused(path)
        assert f'{path}:8: "key = {missing}": ' in told
        assert "No such file or directory" in told

    def test_a_certificate_that_is_a_directory(
        self, path: Path, certificates: Certificates, port: int, tmp_path: Path
    ) -> None:
        path.write_text(service(certificates, port).replace(str(certificates.server.cert), str(tmp_path)))
        assert f'{path}:7: "cert = {tmp_path}": ' in refused(path)

    def test_a_key_of_another_certificate(self, path: Path, certificates: Certificates, port: int) -> None:
        other = certificates.client.key
        path.write_text(service(certificates, port).replace(str(certificates.server.key), str(other)))
        told = refused(path)
        assert str(other) in told
        assert str(certificates.server.cert) in told

    def test_a_missing_include(self, path: Path, certificates: Certificates, port: int) -> None:
        path.write_text("include = /nonexistent/conf.d\n" + service(certificates, port))
        assert f'{path}:1: "include = /nonexistent/conf.d": ' in refused(path)

    def test_an_error_in_an_included_file_names_that_file(
        self, path: Path, certificates: Certificates, port: int, tmp_path: Path
    ) -> None:
        parts = tmp_path / "parts"
        parts.mkdir()
        (parts / "a.conf").write_text("; fine\n\nverify = 9\n")
        path.write_text(service(certificates, port) + f"include = {parts}\n")
        assert f'{parts}/a.conf:3: "verify = 9": ' in refused(path)


class TestMachine:
    """What the machine does not give."""

    def test_an_unknown_user(self, path: Path, certificates: Certificates, port: int) -> None:
        path.write_text("setuid = no-such-user\n" + service(certificates, port))
        assert f'{path}:1: "setuid = no-such-user": ' in refused(path)

    @pytest.mark.parametrize("way", WAYS, ids=["run", "stunnel", "file"])
    def test_a_busy_port(self, path: Path, certificates: Certificates, port: int, way: list[str]) -> None:
        with socket.socket() as rival:
            rival.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            rival.bind(("127.0.0.1", port))
            rival.listen()
            path.write_text(service(certificates, port))
            told = refused(path, way)
        assert "Binding service [echo] failed" in told
        assert f"127.0.0.1:{port}" in told
        assert "Address already in use" in told

    def test_a_host_that_does_not_exist(self, path: Path, certificates: Certificates, port: int) -> None:
        path.write_text(
            service(certificates, port).replace(f"127.0.0.1:{port}", f"no-such-host.invalid:{port}")
        )
        told = refused(path)
        assert "no-such-host.invalid" in told

    def test_an_address_of_another_machine(self, path: Path, certificates: Certificates, port: int) -> None:
        path.write_text(service(certificates, port).replace(f"127.0.0.1:{port}", f"192.0.2.1:{port}"))
        told = refused(path)
        assert "192.0.2.1" in told
        assert "Cannot assign requested address" in told

    @needs_root
    def test_a_bad_jail(self, path: Path, certificates: Certificates, port: int) -> None:
        path.write_text("chroot = /nonexistent/jail\n" + service(certificates, port))
        assert "/nonexistent/jail" in refused(path)

    @needs_root
    def test_no_right_to_the_port(self, path: Path, certificates: Certificates) -> None:
        require("setpriv")
        path.write_text(service(certificates, 81))
        finished = run(["setpriv", "--bounding-set", "-all", "--inh-caps", "-all", *command("run", path)])
        assert finished.returncode == 1
        assert "127.0.0.1:81" in finished.stderr
        assert "Permission denied" in finished.stderr
        assert "Traceback" not in finished.stderr
