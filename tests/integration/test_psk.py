"""Pre-shared keys in both roles: many identities, no certificate, and nothing told to who guesses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from .greeters import greeting
from .harness import Culvert
from .openssl import PAGE, s_client, s_server
from .outcomes import Sayer
from .peers import PlainPeer, dial
from .pki import Pki
from .refusals import refuse, remarks
from .stunnel import Stunnel

Start = Callable[..., Culvert]

TEXT_KEY = "correct horse, battery: staple"
KEYS = {
    "alice": "00112233445566778899aabbccddeeff",
    "bob": TEXT_KEY.encode().hex(),
    "carol of the third floor": "c0ffee" * 20,
}
"""The identities in their order, with the keys as openssl takes them."""

WRONG = "ff" * 16


def secrets(folder: Path, *lines: str, mode: int = 0o600) -> Path:
    """A file for PSKsecrets; without lines it has all of KEYS, one of them as text."""
    path = folder / "secrets"
    path.touch()
    path.chmod(mode)
    every = [f"{name}:{TEXT_KEY if name == 'bob' else key}" for name, key in KEYS.items()]
    path.write_text("".join(f"{line}\n" for line in (lines or every)))
    return path


def by_psk(identity: str, key: str) -> list[str]:
    """The arguments of openssl for one identity."""
    return ["-psk", key, "-psk_identity", identity]


def server(path: Path, more: str = "", name: str = "s") -> str:
    """A server service that has no certificate unless `more` brings one."""
    return (
        f"[{name}]\naccept = 127.0.0.1:0\nexec = /bin/echo\nexecArgs = echo welcome\n"
        f"PSKsecrets = {path}\n{more}\n"
    )


@pytest.fixture
def served(culvert: Start, tmp_path: Path) -> Culvert:
    """A server with all identities."""
    return culvert(server(secrets(tmp_path)))


class TestServer:
    """Culvert takes the client's identity."""

    @pytest.mark.parametrize("identity", KEYS)
    def test_each_identity_with_its_key(self, served: Culvert, version: str, identity: str) -> None:
        visit = s_client(served.port("s"), *by_psk(identity, KEYS[identity]), version=version)
        assert visit.received == "welcome\n", visit.said

    def test_an_identity_with_anothers_key(self, served: Culvert, version: str) -> None:
        visit = s_client(served.port("s"), *by_psk("alice", KEYS["bob"]), version=version)
        assert visit.received == ""

    def test_a_client_without_a_key(self, served: Culvert, version: str) -> None:
        assert s_client(served.port("s"), version=version).received == ""

    @pytest.mark.parametrize("certified", [False, True], ids=["keys-alone", "with-certificate"])
    def test_a_wrong_key_and_an_unknown_identity_look_the_same(
        self, *, culvert: Start, pki: Pki, tmp_path: Path, version: str, certified: bool
    ) -> None:
        leaf = pki.kinds["good"]
        more = f"cert = {leaf.cert}\nkey = {leaf.key}\n" if certified else ""
        port = culvert(server(secrets(tmp_path), more)).port("s")
        wrong = s_client(port, *by_psk("alice", WRONG), version=version)
        unknown = s_client(port, *by_psk("mallory", WRONG), version=version)
        # Where the certificate serves anybody, a wrong key may be as good as none; it must only be no hint.
        assert (wrong.received, wrong.alert) == (unknown.received, unknown.alert)
        assert certified or (wrong.received == "" and wrong.alert)

    def test_neither_keys_nor_guesses_reach_the_log(self, served: Culvert, version: str) -> None:
        port = served.port("s")
        s_client(port, *by_psk("alice", KEYS["alice"]), version=version)
        s_client(port, *by_psk("alice", WRONG), version=version)
        served.await_log("Connection (closed|reset)|SSL_accept")
        for secret in (*KEYS.values(), TEXT_KEY, WRONG):
            assert not served.log.find(f"(?i){secret}")

    def test_the_log_names_the_identity(self, served: Culvert, version: str) -> None:
        s_client(served.port("s"), *by_psk("alice", KEYS["alice"]), version=version)
        served.await_log(r"LOG[56]\[\S+\]: .*PSK.*alice")

    def test_a_hostile_identity_cannot_forge_a_line(self, served: Culvert) -> None:
        forged = "x\n2026.01.01 00:00:00 LOG5[7]: Configuration successful \x1b[31m"
        s_client(served.port("s"), *by_psk(forged, WRONG), version="TLSv1.2")
        s_client(served.port("s"), *by_psk("y" * 256, WRONG), version="TLSv1.2")
        assert s_client(served.port("s"), *by_psk("alice", KEYS["alice"])).received == "welcome\n"
        assert not served.log.find(r"^2026\.01\.01|\x1b")

    def test_a_certificate_beside_the_keys_serves_who_has_no_key(
        self, culvert: Start, pki: Pki, tmp_path: Path, version: str
    ) -> None:
        leaf = pki.kinds["good"]
        daemon = culvert(server(secrets(tmp_path), f"cert = {leaf.cert}\nkey = {leaf.key}\n"))
        trusting = ["-CAfile", str(pki.root.cert), "-verify_return_error"]
        assert s_client(daemon.port("s"), *trusting, version=version).received == "welcome\n"
        known = by_psk("alice", KEYS["alice"])
        assert s_client(daemon.port("s"), *known, version=version).received == "welcome\n"

    def test_a_session_by_key_is_not_resumed(self, served: Culvert, tmp_path: Path, version: str) -> None:
        session = tmp_path / "session"
        known = by_psk("alice", KEYS["alice"])
        first = s_client(served.port("s"), *known, "-sess_out", session, version=version)
        assert first.received == "welcome\n"
        kept: list[str | Path] = ["-sess_in", session] if session.exists() else []
        again = s_client(served.port("s"), *known, *kept, version=version)
        assert again.received == "welcome\n", again
        assert not served.log.find("previous session reused")

    def test_a_key_that_a_reload_took_away(self, served: Culvert, tmp_path: Path, version: str) -> None:
        """Neither the key nor the session made by it opens any more."""
        session = tmp_path / "session"
        known = by_psk("alice", KEYS["alice"])
        first = s_client(served.port("s"), *known, "-sess_out", session, version=version)
        assert first.received == "welcome\n"
        mark = served.reload(server(secrets(tmp_path, f"bob:{TEXT_KEY}")))
        served.await_log("Accepting new connections", since=mark)
        assert s_client(served.port("s"), *known, version=version).received == ""
        assert s_client(served.port("s"), "-sess_in", session, version=version).received == ""
        remaining = by_psk("bob", KEYS["bob"])
        assert s_client(served.port("s"), *remaining, version=version).received == "welcome\n"

    def test_stunnel_as_the_client(self, served: Culvert, tmp_path: Path, version: str) -> None:
        folder = tmp_path / "stunnel"
        folder.mkdir()
        text = f"client = yes\nsslVersion = {version}\nPSKsecrets = {secrets(tmp_path)}\n"
        for number, identity in enumerate(("alice", "bob")):
            text += f"[c{number}]\naccept = 127.0.0.1:0\nconnect = 127.0.0.1:{served.port('s')}\n"
            text += f"PSKidentity = {identity}\n"
        with Stunnel(folder, text) as stunnel:
            assert greeting(stunnel.ports["c0"]) == b"welcome\n"
            assert greeting(stunnel.ports["c1"]) == b"welcome\n"


def page(port: int) -> bytes:
    """The first bytes of an s_server's page, or nothing where it is not reached."""
    try:
        with dial(port) as sock:
            sock.sendall(PAGE)
            return PlainPeer(sock).recv(15)
    except ConnectionError:
        return b""


def client(path: Path, port: int, more: str = "", name: str = "c") -> str:
    """A client service."""
    return (
        f"[{name}]\nclient = yes\naccept = 127.0.0.1:0\nconnect = 127.0.0.1:{port}\n"
        f"PSKsecrets = {path}\n{more}\n"
    )


class TestClient:
    """Culvert sends an identity."""

    @pytest.fixture(params=KEYS)
    def identity(self, request: pytest.FixtureRequest) -> str:
        """Each of them."""
        return str(request.param)

    @pytest.fixture
    def openssl(self, identity: str) -> Iterator[int]:
        """The port of a server that knows this identity alone and has no certificate."""
        with s_server("-nocert", *by_psk(identity, KEYS[identity])) as running:
            yield running.port

    def test_the_identity_that_is_asked_for(
        self, *, culvert: Start, tmp_path: Path, version: str, identity: str, openssl: int
    ) -> None:
        more = f"PSKidentity = {identity}\nsslVersion = {version}"
        daemon = culvert(client(secrets(tmp_path), openssl, more))
        assert page(daemon.port("c")) == b"HTTP/1.0 200 ok"

    def test_the_first_identity_is_sent_by_default(
        self, culvert: Start, tmp_path: Path, version: str
    ) -> None:
        daemon = culvert(server(secrets(tmp_path)))
        for number, first in enumerate(KEYS):
            folder = tmp_path / str(number)
            folder.mkdir()
            key = TEXT_KEY if first == "bob" else KEYS[first]
            others = [f"other{number}:{WRONG}"]
            tunnel = culvert(
                client(
                    secrets(folder, f"{first}:{key}", *others), daemon.port("s"), f"sslVersion = {version}"
                )
            )
            assert greeting(tunnel.port("c")) == b"welcome\n"

    def test_a_wrong_key_is_refused(self, culvert: Start, tmp_path: Path, version: str) -> None:
        with s_server("-nocert", *by_psk("alice", WRONG)) as running:
            daemon = culvert(client(secrets(tmp_path), running.port, f"sslVersion = {version}"))
            assert page(daemon.port("c")) == b""

    def test_a_server_with_a_certificate_does_not_stand_for_the_key(
        self, culvert: Start, pki: Pki, tmp_path: Path, version: str
    ) -> None:
        """A client that has a key and verifies no certificate would accept anybody's."""
        leaf = pki.kinds["stranger"]
        with s_server("-cert", leaf.cert, "-key", leaf.key) as running:
            daemon = culvert(client(secrets(tmp_path), running.port, f"sslVersion = {version}"))
            warned = daemon.log.find("needs authentication to prevent MITM")
            assert page(daemon.port("c")) == b"" or warned

    def test_stunnel_as_the_server(self, culvert: Start, tmp_path: Path, version: str) -> None:
        folder = tmp_path / "stunnel"
        folder.mkdir()
        path = secrets(tmp_path)
        with ExitStack() as stack:
            welcome = stack.enter_context(Sayer(b"welcome\n"))
            text = f"[s]\naccept = 127.0.0.1:0\nconnect = 127.0.0.1:{welcome.port}\nPSKsecrets = {path}\n"
            stunnel = stack.enter_context(Stunnel(folder, f"{text}ciphers = PSK\n"))
            more = f"sslVersion = {version}\nPSKidentity = bob"
            daemon = culvert(client(path, stunnel.ports["s"], more))
            assert greeting(daemon.port("c")) == b"welcome\n"

    def test_two_culverts(self, culvert: Start, tmp_path: Path, version: str) -> None:
        path = secrets(tmp_path)
        daemon = culvert(server(path))
        tunnel = culvert(client(path, daemon.port("s"), f"sslVersion = {version}"))
        assert [greeting(tunnel.port("c")) for _ in range(2)] == [b"welcome\n"] * 2


class TestFile:
    """What is wrong with the file of keys is said by its line, and never with a key."""

    @pytest.mark.parametrize("mode", [0o644, 0o604])
    def test_a_file_that_others_can_read_is_warned_about(
        self, culvert: Start, tmp_path: Path, mode: int
    ) -> None:
        daemon = culvert(server(secrets(tmp_path, mode=mode)))
        assert daemon.log.find(rf"(LOG4|\[.\]).*{tmp_path / 'secrets'}")

    def test_a_file_of_ones_own_is_not(self, culvert: Start, tmp_path: Path) -> None:
        daemon = culvert(server(secrets(tmp_path)))
        assert not daemon.log.find(rf"LOG[0-4]\[.*{tmp_path / 'secrets'}")

    @pytest.mark.parametrize(
        "line",
        [
            "no colon in this line",
            ":00112233445566778899aabbccddeeff",
            "dora:",
            "dora:tooshort",
            "dora:00112233445566",
            f"{'d' * 300}:00112233445566778899aabbccddeeff",
            f"dora:{'ab' * 600}",
            "alice:ffeeddccbbaa99887766554433221100",
        ],
        ids=["colon", "identity", "empty", "short", "short-hex", "long-identity", "long-key", "twice"],
    )
    def test_a_malformed_line_is_named_by_its_number(self, tmp_path: Path, line: str) -> None:
        path = secrets(tmp_path, f"alice:{KEYS['alice']}", line, f"bob:{TEXT_KEY}")
        refuse(tmp_path, server(path), rf"{path}(:2\b|.*\bline 2\b)")

    def test_no_key_is_shown_with_a_malformed_line(self, tmp_path: Path) -> None:
        path = secrets(tmp_path, "dora ffeeddccbbaa99887766554433221100")
        daemon = Culvert(tmp_path, server(path))
        daemon.launch()
        try:
            assert daemon.wait() == 1
        finally:
            daemon.kill()
        assert not daemon.log.find("ffeeddccbb")

    def test_a_missing_file(self, tmp_path: Path) -> None:
        path = tmp_path / "nowhere"
        refuse(tmp_path, server(path), rf"culvert\.conf:\d+: .*{path}.*(?i:no such file)")

    def test_an_empty_file(self, tmp_path: Path) -> None:
        path = secrets(tmp_path)
        path.write_text("")
        refuse(tmp_path, server(path), str(path))

    def test_an_identity_that_the_file_does_not_have(self, tmp_path: Path) -> None:
        text = client(secrets(tmp_path), 9, "PSKidentity = mallory")
        refuse(tmp_path, text, r"culvert\.conf:\d+: .*mallory")

    def test_an_identity_without_a_file(self, tmp_path: Path) -> None:
        text = "[c]\nclient = yes\naccept = 127.0.0.1:0\nconnect = 127.0.0.1:9\nPSKidentity = alice\n"
        assert any("PSKsecrets" in line for line in remarks(tmp_path, text))
