"""OCSP beside the verdict: nobody else waits for a responder, answers are kept, a server staples its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from .harness import Culvert, eventually
from .ocsp_world import OcspWorld, ocsp_world
from .openssl import s_client, shown
from .peers import background
from .pki import Pki, issue, status

Start = Callable[..., Culvert]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OcspWorld]:
    with ocsp_world(tmp_path_factory.mktemp("ocsp")) as world:
        yield world


def section(pki: Pki, name: str, options: str, kind: str = "good") -> str:
    """A server service that greets whom it accepts."""
    leaf = pki.kinds[kind]
    return (
        f"[{name}]\naccept = 127.0.0.1:0\nexec = /bin/echo\nexecArgs = echo welcome\n"
        f"cert = {leaf.cert}\nkey = {leaf.key}\nCAfile = {pki.files['root']}\nverifyChain = yes\n{options}\n"
    )


def welcomed(daemon: Culvert, service: str, pki: Pki, kind: str = "good") -> bool:
    """Whether the service greets who shows this kind of certificate."""
    return s_client(daemon.port(service), *shown(pki.kinds[kind])).received == "welcome\n"


def test_a_slow_responder_makes_nobody_else_wait(culvert: Start, world: OcspWorld) -> None:
    daemon = culvert(
        section(world.pki, "slow", f"OCSP = {world.urls['odd_slow']}\nTIMEOUTocsp = 15")
        + section(world.pki, "quick", f"OCSP = {world.urls['odd_good']}")
    )
    asked = len(world.odd.asked)
    waiting = background(welcomed, daemon, "slow", world.pki)
    eventually(lambda: "slow" in world.odd.asked[asked:], "the request to the slow responder")
    started = time.monotonic()
    assert welcomed(daemon, "quick", world.pki)
    assert time.monotonic() - started < 5
    assert not waiting.done(), "the slow one was not waited for"


def test_a_silent_responder_is_given_up_in_time(culvert: Start, world: OcspWorld) -> None:
    slow = f"OCSP = {world.urls['odd_slow']}\nTIMEOUTocsp = 1"
    daemon = culvert(
        section(world.pki, "strict", slow) + section(world.pki, "tolerant", f"{slow}\nOCSPrequire = no")
    )
    started = time.monotonic()
    assert not welcomed(daemon, "strict", world.pki)
    assert welcomed(daemon, "tolerant", world.pki)
    assert 1.9 < time.monotonic() - started < 8


def test_an_answer_is_kept_until_it_expires(culvert: Start, world: OcspWorld) -> None:
    daemon = culvert(section(world.pki, "s", f"OCSP = {world.urls['odd_good']}\nsessionResume = no"))
    asked = len(world.odd.asked)
    for _ in range(4):
        assert welcomed(daemon, "s", world.pki)
    assert len(world.odd.asked) <= asked + 2  # the server asks about its own certificate as well


def test_a_kept_answer_counts_for_its_certificate_alone(culvert: Start, world: OcspWorld) -> None:
    daemon = culvert(section(world.pki, "s", f"OCSP = {world.urls['odd_good']}"))
    assert welcomed(daemon, "s", world.pki)
    assert not welcomed(daemon, "s", world.pki, "other")
    assert welcomed(daemon, "s", world.pki)


def test_a_failure_is_not_kept(culvert: Start, world: OcspWorld) -> None:
    """What could not be found out once is asked for again."""
    daemon = culvert(section(world.pki, "s", f"OCSP = {world.urls['odd_error']}"))
    asked = len(world.odd.asked)
    assert not welcomed(daemon, "s", world.pki)
    assert not welcomed(daemon, "s", world.pki)
    assert len(world.odd.asked) >= asked + 2


def test_a_wrong_nonce_is_refused(culvert: Start, world: OcspWorld) -> None:
    """An answer of the past that somebody replays."""
    root, good = world.pki.root, world.pki.kinds["good"]
    world.odd.answers["replayed"] = status(root, good, nonce=b"0123456789abcdef")
    daemon = culvert(section(world.pki, "s", f"OCSP = {world.odd.url('replayed')}\nOCSPnonce = yes"))
    assert not welcomed(daemon, "s", world.pki)
    daemon.await_log("(?i)nonce")


STAPLED = "OCSP Response Status: successful"


def stapled(daemon: Culvert, service: str, version: str) -> str:
    """What the service's server staples, as openssl prints it."""
    return s_client(daemon.port(service), "-status", version=version, quiet=False).received


def served(pki: Pki, kind: str) -> str:
    """A server that verifies nobody and shows this certificate."""
    leaf = pki.kinds[kind]
    return (
        f"[{kind}]\naccept = 127.0.0.1:0\nexec = /bin/echo\nexecArgs = echo welcome\n"
        f"cert = {leaf.chain}\nkey = {leaf.key}\nCAfile = {pki.files['root']}\n"
    )


def test_a_server_staples_what_its_responder_says(culvert: Start, world: OcspWorld, version: str) -> None:
    """Fetched in the background: it is there soon after the start, without a client that asks for it."""
    daemon = culvert(served(world.pki, "aiagood"))
    found = eventually(
        lambda: STAPLED in (said := stapled(daemon, "aiagood", version)) and said, "a stapled answer"
    )
    assert "Cert Status: good" in str(found)


def test_a_server_whose_responder_is_down_serves_without(
    culvert: Start, world: OcspWorld, version: str
) -> None:
    daemon = culvert(served(world.pki, "aiadown"))
    said = stapled(daemon, "aiadown", version)
    assert "welcome" in said
    assert "OCSP response: no response sent" in said


def test_a_server_takes_up_a_responder_that_comes_back(culvert: Start, world: OcspWorld) -> None:
    """The answer is renewed in the background, and a missing one is asked for again."""
    pki, odd = world.pki, world.odd
    leaf = pki.kinds["returning"] = issue(
        pki.root, "returning", folder=pki.folder, responder=odd.url("returning")
    )
    odd.answers["returning"] = b"not yet"
    asked = len(odd.asked)
    daemon = culvert(served(pki, "returning"))
    eventually(lambda: "returning" in odd.asked[asked:], "the first request")
    odd.answers["returning"] = status(pki.root, leaf)
    eventually(lambda: STAPLED in stapled(daemon, "returning", "TLSv1.3"), "a stapled answer", timeout=40)


def test_a_server_staples_no_answer_that_clients_would_refuse(culvert: Start, world: OcspWorld) -> None:
    pki, odd = world.pki, world.odd
    leaf = pki.kinds["misled"] = issue(pki.root, "misled", folder=pki.folder, responder=odd.url("misled"))
    odd.answers["misled"] = status(pki.root, leaf, signer=pki.other)
    asked = len(odd.asked)
    daemon = culvert(served(pki, "misled"))
    eventually(lambda: "misled" in odd.asked[asked:], "the request")
    assert "OCSP response: no response sent" in stapled(daemon, "misled", "TLSv1.3")
