"""Two TLS engines that talk to each other in memory, made from lines of configuration."""

from __future__ import annotations

from collections.abc import Iterable

from culvert import config
from culvert.config.model import Service
from culvert.tls.context import TlsContext
from culvert.tls.credentials import PassPhrases
from culvert.tls.engine import CHUNK, Engine, Scratch, Status
from culvert.tls.failure import TlsError
from culvert.tls.traced import Tap
from culvert.tls.verify import Finding

TLS12 = "sslVersion = TLSv1.2"
TLS13 = "sslVersion = TLSv1.3"


def nobody_knows(path: str) -> bytes:
    """What asks for a pass phrase where the test expects no question."""
    raise OSError(f"asked for the pass phrase of {path}")


def service(*options: str, client: bool = False) -> Service:
    """The service that a configuration with these options makes; each option is a line."""
    lines = ["[tunnel]", "accept = 127.0.0.1:0", "connect = 127.0.0.1:1", *options]
    if client:
        lines.insert(1, "client = yes")
    return config.loads("\n".join(lines) + "\n", "test.conf").services[0]


def context(*options: str, client: bool = False) -> TlsContext:
    """A context of such a service. Raises ConfigurationError."""
    return TlsContext(service(*options, client=client), PassPhrases(nobody_knows))


def give(engine: Engine, data: bytes) -> int:
    """Put bytes where the engine takes them from."""
    assert len(data) <= CHUNK
    engine.scratch.received[: len(data)] = data
    return len(data)


def output(engine: Engine) -> bytes:
    """What the engine has for its peer now."""
    return bytes(engine.scratch.transformed[: engine.output()])


def chunks(data: bytes, size: int = CHUNK) -> Iterable[bytes]:
    return (data[start : start + size] for start in range(0, len(data), size))


class End:
    """One side: its engine, its own scratch buffers, and what its handshake came to."""

    def __init__(self, context: TlsContext, server_name: str | None = None, tap: Tap | None = None) -> None:
        self.context = context
        self.engine = context.engine(Scratch(), server_name, tap)
        self.finished = False
        self.failure: TlsError | None = None

    def step(self, data: bytes) -> bytes:
        """Feed the peer's flight; gives the answer to it."""
        if data:
            self.engine.feed(give(self.engine, data))
        if not self.finished and self.failure is None:
            try:
                self.finished = self.engine.handshake()
                if self.finished:
                    self.context.prove(self.engine)
            except TlsError as failure:
                self.failure = failure
        return output(self.engine)

    def encrypt(self, data: bytes) -> bytes:
        """The ciphertext of at most a chunk."""
        return bytes(self.engine.scratch.transformed[: self.engine.encrypt(give(self.engine, data))])

    def decrypt(self, data: bytes) -> bytes:
        """The plaintext that comes out, chunk by chunk."""
        engine, received = self.engine, b""
        for chunk in chunks(data):
            received += engine.scratch.transformed[: engine.decrypt(give(engine, chunk))]
        return received

    def drain(self) -> bytes:
        """The plaintext of what came together with the handshake's end, a session ticket perhaps."""
        return bytes(self.engine.scratch.transformed[: self.engine.drain()])

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What verification said of the peer."""
        verification = self.context.verification(self.engine)
        return tuple(verification.findings) if verification is not None else ()


class Pair:
    """A client and a server on one wire. `shake_hands` first."""

    def __init__(
        self,
        client: TlsContext,
        server: TlsContext,
        server_name: str | None = None,
        taps: tuple[Tap | None, Tap | None] = (None, None),
    ) -> None:
        """`taps` are the client's and the server's."""
        self.client = End(client, server_name, taps[0])
        self.server = End(server, tap=taps[1])

    def shake_hands(self, size: int = CHUNK) -> Pair:
        """Carry flights of at most `size` bytes until neither side says anything more."""
        to_server = self.client.step(b"")
        to_client = b""
        for _ in range(1000):
            if not to_server and not to_client:
                break
            to_client += b"".join(self.server.step(chunk) for chunk in chunks(to_server, size))
            to_server = b""
            if to_client:
                to_server = b"".join(self.client.step(chunk) for chunk in chunks(to_client, size))
                to_client = b""
        for end in (self.client, self.server):
            if end.finished and end.failure is None:
                assert end.drain() == b""
        return self

    @property
    def accepted(self) -> bool:
        """Whether both sides take the other for good."""
        return all(
            end.finished and end.failure is None and end.engine.status is Status.OPEN
            for end in (self.client, self.server)
        )

    def carry(self, source: End, target: End, data: bytes) -> bytes:
        """What comes out at `target` of what goes in at `source`."""
        return b"".join(target.decrypt(source.encrypt(plain)) for plain in chunks(data))

    def close(self) -> None:
        """Exchange close_notify."""
        for source, target in ((self.client, self.server), (self.server, self.client)):
            source.engine.close()
            assert target.decrypt(output(source.engine)) == b""
            assert target.engine.status is Status.CLOSED
