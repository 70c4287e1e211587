"""Takes both sides of a script: what each of them sends is one run of bytes, and then it is gone."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from culvert.address import HostPort
from culvert.errors import BackendError
from culvert.negotiate.script import (
    Connect,
    Discard,
    Ends,
    Exactly,
    Line,
    NegotiationError,
    Note,
    Peek,
    Script,
    Secured,
    Send,
    Side,
)

STEPS = 20_000
"""More steps than a bounded script takes."""

NO_ENDS = Ends(None, None)
SECURED = Secured(
    redirected=False,
    version="TLSv1.3",
    cipher="TLS_AES_128_GCM_SHA256",
    server_name=None,
    protocol=None,
    certificate=None,
    verified=False,
)


@dataclass
class Play:
    """What came of a script: `error` is what it raised, `rest` what it left unread."""

    sent: dict[Side, bytes] = field(default_factory=lambda: {Side.CLIENT: b"", Side.SERVER: b""})
    rest: dict[Side, bytes] = field(default_factory=dict)
    discarded: dict[Side, bytes] = field(default_factory=lambda: {Side.CLIENT: b"", Side.SERVER: b""})
    targets: list[HostPort | None] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    error: NegotiationError | BackendError | None = None

    @property
    def to_client(self) -> bytes:
        return self.sent[Side.CLIENT]

    @property
    def to_server(self) -> bytes:
        return self.sent[Side.SERVER]

    @property
    def reason(self) -> str:
        assert self.error is not None, "the script went through"
        return str(self.error)


def play(
    script: Script, *, client: bytes = b"", server: bytes = b"", unreachable: BackendError | None = None
) -> Play:
    """Run a script against these bytes; `unreachable` is what its Connect meets."""
    scene = Play(rest={Side.CLIENT: client, Side.SERVER: server})
    try:
        step = next(script)
        for _ in range(STEPS):
            if isinstance(step, Connect) and unreachable is not None:
                scene.targets.append(step.target)
                step = script.throw(unreachable)
            else:
                step = script.send(_perform(step, scene))
        raise AssertionError("the script does not end")
    except StopIteration:
        return scene
    except (NegotiationError, BackendError) as error:
        scene.error = error
        return scene
    finally:
        script.close()


def _perform(step: Any, scene: Play) -> Any:
    match step:
        case Send(side, data):
            scene.sent[side] += data
        case Exactly(side, size):
            return _take(scene, side, size)
        case Line(side, limit):
            end = scene.rest[side].find(b"\n") + 1
            if end > limit or (not end and len(scene.rest[side]) >= limit):
                raise NegotiationError(f"sent a line of more than {limit} bytes")
            line = _take(scene, side, end or len(scene.rest[side]) + 1)
            return line[:-2] if line.endswith(b"\r\n") else line[:-1]
        case Peek(side):
            if not scene.rest[side]:
                raise NegotiationError("closed the connection")
            return scene.rest[side][:1]
        case Discard(side):
            scene.discarded[side] += scene.rest[side]
            scene.rest[side] = b""
        case Connect(target):
            scene.targets.append(target)
        case Note(text):
            scene.notes.append(text)
    return None


def _take(scene: Play, side: Side, size: int) -> bytes:
    rest = scene.rest[side]
    if len(rest) < size:
        raise NegotiationError("closed the connection")
    scene.rest[side] = rest[size:]
    return rest[:size]
