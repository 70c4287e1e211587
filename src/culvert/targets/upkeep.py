"""What is done for a service's targets in the background: names looked up again, addresses tried."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Coroutine

from culvert.address import HostPort, show
from culvert.errors import ConnectError, os_reason
from culvert.log import Channel
from culvert.targets.connector import Connector
from culvert.targets.endpoint import Endpoint
from culvert.targets.health import pause_after
from culvert.targets.race import Leg, Plan, Race
from culvert.targets.report import ProbeReport
from culvert.targets.target import Backend, Target

ANSWER_AGE = 30.0
"""Seconds after which a name is looked up again. The resolver does not tell for how long its answer holds;
it, or a cache behind it, keeps it for that long anyway."""

SUSPECT_AGE = 2.0
"""Seconds after which a name is looked up again of which no address answers, for it may have moved; they
double with each look-up until one answers."""


class Upkeep:
    """The background of one connector; `run` it as a task for as long as the service takes clients.

    Names are looked up again when their answers are old, and the old ones are used until there are new
    ones; where a look-up fails they stay in use. Addresses that are set aside are tried again when they are
    due, and with `healthCheck` all others are too. Each worker does so for itself.
    """

    def __init__(self, connector: Connector, log: Channel, answer_age: float = ANSWER_AGE) -> None:
        self._connector = connector
        self._loop = connector.loop
        self._service = connector.service
        self._log = log
        self._answer_age = answer_age
        self._tasks: set[asyncio.Task[None]] = set()
        self._resting: asyncio.Future[None] | None = None

    @property
    def possible(self) -> bool:
        """Whether there can ever be something to do."""
        targets = list(self._connector.targets)
        return (
            self._service.health_check is not None
            or (self._connector.health.probes_all and bool(targets))
            or any(target.is_name or len(target.backends) != 1 for target in targets)
            or len(targets) > 1
        )

    async def run(self) -> None:
        """Go on without end."""
        self._connector.health.on_change = self._wake
        try:
            while True:
                await self._rest(self._begin_due(self._loop.time()))
        finally:
            self._connector.health.on_change = None
            for task in self._tasks:
                task.cancel()
            if self._tasks:
                await asyncio.wait(self._tasks)

    def _begin_due(self, now: float) -> float:
        """Begin what is due now; when the next thing is."""
        self._connector.health.heed(self._connector.backends)
        soonest = math.inf
        for target in self._connector.targets:
            when = self._when_to_look_up(target)
            if when <= now:
                target.busy = True
                target.suspicions += target.fails
                self._begin(self._look_up(target))
            else:
                soonest = min(soonest, when)
        for backend in self._connector.backends():
            when = self._when_to_probe(backend)
            if when <= now:
                backend.busy = True
                self._begin(self._probe(backend))
            else:
                soonest = min(soonest, when)
        return soonest

    def _begin(self, work: Coroutine[None, None, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._wake()

    async def _rest(self, until: float) -> None:
        self._resting = self._loop.create_future()
        timer = self._loop.call_at(until, self._wake) if until < math.inf else None
        try:
            await self._resting
        finally:
            if timer is not None:
                timer.cancel()

    def _wake(self) -> None:
        if self._resting is not None and not self._resting.done():
            self._resting.set_result(None)

    # --- names ---

    def _when_to_look_up(self, target: Target) -> float:
        each_time = self._service.delay and isinstance(target.address, HostPort)
        if target.busy or each_time or (target.backends and not target.is_name):
            return math.inf
        if target.failures or not target.backends:
            age = pause_after(target.failures)
        elif target.fails:
            age = min(SUSPECT_AGE * (1 << min(target.suspicions, 16)), self._answer_age)
        else:
            target.suspicions = 0
            age = self._answer_age
        return target.looked_up + age

    async def _look_up(self, target: Target) -> None:
        answer = self._connector.lookups.start(target.address)
        try:
            await asyncio.wait([answer])  # which leaves it alone when it is cancelled itself
        finally:
            self._connector.lookups.leave(target.address, answer)
            target.busy = False
            target.looked_up = self._loop.time()
        try:
            endpoints = answer.result()
        except OSError as error:
            self._failed(target, error)
        else:
            self._found(target, endpoints)

    def _failed(self, target: Target, error: OSError) -> None:
        target.failures += 1
        self._connector.health.changed()
        if target.failures == 1 and target.backends:
            self._log.warning(
                f"Service [{self._service.name}]: cannot look up {target.address} again: {os_reason(error)}; "
                "the addresses that it had stay in use"
            )

    def _found(self, target: Target, endpoints: tuple[Endpoint, ...]) -> None:
        had_failed = target.failures > 0 or not target.backends
        if target.adopt(endpoints, self._loop.time()) or had_failed:
            self._connector.health.changed()
            addresses = ", ".join(show(endpoint.sockaddr) for endpoint in endpoints)
            tell = self._log.notice if had_failed else self._log.info
            tell(f"Service [{self._service.name}]: {target.address} is at {addresses} now")

    # --- addresses ---

    def _when_to_probe(self, backend: Backend) -> float:
        if backend.busy:
            return math.inf
        if backend.due is not None:
            return backend.due
        interval = self._service.health_check
        return math.inf if interval is None else backend.checked + interval

    async def _probe(self, backend: Backend) -> None:
        """Connect and hang up: whether that succeeds is told to the health by the report."""
        backend.checked = self._loop.time()
        connector = self._connector
        target = Target(backend.endpoint.target, (), backend.checked)
        plan = Plan([Leg(target, [backend])], self._service.timeout_connect, _none, lambda: (), None)
        report = ProbeReport(self._log, connector.health)
        race = Race(self._loop, connector.dialer, connector.lookups, report, plan)
        try:
            sock, _ = await race.run()
        except ConnectError:
            pass
        else:
            sock.close()
            backend.open -= 1
        finally:
            backend.busy = False
            connector.health.postpone(backend)


def _none(_: Target, __: tuple[Endpoint, ...]) -> tuple[Backend, ...]:
    return ()
