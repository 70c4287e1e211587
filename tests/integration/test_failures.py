"""The failures that a real daemon shows in /status: who failed, at what, and why, from every worker."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import pytest

from .certificates import Certificates
from .daemon import children
from .echo import finish
from .failing import MARKUP, Failing, failing
from .harness import eventually


@pytest.fixture(scope="module", params=[0, 2], ids=["one-process", "two-workers"])
def daemon(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, certificates: Certificates
) -> Iterator[Failing]:
    with failing(tmp_path_factory.mktemp("failing"), certificates, request.param) as found:
        yield found


def test_what_works_is_no_failure(daemon: Failing) -> None:
    finish(daemon.open())
    assert not [one for one in daemon.admin.ask("/status").document["failures"] if one["service"] == "echo"]


def test_a_handshake_that_fails_has_its_reason(daemon: Failing) -> None:
    before = time.time()
    daemon.knock("echo", b"GET / HTTP/1.1\r\n\r\n")
    last = daemon.of("echo")[0]
    assert re.fullmatch(r"127\.0\.0\.1:\d+", last["peer"])
    assert last["end"] == "TLS failed"
    assert last["reason"].endswith("http request")
    assert before - 1 <= last["time"] <= time.time()


def test_the_same_again_is_counted(daemon: Failing) -> None:
    for _ in range(3):
        daemon.knock("echo", b"nothing that is TLS\r\n")
    reason = daemon.of("echo")[0]["reason"]
    eventually(
        lambda: [one["count"] for one in daemon.of("echo") if one["reason"] == reason] == [3], "the count"
    )


def test_a_target_that_is_not_reached_is_named(daemon: Failing) -> None:
    daemon.open("dead").close()
    last = daemon.of("dead")[0]
    assert (last["end"], last["reason"]) == ("reset", "the target refused the connection")


def test_a_client_that_is_not_let_in_is_shown(daemon: Failing) -> None:
    daemon.knock("closed")
    last = daemon.of("closed")[0]
    assert (last["end"], last["reason"]) == ("refused", "denyFrom names its address")


def test_a_peer_s_words_are_cut_to_text(daemon: Failing) -> None:
    daemon.knock("mail")
    last = daemon.of("mail")[0]
    assert last["end"] == "negotiation failed"
    assert MARKUP in last["reason"]
    assert last["reason"].isprintable()
    assert "\u202e" not in last["reason"]


def test_failures_outlive_a_reload_and_their_worker(daemon: Failing) -> None:
    daemon.knock("closed")
    daemon.of("closed")
    workers = children(daemon.daemon.pid)
    assert daemon.admin.post("/reload").status == 200
    eventually(lambda: not set(workers) & set(children(daemon.daemon.pid)), "the end of the old workers")
    assert daemon.of("closed")
