"""What comes of attempts, for the log and for the judgement of each address."""

from __future__ import annotations

from culvert.address import show
from culvert.errors import os_reason
from culvert.log import Channel
from culvert.targets.dial import is_own
from culvert.targets.health import Health
from culvert.targets.target import Backend, Target


class ClientReport:
    """Writes what comes of a connection's attempts to its log, and has it judged."""

    __slots__ = ("_health", "_log")

    def __init__(self, log: Channel, health: Health | None) -> None:
        self._log = log
        self._health = health

    def begins(self, backend: Backend) -> None:
        self._log.info(f"s_connect: connecting {show(backend.endpoint.sockaddr)}")

    def failed(self, backend: Backend, error: OSError) -> None:
        shown = show(backend.endpoint.sockaddr)
        if _expired(error):
            self._log.error(f"s_connect: {shown}: TIMEOUTconnect exceeded")
        else:
            self._log.error(f"s_connect: connect {shown}: {os_reason(error)} ({error.errno})")
        if self._health is not None and not is_own(error):
            self._health.failed(backend, _reason(error))

    def stalled(self, backend: Backend, seconds: float) -> None:
        shown = show(backend.endpoint.sockaddr)
        self._log.error(f"s_connect: {shown}: no answer in {seconds:.1f} s, the next target is tried as well")
        if self._health is not None:
            self._health.failed(backend, f"no answer in {seconds:.1f} s")

    def overtaken(self, backend: Backend) -> None:
        if self._health is not None:
            self._health.doubted(backend)

    def reached(self, backend: Backend) -> None:
        if self._health is not None:
            self._health.reached(backend)

    def unresolved(self, target: Target, error: OSError) -> None:
        if _expired(error):
            self._log.error(f"Resolving {target.address}: TIMEOUTconnect exceeded")
        else:
            self._log.error(f"Error resolving {target.address}: {os_reason(error)}")


class ProbeReport:
    """Has the outcome of a probe judged. Only the judgement is for the log: probes may be many."""

    __slots__ = ("_health", "_log")

    def __init__(self, log: Channel, health: Health) -> None:
        self._health = health
        self._log = log

    def begins(self, backend: Backend) -> None:
        self._log.debug(f"Trying whether {backend.name} answers")

    def failed(self, backend: Backend, error: OSError) -> None:
        self._log.debug(f"{backend.name}: {_reason(error)}")
        if not is_own(error):
            self._health.failed(backend, _reason(error), probed=True)

    def stalled(self, backend: Backend, seconds: float) -> None:
        """There is no other target that could follow."""

    def overtaken(self, backend: Backend) -> None:
        """There is no other address that could overtake it."""

    def reached(self, backend: Backend) -> None:
        self._health.reached(backend)

    def unresolved(self, target: Target, error: OSError) -> None:
        """Nothing is looked up."""


def _expired(error: OSError) -> bool:
    """Whether it was our own clock, not the kernel's."""
    return isinstance(error, TimeoutError) and error.errno is None


def _reason(error: OSError) -> str:
    return "no answer within TIMEOUTconnect" if _expired(error) else os_reason(error)
