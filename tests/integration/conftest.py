"""What every integration test may ask for: certificates, a daemon, and the ways it is run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from .certificates import Certificates
from .harness import Culvert
from .peers import Peers
from .pki import Pki
from .terminal import Terminal


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """The authorities and leaves of this run."""
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    """The authorities, leaves and CRLs of the outcome tables."""
    return Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture
def culvert(tmp_path: Path) -> Iterator[Callable[..., Culvert]]:
    """Starts daemons, with what `Culvert` takes after its folder; each is stopped and checked in the end."""
    running: list[Culvert] = []

    def start(services: str, **arguments: Any) -> Culvert:
        folder = tmp_path / f"culvert{len(running)}"
        folder.mkdir()
        running.append(Culvert(folder, services, **arguments).start())
        return running[-1]

    yield start
    for daemon in running:
        if daemon.stopped:
            daemon.kill()
        else:
            daemon.stop()


@pytest.fixture
def peers() -> Iterator[Peers]:
    """Sockets that are closed when the test is over."""
    opened = Peers()
    yield opened
    opened.close()


@pytest.fixture(scope="module", params=["uvloop", "asyncio"])
def event_loop_environment(request: pytest.FixtureRequest) -> dict[str, str]:
    """The environment that makes the daemon run on uvloop, or without it."""
    return {"CULVERT_LOOP": "asyncio"} if request.param == "asyncio" else {}


@pytest.fixture(params=["server", "client"])
def role(request: pytest.FixtureRequest) -> str:
    """Which end of the tunnel the daemon is."""
    return str(request.param)


@pytest.fixture(params=["TLSv1.2", "TLSv1.3"])
def version(request: pytest.FixtureRequest) -> str:
    """The TLS version that is spoken."""
    return str(request.param)


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    """A terminal that nobody looks at but the test."""
    terminal = Terminal()
    yield terminal
    terminal.close()
