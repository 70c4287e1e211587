"""`keylog = FILE`: the secrets of each session in NSS's format, for who must look into his own traffic."""

from __future__ import annotations

import re
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from .greeters import Greeters, greeting
from .harness import Culvert, eventually
from .openssl import s_client
from .pki import Pki
from .refusals import refuse

Start = Callable[..., Culvert]

LABELS = {
    "TLSv1.2": {"CLIENT_RANDOM"},
    "TLSv1.3": {
        "CLIENT_HANDSHAKE_TRAFFIC_SECRET",
        "SERVER_HANDSHAKE_TRAFFIC_SECRET",
        "CLIENT_TRAFFIC_SECRET_0",
        "SERVER_TRAFFIC_SECRET_0",
        "EXPORTER_SECRET",
    },
}
"""What Wireshark needs of each version (NSS key log format; RFC 9850)."""

LINE = re.compile(r"(?P<label>[A-Z0-9_]+) (?P<random>[0-9a-f]{64}) [0-9a-f]+")


def section(pki: Pki, path: Path, more: str = "") -> str:
    """A server service with a key log."""
    leaf = pki.kinds["good"]
    return (
        f"[s]\naccept = 127.0.0.1:0\nexec = /bin/echo\nexecArgs = echo welcome\n"
        f"cert = {leaf.cert}\nkey = {leaf.key}\nkeylog = {path}\n{more}"
    )


def secrets(path: Path) -> set[str]:
    """The lines of a key log, without its comments; each holds to the format."""
    lines = {line for line in path.read_text().splitlines() if not line.startswith("#")}
    for line in lines:
        assert LINE.fullmatch(line), line
    return lines


def test_a_server_logs_what_its_client_does(culvert: Start, pki: Pki, tmp_path: Path, version: str) -> None:
    """Both ends of a session have the same secrets, and the file the same lines."""
    path, other = tmp_path / "keys", tmp_path / "clients"
    daemon = culvert(section(pki, path))
    visit = s_client(daemon.port("s"), "-keylogfile", other, version=version)
    assert visit.received == "welcome\n"
    eventually(lambda: path.exists() and LABELS[version] <= labels(path), "the session's lines")
    assert secrets(path) == secrets(other)


def labels(path: Path) -> set[str]:
    """The labels of a key log's whole lines."""
    return {line.split()[0] for line in path.read_text().split("\n")[:-1] if not line.startswith("#")}


def test_a_client_logs_too(culvert: Start, pki: Pki, tmp_path: Path, version: str) -> None:
    path = tmp_path / "keys"
    with Greeters({"server": pki.kinds["good"]}, version) as greeters:
        daemon = culvert(
            f"[c]\nclient = yes\naccept = 127.0.0.1:0\nconnect = 127.0.0.1:{greeters.ports['server']}\n"
            f"keylog = {path}\n"
        )
        assert greeting(daemon.port("c")) == b"I am server"
        eventually(lambda: path.exists() and LABELS[version] <= labels(path), "the session's lines")
    assert {line.split()[0] for line in secrets(path)} == LABELS[version]


def test_lines_are_added_to_what_is_there(culvert: Start, pki: Pki, tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.touch(mode=0o600)
    path.write_text("# from before\n")
    daemon = culvert(section(pki, path), workers=2)
    for _ in range(3):
        assert s_client(daemon.port("s"), version="TLSv1.2").received == "welcome\n"
    eventually(lambda: len(secrets(path)) == 3, "three sessions")
    assert path.read_text().startswith("# from before\n")


def test_nobody_else_can_read_it(culvert: Start, pki: Pki, tmp_path: Path) -> None:
    path = tmp_path / "keys"
    daemon = culvert(section(pki, path))
    assert s_client(daemon.port("s")).received == "welcome\n"
    eventually(path.exists, "the file")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_start_warns(culvert: Start, pki: Pki, tmp_path: Path) -> None:
    path = tmp_path / "keys"
    daemon = culvert(section(pki, path))
    assert daemon.log.find(rf"LOG4\[\S+\]: .*({path}.*keylog|keylog.*{path})|\[.\] .*keylog")


def test_no_secret_reaches_the_log(culvert: Start, pki: Pki, tmp_path: Path, version: str) -> None:
    path = tmp_path / "keys"
    daemon = culvert(section(pki, path))
    assert s_client(daemon.port("s"), version=version).received == "welcome\n"
    eventually(lambda: path.exists() and LABELS[version] <= labels(path), "the session's lines")
    for line in secrets(path):
        assert not daemon.log.find(line.split()[2])


@pytest.mark.parametrize("what", ["directory", "nowhere"])
def test_a_file_that_cannot_be_opened_fails_the_start(pki: Pki, tmp_path: Path, what: str) -> None:
    path = tmp_path if what == "directory" else tmp_path / "no" / "such" / "folder" / "keys"
    refuse(tmp_path, section(pki, path), rf"culvert\.conf:\d+: .*{path}")


def test_without_the_option_nothing_is_logged(culvert: Start, pki: Pki, tmp_path: Path) -> None:
    """Not by the environment either, which other programs heed."""
    path = tmp_path / "keys"
    text = "".join(
        line for line in section(pki, path).splitlines(keepends=True) if not line.startswith("keylog")
    )
    daemon = culvert(text, environment={"SSLKEYLOGFILE": str(path)})
    assert s_client(daemon.port("s")).received == "welcome\n"
    assert not path.exists()
