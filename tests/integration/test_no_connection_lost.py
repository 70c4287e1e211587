"""Under load, reloads, new certificates, killed workers and the end of the daemon lose not one byte.

CULVERT_LOAD_SEEDS=N runs it N times with other numbers, CULVERT_LOAD_FACTOR=N with N times as many events,
CULVERT_LOAD_RATE=N with so many short connections a second.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import random
import re
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from .admin_client import Admin
from .certificates import Certificates, Leaf
from .daemon import children, fixed_ports
from .harness import HEADER, PATIENCE, Culvert, eventually, open_descriptors
from .loading import Killed, Load, kill, listens, listens_at, ports_of
from .metrics_text import Key, kinds, parse
from .stunnel import Stunnel
from .watching import WATCHING, Files, watcher

SEEDS = range(1, 1 + int(os.environ.get("CULVERT_LOAD_SEEDS", "1")))
FACTOR = int(os.environ.get("CULVERT_LOAD_FACTOR", "1"))
RATE = float(os.environ.get("CULVERT_LOAD_RATE", "40"))
OPTIONS = "drainTimeout = 60\nmaxConnections = 1000\nmaxConnectionsPerIP = 1000\nwatch = yes\n"


@dataclass(frozen=True)
class Events:
    """How many of each there are."""

    reloads: int
    renewals: int
    kills: int


class Leaves:
    """Certificates by number, each made when it is asked for first."""

    def __init__(self, certificates: Certificates) -> None:
        self.authority = certificates.ca
        self.first = certificates.server
        self._known: dict[int, Leaf] = {}

    def get(self, number: int) -> Leaf:
        if number not in self._known:
            self._known[number] = self.authority.leaf(f"renewed {number}")
        return self._known[number]


class Scraper:
    """Asks for the metrics over and over, and holds that what counts never falls."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._over = threading.Event()
        self.scrapes = 0
        self.missed = 0
        self.fallen: list[str] = []
        self.last: Mapping[Key, float] = {}

    def once(self) -> str:
        """The text of the metrics."""
        connection = http.client.HTTPConnection("localhost", timeout=PATIENCE)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(PATIENCE)
        with contextlib.closing(connection):
            connection.sock.connect(str(self._path))
            connection.request("GET", "/metrics")
            answer = connection.getresponse()
            assert answer.status == 200
            return answer.read().decode()

    def run(self) -> None:
        """Scrape until told to end."""
        while not self._over.wait(0.4):
            try:
                text = self.once()
            except (OSError, http.client.HTTPException):
                self.missed += 1  # its process was killed in the middle of an answer, or the daemon has ended
                continue
            self._compare(text)
            self.scrapes += 1

    def end(self) -> None:
        self._over.set()

    def _compare(self, text: str) -> None:
        now, types = parse(text), kinds(text)
        for key, before in self.last.items():
            family = key[0] if key[0] in types else re.sub("_(bucket|sum|count)$", "", key[0])
            if types.get(family) != "gauge" and now.get(key, -1) < before:
                self.fallen.append(f"{key}: {before}, then {now.get(key)}")
        self.last = now


class Scene:
    """A daemon under load, and what is done to it."""

    def __init__(self, folder: Path, leaf: Leaf, load: Load, port: int, workers: int) -> None:
        self.random = random.Random(1)
        self.load = load
        self.port = port
        self.workers = workers
        (folder / "live").mkdir()
        self.files = Files(folder / "live")
        self.files.install(leaf)
        self.log = folder / "culvert.log"
        self.path = folder / "admin"
        services = (
            f"[front]\naccept = 127.0.0.1:{port}\nconnect = 127.0.0.1:{load.backend}\n"
            f"cert = {self.files.cert}\nkey = {self.files.key}\n"
        )
        options = f"{OPTIONS}admin = {self.path}\noutput = {self.log}\n"
        header = HEADER.replace("debug = 7", "debug = 6")
        self.daemon = Culvert(folder, services, options=options, header=header, workers=workers)
        self.admin = Admin(self.path)
        self.killed: list[Killed] = []
        self.reloads = self.failed = 0
        self._rotated = 0

    # What is done.

    def reload(self) -> None:
        """Reload in one way or another, and wait for what comes of it."""
        mark = self.daemon.log.mark()
        if self.random.random() < 0.4:
            status = self.admin.post("/reload").status
            assert status in (200, 409), status
            done = status == 200
        else:
            for _ in range(self.random.choice((1, 1, 1, 3))):
                self.daemon.send_signal(signal.SIGHUP)
            done = self.daemon.await_log("Accepting new|Configuration failed", since=mark)[0][0] == "A"
        self.reloads += done
        self.failed += not done

    def kill(self, pid: int) -> None:
        """Kill a worker, and wait until that is known."""
        mark = self.daemon.log.mark()
        self.killed.append(kill(pid, self.port, self.load.backend))
        self.daemon.await_log(rf"\(pid {pid}\) was killed by SIGKILL", since=mark)

    def kill_one(self) -> None:
        """Kill a worker that accepts, or one that lingers, but none with a connection that is to stay."""
        steady = {port for _, port in self.load.ask("steady")}
        found = [one for one in self.processes() if steady.isdisjoint(ports_of(one))]
        lingering = [one for one in found if not listens(one, self.port)]
        current = [one for one in found if listens(one, self.port)]
        chosen = lingering if lingering and self.random.random() < 0.3 else current
        if chosen:
            with contextlib.suppress(ProcessLookupError):  # it has ended by itself
                self.kill(self.random.choice(chosen))

    def kill_a_helper(self) -> None:
        """Kill the process of the endpoint and the one that watches files, and wait for their successors."""
        endpoints = [one for one in children(self.daemon.pid) if listens_at(one, self.path)]
        mark = self.daemon.log.mark()
        for pid in [*endpoints, watcher(self.daemon)]:
            with contextlib.suppress(ProcessLookupError):  # a reload has just replaced it
                os.kill(pid, signal.SIGKILL)
        eventually(lambda: self.admin.ask("/healthz").status == 200, "the endpoint")
        self.daemon.await_log(WATCHING, since=mark)

    def rotate(self) -> None:
        """Rotate the log file."""
        self._rotated += 1
        self.log.rename(f"{self.log}.{self._rotated}")
        self.daemon.send_signal(signal.SIGUSR1)
        eventually(self.log.exists, "the new log")

    def renew(self, leaf: Leaf, *, slowly: bool) -> None:
        """Put another certificate in place, and wait until a client has seen it."""
        if slowly:  # half of each file first, as a copy to a slow disk does
            for source, target in ((leaf.cert, self.files.cert), (leaf.key, self.files.key)):
                target.write_bytes(source.read_bytes()[:150])
                time.sleep(self.random.uniform(0.0, 0.3))
        self.files.install(leaf)
        seen = hashlib.sha256(leaf.certificate.public_bytes(Encoding.DER)).hexdigest()
        eventually(
            lambda: seen in self.load.ask("count")["certificates"], "a client that sees the certificate"
        )

    def processes(self) -> list[int]:
        """The workers: those that accept, and those that have connections."""
        if not self.workers:
            return []
        found = {one["worker"] for one in self.admin.ask("/connections").document["connections"]}
        current = {one for one in children(self.daemon.pid) if listens(one, self.port)}
        return sorted(found | current)

    # What is seen.

    def judge(self, report: dict[str, Any]) -> list[Any]:
        """The connections that were lost for no reason that excuses it."""
        return [one for one in report["faulty"] if not any(killed.concerns(one) for killed in self.killed)]

    @property
    def steady(self) -> int:
        return sum(bool(port) for _, port in self.load.ask("steady"))


@pytest.fixture(scope="session")
def leaves(certificates: Certificates) -> Leaves:
    """Certificates that take each other's place."""
    return Leaves(certificates)


def check_the_list(scene: Scene) -> None:
    """Hold that the endpoint lists each connection with the worker that has it."""
    if not scene.workers:
        return
    document = scene.admin.ask("/connections").document
    if not document["complete"]:  # on a machine that is very busy
        return
    listed = {int(one["peer"].rpartition(":")[2]): one["worker"] for one in document["connections"]}
    for client, backend in scene.load.ask("steady"):
        if client:
            assert {client, backend} <= ports_of(listed[client])


def kill_a_first_one(scene: Scene) -> None:
    """Kill a worker of the first generation that has steady connections, as long as another one has, too."""
    steady = {port for _, port in scene.load.ask("steady")}
    holders = [one for one in scene.processes() if not steady.isdisjoint(ports_of(one))]
    if len(holders) > 1:
        scene.kill(min(holders, key=lambda one: len(steady & ports_of(one))))
    else:
        scene.kill_one()


def renew_all(scene: Scene, leaves: Sequence[Leaf]) -> None:
    """Certificates that are renewed while other things happen."""
    for number, leaf in enumerate(leaves):
        scene.renew(leaf, slowly=number % 5 == 0)


def play(scene: Scene, events: Events, leaves: Leaves) -> None:
    """Everything that is to happen, but the end."""
    scene.daemon.await_log(WATCHING)
    eventually(lambda: scene.steady == scene.load.ask("count")["living"] - 6, "the steady connections")
    check_the_list(scene)
    alone = min(3, events.renewals)
    for number in range(alone):  # by watching alone
        scene.renew(leaves.get(number), slowly=number == 1)
        if number < events.kills:
            scene.kill_one()
    steps: list[Callable[[], None]] = [scene.kill_one] * max(0, events.kills - alone - 1)
    steps += [scene.rotate] * 3
    steps += [scene.kill_a_helper] * bool(events.kills)
    steps += [scene.reload] * events.reloads
    scene.random.shuffle(steps)
    if events.kills:
        steps.insert(len(steps) // 2, lambda: kill_a_first_one(scene))
    with ThreadPoolExecutor(1) as pool:
        renewing = pool.submit(renew_all, scene, [leaves.get(n) for n in range(alone, events.renewals)])
        for step in steps:
            step()
            scene.load.await_more(scene.random.randint(1, 8))
        while not renewing.done():
            scene.reload()
        renewing.result()
    while scene.reloads < events.reloads:
        scene.reload()
    while len(scene.killed) < events.kills:
        scene.kill_one()
    check_the_list(scene)


def leave(scene: Scene) -> dict[str, Any]:
    """The end of the daemon, under load; the load's report."""
    scene.load.await_more(5)
    scene.load.ask("leave")
    scene.daemon.send_signal(signal.SIGTERM)
    scene.daemon.await_log(r"Stopping: waiting for \d+ connection\(s\) to finish")
    eventually(
        lambda: scene.load.ask("count")["done"].get("turned away", 0) > 5, "clients that come too late"
    )
    assert scene.load.ask("count")["living"] >= scene.steady > 0
    report: dict[str, Any] = scene.load.finish()
    assert scene.daemon.wait() == 0
    assert scene.daemon.log.find("All connections have finished")
    return report


def supervisor(scene: Scene) -> tuple[int, int]:
    """What the first process holds: descriptors, and kilobytes of memory of its own."""
    text = Path(f"/proc/{scene.daemon.pid}/smaps_rollup").read_text()
    own = sum(int(size) for size in re.findall(r"(?m)^Private_(?:Dirty|Clean):\s+(\d+) kB", text))
    return open_descriptors([scene.daemon.pid]), own


@pytest.mark.timeout(120 + 120 * FACTOR)
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("workers", "events"),
    [(2, Events(50, 20, 10)), (0, Events(15, 4, 0))],
    ids=["workers", "one-process"],
)
def test_nothing_is_lost(tmp_path: Path, leaves: Leaves, workers: int, events: Events, seed: int) -> None:
    events = Events(events.reloads * FACTOR, events.renewals * FACTOR, events.kills * FACTOR)
    with contextlib.ExitStack() as stack:
        load = stack.enter_context(Load(tmp_path))
        (port,) = stack.enter_context(fixed_ports(1))
        scene = Scene(tmp_path, leaves.first, load, port, workers)
        scene.random.seed(seed)
        stack.enter_context(scene.daemon)
        scraper = Scraper(scene.path)
        stack.callback(scraper.end)
        threading.Thread(target=scraper.run, daemon=True).start()
        plan = {"port": port, "trust": str(leaves.authority.cert), "rate": RATE, "seed": seed}
        if shutil.which("stunnel4"):
            text = f"[s]\nclient = yes\naccept = 127.0.0.1:0\nconnect = 127.0.0.1:{port}\n"
            plan["stunnel"] = stack.enter_context(Stunnel(tmp_path, text)).ports["s"]
        plan["openssl"] = shutil.which("openssl") or ""
        load.ask("start", **plan, steady=4, moving=6)
        before = supervisor(scene)
        play(scene, events, leaves)
        if workers:  # the log and the workers of the first generation are left
            eventually(lambda: supervisor(scene)[0] <= before[0] + 4, "no more descriptors than needed")
        after = supervisor(scene)
        report = leave(scene)
        scraper.end()
    lost = scene.judge(report)
    print(
        f"{report['whole']}, {report['bytes']} bytes, {report['resumed']} resumed, "
        f"{report['turned_away']} after the end; {scene.reloads} reloads, {scene.failed} failed; "
        f"{len(report['faulty'])} connections of {len(scene.killed)} killed workers; "
        f"the first process: {before}, then {after}; {scraper.scrapes} scrapes, {scraper.missed} missed"
    )
    assert not lost, "\n".join(map(str, lost))
    assert scene.reloads >= events.reloads
    assert len(scene.killed) == events.kills
    assert not scraper.fallen
