"""What a program of `exec` finds in its environment: `setEnv` and the names that tell of the client."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path

import pytest

from .certificates import Certificates
from .daemon import command, run
from .echo import open_tls
from .harness import Culvert
from .peers import TlsPeer, client_context, dial, read_all

Start = Callable[..., Culvert]


def service(certificates: Certificates, options: str = "") -> str:
    """A service that shows its program's environment."""
    leaf = certificates.server
    return (
        f"[env]\naccept = 127.0.0.1:0\nexec = /usr/bin/env\nexecArgs = env -0\n"
        f"cert = {leaf.cert}\nkey = {leaf.key}\n{options}\n"
    )


def variables(shown: bytes) -> dict[str, str]:
    """The variables of an environment; each stands there once."""
    pairs = [entry.decode().partition("=") for entry in shown.split(b"\0") if entry]
    names = [name for name, _, _ in pairs]
    assert len(set(names)) == len(names)
    return {name: value for name, _, value in pairs}


def told_at(line: str) -> datetime.datetime:
    """When a log line says that it was written."""
    return datetime.datetime.strptime(line[:19], "%Y.%m.%d %H:%M:%S")


def test_set_env_reaches_the_program(culvert: Start, certificates: Certificates) -> None:
    daemon = culvert(
        service(certificates),
        options="setEnv = ONE=first value\nsetEnv = TWO=a=b\nsetEnv = LANG=C.TEST\nsetEnv = EMPTY=\n",
        environment={"LANG": "C.UTF-8", "INHERITED": "yes"},
    )
    peer = open_tls(daemon.port("env"), certificates.ca.cert)
    found = variables(read_all(peer))
    peer.close()
    assert found["ONE"] == "first value"
    assert found["TWO"] == "a=b"
    assert found["LANG"] == "C.TEST"
    assert found["EMPTY"] == ""
    assert found["INHERITED"] == "yes"


def test_set_env_is_not_for_the_daemon(culvert: Start, certificates: Certificates) -> None:
    daemon = culvert(service(certificates), options="setEnv = TZ=Asia/Kathmandu\n", environment={"TZ": "UTC"})
    before = told_at(daemon.await_log("Accepting new connections").string)
    peer = open_tls(daemon.port("env"), certificates.ca.cert)
    assert variables(read_all(peer))["TZ"] == "Asia/Kathmandu"
    peer.close()
    after = told_at(daemon.await_log("Connection closed").string)
    assert abs(after - before) < datetime.timedelta(minutes=5)


def test_the_client_is_told(culvert: Start, certificates: Certificates) -> None:
    daemon = culvert(service(certificates, f"verify = 2\nCAfile = {certificates.ca.cert}"))
    context = client_context(trust=certificates.ca.cert, leaf=certificates.client)
    peer = TlsPeer(dial(daemon.port("env")), context, server=False)
    peer.handshake()
    found = variables(read_all(peer))
    assert (found["REMOTE_HOST"], int(found["REMOTE_PORT"])) == peer.sock.getsockname()
    peer.close()
    assert "client" in found["SSL_CLIENT_DN"]
    assert "Test CA" in found["SSL_CLIENT_I_DN"]


@pytest.mark.parametrize("value", ["NAME", "=value", ""])
def test_what_is_no_variable_is_refused(tmp_path: Path, certificates: Certificates, value: str) -> None:
    path = tmp_path / "daemon.conf"
    path.write_text(f"setEnv = {value}\n{service(certificates)}")
    finished = run(command("run", path))
    assert finished.returncode == 1
    assert f'{path}:1: "setEnv' in finished.stderr  # the value may be a secret, and need not be shown
