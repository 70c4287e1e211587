"""Plays the two sides of a script without a socket."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from culvert.errors import BackendError
from culvert.negotiate.script import (
    Connect,
    Discard,
    Exactly,
    Line,
    NegotiationError,
    Note,
    Script,
    Send,
    Side,
)

STEPS = 2000
"""More steps than any script may take."""

Turns = Iterable[bytes]


@dataclass
class Outcome:
    """What came of a script."""

    returned: Any = None
    error: NegotiationError | BackendError | None = None
    sent: dict[Side, bytes] = field(default_factory=lambda: {Side.CLIENT: b"", Side.SERVER: b""})
    discarded: dict[Side, bytes] = field(default_factory=lambda: {Side.CLIENT: b"", Side.SERVER: b""})
    notes: list[str] = field(default_factory=list)
    connects: int = 0
    steps: int = 0
    left: dict[Side, bytes] = field(default_factory=dict)

    @property
    def to_client(self) -> bytes:
        return self.sent[Side.CLIENT]

    @property
    def to_server(self) -> bytes:
        return self.sent[Side.SERVER]

    @property
    def reason(self) -> str:
        """Why it failed."""
        assert self.error is not None, self
        return str(self.error)


def play(script: Script, *, client: Turns = (), server: Turns = (), reachable: bool = True) -> Outcome:
    """Run a script against what each side says.

    A turn is what stands in the socket at once: the next one comes when all of it was read and more is
    wanted, so what is left of a turn is what came too early.
    """
    return _Stage(script, client, server, reachable).run()


class _Stage:
    def __init__(self, script: Script, client: Turns, server: Turns, reachable: bool) -> None:
        self._script = script
        self._turns = {Side.CLIENT: iter(client), Side.SERVER: iter(server)}
        self._waiting = {Side.CLIENT: b"", Side.SERVER: b""}
        self._reachable = reachable
        self._outcome = Outcome(left=self._waiting)

    def run(self) -> Outcome:
        outcome, failure = self._outcome, None
        try:
            step = next(self._script)
            while True:
                outcome.steps += 1
                assert outcome.steps < STEPS, "the script does not end"
                try:
                    result = self._perform(step)
                except (NegotiationError, BackendError) as error:
                    assert failure is None, "the script went on after a failure"
                    failure = error
                    step = self._script.throw(error)
                else:
                    step = self._script.send(result)
        except StopIteration as end:
            assert failure is None, "the script keeps a failure to itself"
            outcome.returned = end.value
        except (NegotiationError, BackendError) as error:
            outcome.error = error
        return outcome

    def _perform(self, step: Any) -> Any:
        outcome = self._outcome
        match step:
            case Connect():
                outcome.connects += 1
                if not self._reachable:
                    raise BackendError("No more addresses to connect")
            case Send(side, data):
                outcome.sent[side] += data
            case Discard(side):
                outcome.discarded[side] += self._waiting[side]
                self._waiting[side] = b""
            case Note(text):
                outcome.notes.append(text)
            case Line(side, limit):
                return self._line(side, limit)
            case Exactly(side, size):
                return self._exactly(side, size)
        return None

    def _line(self, side: Side, limit: int) -> bytes:
        while b"\n" not in self._waiting[side][:limit]:
            if len(self._waiting[side]) >= limit:
                raise NegotiationError(f"the {side.value} sent a line of more than {limit} bytes")
            self._more(side)
        line, _, self._waiting[side] = self._waiting[side].partition(b"\n")
        return line.removesuffix(b"\r")

    def _exactly(self, side: Side, size: int) -> bytes:
        while len(self._waiting[side]) < size:
            self._more(side)
        taken, self._waiting[side] = self._waiting[side][:size], self._waiting[side][size:]
        return taken

    def _more(self, side: Side) -> None:
        turn = next(self._turns[side], None)
        if turn is None:
            raise NegotiationError(f"the {side.value} closed the connection")
        self._waiting[side] += turn
