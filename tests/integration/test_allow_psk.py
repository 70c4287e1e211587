"""`allowPSK`: of those who have a pre-shared key, only who is named may pass, in both versions and roles."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .greeters import greeting
from .harness import Culvert
from .openssl import s_client, shown
from .pki import Pki
from .stunnel import Stunnel

Start = Callable[..., Culvert]

KEYS = {"alice": "00112233445566778899aabbccddeeff", "bob": "ffeeddccbbaa99887766554433221100"}

PASSED = r"LOG5\[\S+\]: Identity accepted by allowPSK: PSK:{}$"
REFUSED = r"LOG3\[\S+\]: SSL_accept: no allow rule lets the pre-shared key identity {} pass$"


def by_psk(identity: str) -> list[str]:
    """The arguments of openssl for one identity."""
    return ["-psk", KEYS[identity], "-psk_identity", identity]


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of both identities."""
    path = tmp_path_factory.mktemp("psk") / "secrets"
    path.touch(mode=0o600)
    path.write_text("".join(f"{identity}:{key}\n" for identity, key in KEYS.items()))
    return path


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, secrets: Path, pki: Pki) -> Iterator[Culvert]:
    """Services that let alice pass, both, and alice beside whoever has a good certificate."""
    leaf = pki.kinds["good"]
    services = {
        "alice": "allowPSK = alice",
        "both": "allowPSK = bob\nallowPSK = alice",
        "beside": (
            f"allowPSK = alice\nallowCN = good\ncert = {leaf.cert}\nkey = {leaf.key}\n"
            f"CAfile = {pki.files['root']}\nverifyChain = yes"
        ),
    }
    text = "".join(
        f"[{name}]\naccept = 127.0.0.1:0\nexec = /bin/echo\nexecArgs = echo welcome\n"
        f"PSKsecrets = {secrets}\n{options}\n"
        for name, options in services.items()
    )
    with Culvert(tmp_path_factory.mktemp("server"), text) as daemon:
        yield daemon


def test_who_is_named_passes_and_the_log_says_by_which_rule(server: Culvert, version: str) -> None:
    mark = server.log.mark()
    visit = s_client(server.port("alice"), *by_psk("alice"), version=version)
    assert visit.received == "welcome\n", visit.said
    server.await_log(PASSED.format("alice"), since=mark)


def test_who_has_a_key_and_is_not_named_does_not(server: Culvert, version: str) -> None:
    mark = server.log.mark()
    assert s_client(server.port("alice"), *by_psk("bob"), version=version).received == ""
    server.await_log(REFUSED.format("bob"), since=mark)
    assert not server.log.find("welcome|Identity accepted", mark)


def test_any_one_of_several_rules_is_enough(server: Culvert, version: str) -> None:
    for identity in KEYS:
        assert s_client(server.port("both"), *by_psk(identity), version=version).received == "welcome\n"


def test_a_wrong_key_does_not_pass_under_a_name_that_is_allowed(server: Culvert, version: str) -> None:
    mark = server.log.mark()
    guessed = ["-psk", KEYS["bob"], "-psk_identity", "alice"]
    assert s_client(server.port("alice"), *guessed, version=version).received == ""
    server.await_log("LOG3.*SSL_accept", since=mark)
    assert not server.log.find("Identity accepted", mark)


def test_neither_certificate_nor_nothing_passes_a_rule_on_keys(
    server: Culvert, pki: Pki, version: str
) -> None:
    for kind in ("good", "none"):
        arguments = shown(pki.kinds.get(kind))
        assert s_client(server.port("alice"), *arguments, version=version).received == ""


def test_rules_on_keys_and_on_certificates_stand_side_by_side(
    server: Culvert, pki: Pki, version: str
) -> None:
    visitors = {
        "alice": (by_psk("alice"), True),
        "bob": (by_psk("bob"), False),
        "good": (shown(pki.kinds["good"]), True),
        "other": (shown(pki.kinds["other"]), False),
        "none": ([], False),
    }
    found = {
        name: s_client(server.port("beside"), *arguments, version=version).received == "welcome\n"
        for name, (arguments, _) in visitors.items()
    }
    assert found == {name: passes for name, (_, passes) in visitors.items()}


def test_culvert_and_stunnel_as_clients(
    server: Culvert, culvert: Start, tmp_path: Path, secrets: Path, version: str
) -> None:
    text = f"client = yes\nsslVersion = {version}\nPSKsecrets = {secrets}\n"
    for identity in KEYS:
        text += f"[{identity}]\naccept = 127.0.0.1:0\nconnect = 127.0.0.1:{server.port('alice')}\n"
        text += f"PSKidentity = {identity}\n"
    expected = {"alice": b"welcome\n", "bob": b""}
    ours = culvert(text)
    assert {identity: greeting(ours.port(identity)) for identity in KEYS} == expected
    folder = tmp_path / "stunnel"
    folder.mkdir()
    with Stunnel(folder, text) as stunnel:
        assert {identity: greeting(stunnel.ports[identity]) for identity in KEYS} == expected


def test_a_client_goes_where_its_own_identity_is_allowed(
    server: Culvert, culvert: Start, secrets: Path, version: str
) -> None:
    """In a client the identity is its own: the rule holds it to a server that has that key."""
    text = f"client = yes\nsslVersion = {version}\nPSKsecrets = {secrets}\n"
    for name, rule in (("right", "alice"), ("wrong", "bob")):
        text += f"[{name}]\naccept = 127.0.0.1:0\nconnect = 127.0.0.1:{server.port('both')}\n"
        text += f"PSKidentity = alice\nallowPSK = {rule}\n"
    daemon = culvert(text)
    assert greeting(daemon.port("right")) == b"welcome\n"
    daemon.await_log(PASSED.format("alice"))
    assert greeting(daemon.port("wrong")) == b""
    daemon.await_log(REFUSED.replace("accept", "connect").format("alice"))


@pytest.mark.parametrize("rule_goes", [False, True], ids=["key-taken-away", "rule-taken-away"])
def test_a_reload_takes_the_right_away(
    *, culvert: Start, tmp_path: Path, secrets: Path, version: str, rule_goes: bool
) -> None:
    def section(path: Path, rule: str) -> str:
        return (
            "[s]\naccept = 127.0.0.1:0\nexec = /bin/echo\nexecArgs = echo welcome\n"
            f"PSKsecrets = {path}\nallowPSK = {rule}\n"
        )

    daemon = culvert(section(secrets, "alice"))
    session = tmp_path / "session"
    first = s_client(daemon.port("s"), *by_psk("alice"), "-sess_out", session, version=version)
    assert first.received == "welcome\n"
    fewer = tmp_path / "fewer"
    fewer.touch(mode=0o600)
    fewer.write_text(f"bob:{KEYS['bob']}\n")
    mark = daemon.reload(section(secrets, "bob") if rule_goes else section(fewer, "alice"))
    daemon.await_log("Accepting new connections", since=mark)
    assert s_client(daemon.port("s"), *by_psk("alice"), version=version).received == ""
    if session.exists():
        assert s_client(daemon.port("s"), "-sess_in", session, version=version).received == ""
