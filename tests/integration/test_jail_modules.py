"""In the jail nothing of Python can be loaded any more: what a worker needs is there before it closes."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from .certificates import Certificates
from .daemon import Jail, children, needs_root
from .echo import echo_service, knock
from .greeters import Greeters, greeting
from .harness import Culvert
from .responders import Responder, answer, ok

pytestmark = needs_root

Start = Callable[..., Culvert]


def jailed(folder: Path) -> str:
    """The global options of a jail."""
    return f"chroot = {Jail(folder).root}\nsetuid = nobody\nsetgid = nogroup\n"


@pytest.mark.skipif(importlib.util.find_spec("uvloop") is None, reason="uvloop is not installed")
@pytest.mark.parametrize("workers", [0, 1])
def test_the_quick_event_loop_is_used_there_too(
    culvert: Start, certificates: Certificates, tmp_path: Path, workers: int
) -> None:
    daemon = culvert(echo_service(certificates), options=jailed(tmp_path), workers=workers)
    [pid] = children(daemon.pid) or [daemon.pid]
    loop = any("eventfd" in str(entry.readlink()) for entry in Path(f"/proc/{pid}/fd").iterdir())
    assert "uvloop" in Path(f"/proc/{pid}/maps").read_text()
    assert loop, "uvloop is loaded and not in use"


def test_a_name_is_looked_up_for_each_connection(
    culvert: Start, certificates: Certificates, tmp_path: Path, event_loop_environment: dict[str, str]
) -> None:
    service = (
        f"[named]\nclient = yes\naccept = 127.0.0.1:0\nconnect = nowhere.invalid:1\ndelay = yes\n"
        f"verifyChain = yes\nCAfile = {certificates.ca.cert}\n"
    )
    daemon = culvert(service, options=jailed(tmp_path), environment=event_loop_environment)
    knock(daemon.port("named"))
    daemon.await_log(re.escape("Error resolving nowhere.invalid:1"))
    assert not daemon.log.find("fault of culvert")


def test_a_responder_is_asked_and_its_answer_judged(
    culvert: Start, certificates: Certificates, tmp_path: Path, event_loop_environment: dict[str, str]
) -> None:
    with Responder() as responder, Greeters({"server": certificates.server}) as greeters:
        responder.reply = lambda _: ok(answer(certificates.server, certificates.ca))
        service = (
            f"[c]\nclient = yes\naccept = 127.0.0.1:0\nconnect = 127.0.0.1:{greeters.ports['server']}\n"
            f"verifyChain = yes\nCAfile = {certificates.ca.cert}\nOCSP = {responder.url}\n"
        )
        daemon = culvert(service, options=jailed(tmp_path), environment=event_loop_environment)
        assert greeting(daemon.port("c")) == b"I am server"
        assert not daemon.log.find("fault of culvert")
