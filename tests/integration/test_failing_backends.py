"""Backends that die and return under load: how long each client waits, and where each one is sent."""

from __future__ import annotations

import itertools
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from .backends import Backend, Place
from .certificates import Certificates
from .daemon import needs_root
from .echo import open_tls
from .harness import Culvert, eventually
from .peers import read_all

pytestmark = needs_root

Start = Callable[..., Culvert]

TIMEOUT = 2.0
"""TIMEOUTconnect of the services here, in seconds."""

HANDSHAKE = 1.0
"""Seconds for all that a client waits for but the connection to a target: the machine may be busy."""

CLIENTS = 4


@dataclass(frozen=True)
class Visit:
    """One connection of a client: its own port, when it came, how long it waited, and what it was told."""

    port: int
    began: float
    seconds: float
    greeting: str


@dataclass
class Load:
    """Clients that come again and again, each one connection after the other."""

    port: int
    trust: Certificates
    visits: list[list[Visit]] = field(default_factory=lambda: [[] for _ in range(CLIENTS)])
    stopping: threading.Event = field(default_factory=threading.Event)

    def _come(self, visits: list[Visit]) -> None:
        while not self.stopping.is_set():
            start = time.monotonic()
            peer = open_tls(self.port, self.trust.ca.cert)
            try:
                own = peer.sock.getsockname()[1]
                try:
                    greeting = read_all(peer).decode()
                except OSError as error:
                    greeting = f"failed: {error}"
                visits.append(Visit(own, start, time.monotonic() - start, greeting))
            finally:
                peer.close()

    def __enter__(self) -> Load:
        self._threads = [threading.Thread(target=self._come, args=(visits,)) for visits in self.visits]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        for thread in self._threads:
            thread.join()

    def await_visits(self, count: int, greeting: str = "") -> None:
        """Wait until every client has come so often again (and was greeted like this)."""
        marks = [len(visits) for visits in self.visits]
        eventually(
            lambda: all(
                sum(greeting in visit.greeting for visit in visits[mark:]) >= count
                for visits, mark in zip(self.visits, marks, strict=True)
            ),
            f"{count} more visits of each client",
        )

    @property
    def longest(self) -> float:
        return max(visit.seconds for visits in self.visits for visit in visits)


def attempts(daemon: Culvert, load: Load) -> dict[Visit, list[str]]:
    """The addresses that each visit was sent to, in their order."""
    sent: dict[str, list[str]] = {}
    by_port: dict[int, list[list[str]]] = {}
    for match in daemon.log.find(r"LOG5\[(\d+)\]: Service \[\w+\] accepted connection from \S+:(\d+)$"):
        # The kernel gives a port to one connection after the other.
        by_port.setdefault(int(match[2]), []).append(sent.setdefault(match[1], []))
    for match in daemon.log.find(r"LOG6\[(\d+)\]: s_connect: connecting (\S+)$"):
        sent[match[1]].append(match[2])
    visits = sorted((visit for visits in load.visits for visit in visits), key=lambda visit: visit.began)
    return {visit: by_port[visit.port].pop(0) for visit in visits}


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    """Where the backends are."""
    with Place() as place:
        yield place


def service(certificates: Certificates, backends: list[Backend], failover: str) -> str:
    targets = "".join(f"connect = {backend.address}\n" for backend in backends)
    leaf = certificates.server
    return (
        f"[s]\naccept = 127.0.0.1:0\n{targets}failover = {failover}\n"
        f"TIMEOUTconnect = {TIMEOUT:.0f}\ncert = {leaf.cert}\nkey = {leaf.key}\n"
    )


@pytest.mark.parametrize(
    ("failover", "workers", "silent"),
    [
        ("prio", 1, True),
        ("prio", 2, False),
        ("rr", 1, False),
        ("rr", 2, True),
        ("leastconn", 2, False),
    ],
)
def test_a_backend_that_dies_and_returns_under_load(
    culvert: Start, certificates: Certificates, place: Place, workers: int, failover: str, *, silent: bool
) -> None:
    dying, living = place.backend(), place.backend()
    die, resurrect = (dying.silence, dying.speak) if silent else (dying.kill, dying.start)
    daemon = culvert(service(certificates, [dying, living], failover), workers=workers)
    with Load(daemon.port("s"), certificates) as load:
        load.await_visits(2, str(dying.port))
        die()
        daemon.await_log(rf"{re.escape(dying.address)} is set aside")
        load.await_visits(20)
        resurrect()
        daemon.await_log(rf"{re.escape(dying.address)} answers again")
        load.await_visits(2, str(dying.port))
    daemon.stop()
    assert load.longest < TIMEOUT + HANDSHAKE
    sent = attempts(daemon, load)
    for visits in load.visits:
        for visit in visits:
            assert sent[visit].count(dying.address) <= 1
            if visit.greeting not in (str(dying.port), str(living.port)):
                # It had been connected when the backend died: the one end that nobody can spare it.
                assert sent[visit] == [dying.address]
        # Sent to the dead one, and served by the living one after that.
        vain = [len(sent[visit]) == 2 and visit.greeting == str(living.port) for visit in visits]
        assert (True, True) not in itertools.pairwise(vain), "sent to the dead one twice in a row"
    vain_attempts = [port for port, addresses in sent.items() if len(addresses) == 2]
    assert 0 < len(vain_attempts) <= 2 * CLIENTS
