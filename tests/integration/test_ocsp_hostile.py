"""Responders that lie, stall or babble prove nothing, and cost nobody else anything."""

from __future__ import annotations

import datetime
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from .certificates import Authority, Leaf
from .greeters import Greeters, greeting
from .harness import Culvert, eventually
from .peers import background, dial
from .responders import MINUTE, REVOKED, Responder, access, answer, ok

Start = Callable[..., Culvert]

PATIENT = 1.0
"""TIMEOUTocsp in these tests, in seconds."""


@dataclass(frozen=True)
class World:
    """A TLS server, the authority that certified it, one of the same name, and a responder."""

    authority: Authority
    namesake: Authority
    server: Leaf
    other: Leaf
    ports: dict[str, int]
    responder: Responder

    def service(self, name: str, options: str, port: int | None = None) -> str:
        """A client service that verifies its server, which is `server` unless there is a port."""
        return (
            f"[{name}]\nclient = yes\naccept = 127.0.0.1:0\n"
            f"connect = 127.0.0.1:{port or self.ports['server']}\n"
            f"CAfile = {self.authority.cert}\nverifyChain = yes\nTIMEOUTocsp = {PATIENT}\n{options}\n"
        )


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder, elsewhere = tmp_path_factory.mktemp("ocsp"), tmp_path_factory.mktemp("elsewhere")
    authority, namesake = Authority(folder, "OCSP CA"), Authority(elsewhere, "OCSP CA")
    server, other = authority.leaf("server"), authority.leaf("other")
    with Responder() as responder, Greeters({"server": server, "other": other}) as greeters:
        yield World(authority, namesake, server, other, greeters.ports, responder)


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory, world: World) -> Iterator[Culvert]:
    asks = f"OCSP = {world.responder.url}\n"
    text = world.service("strict", asks) + world.service("lenient", asks + "OCSPrequire = no")
    text += world.service("nonce", asks + "OCSPnonce = yes") + world.service(
        "unasked", "", world.ports["other"]
    )
    with Culvert(tmp_path_factory.mktemp("client"), text) as daemon:
        yield daemon


def http(status: str, *lines: str) -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", *lines, "", ""]).encode()


LONG_AGO = -60 * MINUTE

ANSWERS: dict[str, tuple[Callable[[World], bytes], str]] = {
    "bad signature": (lambda w: ok(answer(w.server, w.authority)[:-1] + b"\0"), "bad signature"),
    "another key in its name": (
        lambda w: ok(answer(w.server, w.authority, signer=w.namesake)),
        "bad signature",
    ),
    "another key": (lambda w: ok(answer(w.server, w.authority, signer=w.other)), "answer from another key"),
    "another certificate": (lambda w: ok(answer(w.other, w.authority)), "answer for another certificate"),
    "out of date": (
        lambda w: ok(answer(w.server, w.authority, starts=2 * LONG_AGO, ends=LONG_AGO)),
        "answer out of its time",
    ),
    "old without an end": (
        lambda w: ok(answer(w.server, w.authority, starts=25 * LONG_AGO, ends=None)),
        "answer out of its time",
    ),
    "of the future": (
        lambda w: ok(answer(w.server, w.authority, starts=30 * MINUTE)),
        "answer out of its time",
    ),
    "try later": (lambda _: ok(b"\x30\x03\x0a\x01\x03"), "refused by the responder"),
    "garbage": (lambda _: ok(b"\x30\x82" * 300), "malformed answer"),
    "nothing": (lambda _: ok(b""), "malformed answer"),
    "no HTTP": (lambda _: b"SSH-2.0-OpenSSH\r\n\r\n", "no answer"),
    "closed at once": (lambda _: b"", "no answer"),
    "cut short": (lambda w: ok(answer(w.server, w.authority))[:-1], "no answer"),
    "server error": (lambda _: http("500 Internal Server Error", "Content-Length: 0"), "no answer"),
    "redirected to itself": (lambda w: http("302 Found", f"Location: {w.responder.url}"), "no answer"),
    "endless header": (lambda _: http("200 OK", *["A: b"] * 10000), "no answer"),
    "endless body": (lambda _: http("200 OK") + b"x" * 1_000_000, "no answer"),
}
"""What a responder sends, and why it proves nothing."""


@pytest.mark.parametrize("case", ANSWERS)
def test_what_proves_nothing_is_refused_with_its_reason(daemon: Culvert, world: World, case: str) -> None:
    make, reason = ANSWERS[case]
    world.responder.reply = lambda _: make(world)
    mark, asked = daemon.log.mark(), len(world.responder.requests)
    assert greeting(daemon.port("strict")) == b""
    daemon.await_log(rf"LOG4\[\S+\]: OCSP: Rejected \(inconclusive: {re.escape(reason)}: http://", since=mark)
    daemon.await_log(r"LOG4\[\S+\]: Rejected by OCSP at depth=0: C=CH, O=Test, CN=server$", since=mark)
    assert greeting(daemon.port("lenient")) == b"I am server"
    assert len(world.responder.requests) == asked + 2, "each connection asks once"


def test_a_revoked_certificate_is_refused_where_nothing_is_required(daemon: Culvert, world: World) -> None:
    ended = datetime.timedelta()  # still believed, no longer kept
    world.responder.reply = lambda _: ok(answer(world.server, world.authority, REVOKED, ends=ended))
    for service in ("strict", "lenient"):
        assert greeting(daemon.port(service)) == b""


def test_an_answer_without_the_nonce_is_a_replay(daemon: Culvert, world: World) -> None:
    world.responder.reply = lambda _: ok(answer(world.server, world.authority))
    mark = daemon.log.mark()
    assert greeting(daemon.port("nonce")) == b""
    daemon.await_log(r"inconclusive: wrong nonce: .*the nonce is missing\)$", since=mark)


def test_a_slow_responder_delays_nobody_else(daemon: Culvert, world: World) -> None:
    world.responder.reply = lambda _: b""
    world.responder.hold()
    try:
        asked = len(world.responder.requests)
        waiting = background(greeting, daemon.port("strict"))
        eventually(lambda: len(world.responder.requests) > asked, "the question")
        started = time.monotonic()
        for _ in range(5):
            assert greeting(daemon.port("unasked")) == b"I am other"
        assert time.monotonic() - started < PATIENT / 2
        assert not waiting.done()
        assert waiting.result(timeout=10) == b""
    finally:
        world.responder.release()
    daemon.await_log(r"inconclusive: no answer: http://.*: TIMEOUTocsp \(1.0 s for this one\) exceeded")


@pytest.mark.parametrize(
    ("urls", "reason"),
    [
        ([], "no responder: C=CH, O=Test, CN=named names no responder"),
        (
            ["ldap://x/", "http://[", "http://a/" + "b" * 3000],
            r"no responder: 'ldap://x/': this is not a URL",
        ),
        (
            ["http://127.0.0.1:1/", "http://127.0.0.1:1/"],
            r"no answer: http://127.0.0.1:1/: Connection refused\)$",
        ),
    ],
)
def test_responders_that_a_certificate_names_in_vain(
    culvert: Start, world: World, urls: list[str], reason: str
) -> None:
    leaf = world.authority.leaf("named", extensions=[access(*urls)] if urls else [])
    with Greeters({"named": leaf}) as greeters:
        daemon = culvert(world.service("client", "OCSPaia = yes", greeters.ports["named"]))
        assert greeting(daemon.port("client")) == b""
        daemon.await_log(f"OCSP: Rejected \\(inconclusive: {reason}")


def test_the_next_responder_is_asked_where_one_fails(culvert: Start, world: World) -> None:
    world.responder.reply = lambda _: ok(answer(leaf, world.authority))
    leaf = world.authority.leaf("named", extensions=[access("http://127.0.0.1:1/", world.responder.url)])
    with Greeters({"named": leaf}) as greeters:
        daemon = culvert(world.service("client", "OCSPaia = yes", greeters.ports["named"]))
        assert greeting(daemon.port("client")) == b"I am named"


def test_a_daemon_that_stops_leaves_no_question_behind(culvert: Start, world: World) -> None:
    daemon = culvert(world.service("client", f"OCSP = {world.responder.url}\nTIMEOUTocsp = 30"))
    world.responder.hold()
    try:
        asked = len(world.responder.requests)
        with dial(daemon.port("client")):
            eventually(lambda: len(world.responder.requests) > asked, "the question")
            started = time.monotonic()
            daemon.stop()
            assert time.monotonic() - started < 5
    finally:
        world.responder.release()
