"""The attempts of one connection to its target: one after the other, and side by side where one hesitates.

Targets are tried in the order of the plan, and the addresses of each in the staggered manner of RFC 8305, 5:
the next one begins when one has failed, or has not answered for a moment, and the first that answers is
used. TIMEOUTconnect is for the whole. Each target has an equal share of what is left of it; an attempt
goes on beyond its share, beside the next target's, so that where all are slow the quickest is used.

There is one future and one timer at a time, and no task. What answers at once, as targets usually do, needs
no race: `alone` waits for it, at half the cost, and a race takes over from there where that was not enough.
"""

from __future__ import annotations

import asyncio
import math
import os
import socket
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from culvert.errors import ConnectError, Unreached
from culvert.targets.attempt import Attempt
from culvert.targets.dial import Dialer, cause_of
from culvert.targets.endpoint import Endpoint, Source
from culvert.targets.lookups import Answer, Lookups
from culvert.targets.target import Backend, Target

ATTEMPT_DELAY = 0.25
"""Seconds that an address of a target has for itself before the next one is tried too (RFC 8305, 5)."""

LEAST_DELAY = 0.01
"""The shortest such time, where addresses are many and seconds are few (RFC 8305, 5)."""


class Report(Protocol):
    """Is told what happens: for the log, and for what is known of each address."""

    def begins(self, backend: Backend) -> None: ...
    def failed(self, backend: Backend, error: OSError) -> None: ...
    def stalled(self, backend: Backend, seconds: float) -> None:
        """It has not answered in its target's share of the time; the attempt goes on."""

    def overtaken(self, backend: Backend) -> None:
        """Another one that began later answered first."""

    def reached(self, backend: Backend) -> None: ...
    def unresolved(self, target: Target, error: OSError) -> None: ...


class Leg(NamedTuple):
    """One target and its addresses that are to be tried; None where they are to be looked up first."""

    target: Target
    backends: Sequence[Backend] | None


@dataclass(frozen=True, slots=True)
class Plan:
    """What one connection may try, `timeout` seconds long."""

    legs: Sequence[Leg]
    timeout: float
    admit: Callable[[Target, tuple[Endpoint, ...]], Sequence[Backend]]
    """Which of the addresses that a look-up gave are to be tried; may raise ConnectError."""
    reserve: Callable[[], Sequence[Backend]]
    """What is left to be tried, one by one, when all the rest has failed."""
    source: Source | None


def time_alone(legs: Sequence[Leg], timeout: float) -> float:
    """For how many seconds the first address of a plan has the time for itself."""
    share = timeout / len(legs)
    count = len(legs[0].backends or ())
    return share if count == 1 else min(ATTEMPT_DELAY, share / count)


class Race:
    """One connection's way to its target. `run` it once."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, dialer: Dialer, lookups: Lookups, report: Report, plan: Plan
    ) -> None:
        self._loop = loop
        self._dialer = dialer
        self._lookups = lookups
        self._report = report
        self._plan = plan
        self._legs = deque(plan.legs)
        self._queue: deque[Backend] = deque()
        self._pending: list[Attempt] = []
        self._looking: dict[Answer, Target] = {}
        self._answered: list[Attempt] = []
        self._tried: set[Backend] = set()
        self._failure: ConnectError | None = None
        self._spacing = ATTEMPT_DELAY
        self._leg_began = self._leg_end = 0.0
        self._next = math.inf
        self._waiting: asyncio.Future[None] | None = None

    async def run(self, began: Attempt | None = None) -> tuple[socket.socket, Backend]:
        """A connected socket and where it leads. Raises ConnectError.

        `began` is the attempt on the plan's first address, where that was begun alone and was not enough.
        """
        now = self._loop.time()
        deadline = (now if began is None else began.began) + self._plan.timeout
        try:
            if began is not None:
                self._take_over(began, deadline)
            while (won := self._begin_due(now, deadline)) is None:
                await self._wait(min(self._next, deadline))
                if (won := self._collect()) is not None:
                    break
                now = self._loop.time()
                if now >= deadline:
                    self._expire()
            return won
        finally:
            self._close()

    # --- beginning ---

    def _take_over(self, began: Attempt, deadline: float) -> None:
        self._tried.add(began.backend)
        self._pending.append(began)
        self._set_out(self._legs.popleft(), began.began, deadline)
        if began.outcome is not None:
            self._settle(began, began.outcome)
        else:
            self._loop.add_writer(began.sock.fileno(), self._writable, began)

    def _begin_due(self, now: float, deadline: float) -> tuple[socket.socket, Backend] | None:
        """Begin what is due now. Raises ConnectError where nothing is under way or left to begin."""
        while not (self._pending or self._looking) or now >= self._next:
            if self._queue:
                won = self._begin(self._queue.popleft(), now)
                if won is not None:
                    return won
                self._next = now + self._spacing if self._queue else self._leg_end
            elif self._legs or (not self._pending and not self._looking and self._call_reserve()):
                self._begin_leg(self._legs.popleft(), now, deadline)
            elif self._pending or self._looking:
                self._next = math.inf
            else:
                raise self._failed()
        return None

    def _begin_leg(self, leg: Leg, now: float, deadline: float) -> None:
        for attempt in self._pending:
            if not attempt.stalled:
                attempt.stalled = True
                self._report.stalled(attempt.backend, now - self._leg_began)
        self._set_out(leg, now, deadline)

    def _set_out(self, leg: Leg, now: float, deadline: float) -> None:
        share = (deadline - now) / (len(self._legs) + 1)
        self._leg_began, self._leg_end = now, now + share
        self._next = self._leg_end
        if leg.backends is None:
            answer = self._lookups.start(leg.target.address)
            self._looking[answer] = leg.target
            answer.add_done_callback(self._wake)
        else:
            self._enqueue(leg.backends, now)

    def _enqueue(self, backends: Sequence[Backend], now: float) -> None:
        fresh = [backend for backend in backends if backend not in self._tried]
        self._tried.update(fresh)
        self._queue.extend(fresh)
        if self._queue:
            self._next = now
            left = (self._leg_end - now) / len(self._queue)
            self._spacing = min(ATTEMPT_DELAY, max(left, LEAST_DELAY))

    def _call_reserve(self) -> bool:
        self._legs.extend(
            Leg(Target(backend.endpoint.target, (), 0.0), (backend,))
            for backend in self._plan.reserve()
            if backend not in self._tried
        )
        return bool(self._legs)

    def _begin(self, backend: Backend, now: float) -> tuple[socket.socket, Backend] | None:
        self._report.begins(backend)
        try:
            sock = self._dialer.open(backend.endpoint, self._plan.source)
        except OSError as error:
            self._fail(backend, error)
            return None
        attempt = Attempt(backend, sock, now)
        self._pending.append(attempt)
        attempt.connect()
        if attempt.outcome is None:
            self._loop.add_writer(sock.fileno(), self._writable, attempt)
            return None
        return self._settle(attempt, attempt.outcome)

    # --- waiting ---

    async def _wait(self, until: float) -> None:
        self._waiting = self._loop.create_future()
        timer = self._loop.call_at(until, self._wake)
        try:
            await self._waiting
        finally:
            timer.cancel()

    def _wake(self, _: object = None) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    def _writable(self, attempt: Attempt) -> None:
        self._loop.remove_writer(attempt.sock.fileno())
        self._answered.append(attempt)
        self._wake()

    # --- ending ---

    def _collect(self) -> tuple[socket.socket, Backend] | None:
        """Take in what has come: the winner, if there is one."""
        answered, self._answered = self._answered, []
        for attempt in answered:
            if (won := self._settle(attempt, attempt.take_outcome())) is not None:
                return won
        for answer in [answer for answer in self._looking if answer.done()]:
            self._take_answer(self._looking.pop(answer), answer)
        return None

    def _settle(self, attempt: Attempt, outcome: int) -> tuple[socket.socket, Backend] | None:
        self._pending.remove(attempt)
        backend = attempt.backend
        if not outcome:
            for other in self._pending:
                if other.began < attempt.began:
                    self._report.overtaken(other.backend)
            self._report.reached(backend)
            return attempt.sock, backend
        attempt.drop()
        self._fail(backend, OSError(outcome, os.strerror(outcome)))
        if self._queue:
            self._next = self._loop.time()
        return None

    def _take_answer(self, target: Target, answer: Answer) -> None:
        try:
            admitted = self._plan.admit(target, answer.result())
        except OSError as error:
            self._report.unresolved(target, error)
        except ConnectError as error:
            self._failure = error
        else:
            self._enqueue(admitted, self._loop.time())

    def _expire(self) -> None:
        """The time is over. Raises ConnectError."""
        for attempt in self._pending:
            self._fail(attempt.backend, TimeoutError())
        for target in self._looking.values():
            self._report.unresolved(target, TimeoutError())
            self._failure = ConnectError("No address to connect", Unreached.TIMED_OUT)
        raise self._failed()

    def _fail(self, backend: Backend, error: OSError) -> None:
        self._report.failed(backend, error)
        self._failure = ConnectError("No more addresses to connect", cause_of(error))

    def _failed(self) -> ConnectError:
        return self._failure or ConnectError("No address to connect", Unreached.UNRESOLVED)

    def _close(self) -> None:
        """Give up what is still under way: a look-up goes on if others wait for it."""
        for attempt in self._pending:
            self._loop.remove_writer(attempt.sock.fileno())
            attempt.drop()
        for answer, target in self._looking.items():
            answer.remove_done_callback(self._wake)
            self._lookups.leave(target.address, answer)
