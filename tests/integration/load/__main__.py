"""Both ends of a load on a tunnel, as a program of its own that accounts for every byte.

It is told what to do by lines of JSON on its standard input, and answers each by one on its standard output:

- `{"do": "start", ...}` with the fields of `Plan` begins; the answer names the port of its backend, which is
  there from the beginning (`{"do": "backend"}`).
- `{"do": "count"}` tells how far it is.
- `{"do": "steady"}` tells the two ports of each steady connection: its client's (0 for one that another
  program carries), and the daemon's to the backend.
- `{"do": "leave"}` says that the daemon is about to end: from now on a client may be refused.
- `{"do": "finish"}` has every connection come to its end, and answers with a report.

Short connections come at a steady rate: handshake, request, reply, close by one side or the other. Long ones
carry numbered frames both ways at once, each end at its own pace, until they are told to end or have lived
for long enough; they are carried by this program's own TLS, by `openssl s_client` or by a stunnel client.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import math
import random
import socket
import ssl
import sys
import time
from collections import Counter
from collections.abc import Coroutine, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from .backend import Backend
from .frames import (
    HEADER,
    OPEN,
    PATIENCE,
    SHORT,
    CorruptError,
    Ends,
    Frames,
    Record,
    TruncatedError,
    fault_of,
    payload,
    sending_frames,
    take_frames,
)
from .wires import PlainWire, ProgramWire, TlsWire, Wire

TURNED_AWAY = "turned away"


@dataclass
class Plan:
    """What is asked for. `steady` long connections live to the end, `moving` ones for some seconds each."""

    port: int
    trust: str
    rate: float
    steady: int
    moving: int
    seed: int
    openssl: str = ""
    stunnel: int = 0
    """The port of a stunnel client that leads to the same service; 0 is none."""


class Load:
    """The clients, and what became of them."""

    def __init__(self) -> None:
        self.records = self._records = dict[int, Record]()
        self._done: Counter[str] = Counter()
        self._steady: list[Record] = []
        self._resumed = 0
        self._certificates: set[str] = set()
        self._leaving = math.inf
        self._running: set[asyncio.Task[None]] = set()
        self._living: dict[asyncio.Task[None], Ends] = {}
        self._ended = False
        self._sessions: dict[ssl.SSLContext, ssl.SSLSession] = {}

    def start(self, plan: Plan) -> None:
        self._plan = plan
        self._random = random.Random(plan.seed)
        self._contexts = [self._context(ssl.TLSVersion.TLSv1_2), *[self._context(None)] * 3]
        carriers = ["tls"] * plan.steady + ["stunnel"] * 2 * bool(plan.stunnel)
        for carrier in [*carriers, *["openssl"] * 2 * bool(plan.openssl)]:
            self._steady.append(self._launch_long(carrier, None))
        for _ in range(plan.moving):
            self._launch_long("tls", self._random.uniform(1.0, 5.0))
        self._arriving = asyncio.create_task(self._arrive())

    def _context(self, highest: ssl.TLSVersion | None) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self._plan.trust)
        if highest is not None:
            context.maximum_version = highest
        return context

    async def _arrive(self) -> None:
        """Clients of short connections, at a rate that does not wait for those before."""
        began = time.monotonic()
        number = 0
        while not self._ended:
            number += 1
            await asyncio.sleep(max(0.0, began + number / self._plan.rate - time.monotonic()))
            self._launch(self._short(self._record("short")))

    def _record(self, kind: str) -> Record:
        ident = len(self._records)
        self._records[ident] = Record(ident, kind, time.monotonic())
        return self._records[ident]

    def _launch(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    def _launch_long(self, carrier: str, life: float | None) -> Record:
        ends = Ends(0, random.Random(self._random.random()))
        record = self._record("long")
        task = self._launch(self._long(record, carrier, ends))
        self._living[task] = ends
        if life is not None:
            timer = asyncio.get_running_loop().call_later(life, ends.over.set)
            task.add_done_callback(lambda _: timer.cancel())
        task.add_done_callback(lambda _: self._succeed(task, life))
        return record

    def _succeed(self, task: asyncio.Task[None], life: float | None) -> None:
        del self._living[task]
        if life is not None and not self._ended and self._leaving == math.inf:
            self._launch_long("tls", self._random.uniform(1.0, 5.0))

    async def _connect(self, record: Record, port: int) -> socket.socket:
        sock = socket.socket()
        sock.setblocking(False)
        try:
            loop = asyncio.get_running_loop()
            async with asyncio.timeout(PATIENCE):
                await loop.sock_connect(sock, ("127.0.0.1", port))
            record.client_port = sock.getsockname()[1]
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except BaseException:
            sock.close()
            raise
        return sock

    async def _tls(self, record: Record) -> TlsWire:
        context = self._random.choice(self._contexts)
        session = self._sessions.get(context) if self._random.random() < 0.5 else None
        wire = TlsWire(await self._connect(record, self._plan.port), context, session)
        try:
            async with asyncio.timeout(PATIENCE):
                await wire.handshake()
        except BaseException:
            wire.close()
            raise
        if wire.tls.session_reused:
            self._resumed += 1
        else:
            self._certificates.add(hashlib.sha256(wire.tls.getpeercert(True) or b"").hexdigest())
        return wire

    async def _short(self, record: Record) -> None:
        with self._judged(record):
            wire = await self._tls(record)
            try:
                async with asyncio.timeout(PATIENCE):
                    await self._ask(wire, record)
                if wire.tls.session is not None:
                    self._sessions[wire.tls.context] = wire.tls.session
            finally:
                wire.close()

    async def _ask(self, wire: TlsWire, record: Record) -> None:
        record.up_sent = self._random.choice((0, 100, 5_000))
        asked = self._random.choice((1, 1_000, 20_000))
        data = payload(record.ident, 0, record.up_sent, 0)
        await wire.send(HEADER.pack(record.ident, asked, SHORT, len(data)) + data)
        _, _, _, reply = await Frames(wire).next()
        if reply != payload(record.ident, 0, asked, 1):
            raise CorruptError("another reply")
        record.down_got = len(reply)
        if not record.ident % 2 and await wire.recv():
            raise CorruptError("bytes behind the end")
        await wire.end()

    async def _long(self, record: Record, carrier: str, ends: Ends) -> None:
        with self._judged(record):
            wire = await self._carried(record, carrier)
            with contextlib.closing(wire):
                await wire.send(HEADER.pack(record.ident, 0, OPEN, 0))
                async with sending_frames(wire, record, ends) as sending:
                    await take_frames(Frames(wire), record, 1)
                    record.up_sent = await sending
                async with asyncio.timeout(PATIENCE):
                    if await wire.recv():
                        raise CorruptError("bytes behind the end")
                    if carrier != "openssl":  # that ends by itself
                        await wire.end()

    async def _carried(self, record: Record, carrier: str) -> Wire:
        if carrier == "tls":
            return await self._tls(record)
        if carrier == "stunnel":
            sock = await self._connect(record, self._plan.stunnel)
            record.client_port = 0  # it is the one of stunnel that the daemon sees
            return PlainWire(sock)
        where = f"127.0.0.1:{self._plan.port}"
        process = await asyncio.create_subprocess_exec(
            *(self._plan.openssl, "s_client", "-quiet", "-connect", where, "-servername", "localhost"),
            *("-CAfile", self._plan.trust, "-verify_return_error"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        return ProgramWire(process)

    @contextlib.contextmanager
    def _judged(self, record: Record) -> Iterator[None]:
        """Takes note of what becomes of a connection."""
        try:
            yield
        except (OSError, TruncatedError, CorruptError) as error:
            record.fault = fault_of(error)
            if self._leaving < time.monotonic() and isinstance(error, ConnectionRefusedError):
                record.kind = TURNED_AWAY
        finally:
            record.ended = time.monotonic()
            self._done[record.kind] += 1

    def count(self) -> dict[str, Any]:
        """How far it is."""
        return {
            "done": self._done,
            "living": len(self._living),
            "certificates": sorted(self._certificates),
            "faults": sum(bool(one.fault) for one in self._records.values() if one.kind != TURNED_AWAY),
        }

    def steady(self) -> list[tuple[int, int]]:
        """The ports of the connections that live to the end: the client's, and the one to the backend."""
        return [(one.client_port, one.backend_port) for one in self._steady if not one.ended]

    def leave(self) -> None:
        """From now on clients may be refused."""
        self._leaving = time.monotonic()

    async def finish(self, backend: Backend) -> dict[str, Any]:
        """Have everything come to its end; the report."""
        self._ended = True
        self._leaving = min(self._leaving, time.monotonic())
        await self._arriving
        for ends in list(self._living.values()):
            ends.over.set()
        while self._running:
            await asyncio.wait(set(self._running))
        if backend.serving:
            await asyncio.wait(set(backend.serving), timeout=PATIENCE)
        records = [one for one in self._records.values() if one.kind != TURNED_AWAY]
        return {
            "whole": Counter(one.kind for one in records if one.whole),
            "bytes": sum(one.up_got + one.down_got for one in records),
            "resumed": self._resumed,
            "turned_away": len(self._records) - len(records),
            "faulty": [asdict(one) for one in records if not one.whole],
        }


async def obey() -> None:
    """Do what the lines on standard input say, until they end."""
    listening = socket.create_server(("127.0.0.1", 0), backlog=1024)
    listening.setblocking(False)
    load = Load()
    backend = Backend(load.records, 1)
    serving = asyncio.create_task(backend.run(listening))
    lines = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    while line := await lines.readline():
        order = json.loads(line)
        answer: Any = None
        match order.pop("do"):
            case "backend":
                answer = listening.getsockname()[1]
            case "start":
                load.start(Plan(**order))
            case "count":
                answer = load.count()
            case "steady":
                answer = load.steady()
            case "leave":
                load.leave()
            case "finish":
                answer = await load.finish(backend)
        print(json.dumps(answer), flush=True)
    serving.cancel()
    listening.close()


if __name__ == "__main__":
    asyncio.run(obey())
