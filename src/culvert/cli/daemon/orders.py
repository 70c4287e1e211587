"""`culvert reload`, `stop` and `level`: what a daemon is told."""

from __future__ import annotations

import contextlib
import datetime
import signal
import time
from http import HTTPStatus

from culvert import config
from culvert.cli.daemon.client import RELOAD_PATIENCE
from culvert.cli.daemon.documents import Status
from culvert.cli.daemon.errors import DaemonError, LostError, NobodyListensError, RefusedError
from culvert.cli.daemon.outcomes import Outcome
from culvert.cli.daemon.process import DaemonProcess
from culvert.cli.daemon.reading import failed
from culvert.cli.daemon.whereabouts import Whereabouts
from culvert.cli.faults import report, say
from culvert.config.values import LEVELS
from culvert.errors import ConfigurationError, Severity

_LOOK = 0.2
_TOLD_EVERY = 1.0
"""Seconds between two looks at how many connections are left."""

_SIGNAL_PAUSE = 0.3
"""Seconds for a daemon that drains nothing to be gone, before it is told to hurry."""


def reload(where: Whereabouts) -> Outcome:
    """Have the configuration read again, if it has no error that can be seen from here."""
    if where.file is not None:
        try:
            config.load(where.file)
        except ConfigurationError as error:
            report(error)
            say("The daemon was not told: it goes on with the configuration that it has")
            return Outcome.FAILED
    try:
        if where.client is not None:
            with contextlib.suppress(NobodyListensError):
                return _reload_by_endpoint(where)
        return _reload_by_signal(where)
    except DaemonError as error:
        return failed(error)


def _reload_by_endpoint(where: Whereabouts) -> Outcome:
    assert where.client is not None  # noqa: S101  the caller has looked
    try:
        status, _ = where.client.post("/reload", patience=RELOAD_PATIENCE)
    except RefusedError as refusal:
        if refusal.status != HTTPStatus.CONFLICT:
            raise
        say("The reload failed, and the daemon goes on with the configuration that it had; its log says why")
        _suspect(where.file)
        return Outcome.FAILED
    if status == HTTPStatus.ACCEPTED:
        say("The reload is still under way", ".")
        return Outcome.NOT_YET
    print("Reloaded")
    return Outcome.DONE


def _suspect(file: str | None) -> None:
    """Say what is wrong with the files that a configuration names, as far as it can be seen from here."""
    if file is None:
        return
    from culvert.cli.check import check  # noqa: PLC0415  it loads all of TLS, for a reload that failed

    found = check(file, datetime.datetime.now(datetime.UTC)).findings
    for finding in found:
        if finding.severity is Severity.ERROR:
            say(str(finding))


def _reload_by_signal(where: Whereabouts) -> Outcome:
    process = where.process()
    if process is None:
        say(f"culvert does not run: {_absence(where)}")
        return Outcome.NOT_RUNNING
    with process:
        process.send(signal.SIGHUP)
        print(f"Process {process.pid} was sent SIGHUP: its log tells what came of it")
    return Outcome.DONE


def _absence(where: Whereabouts) -> str:
    if where.pid_file is None and where.client is not None:
        return f"nobody listens at {where.client.address}"
    return where.absence()


def set_level(where: Whereabouts, level: str, service: str | None) -> Outcome:
    """Change what is logged, until the next reload."""
    if where.client is None:
        say("The level is changed over the admin endpoint, and none is known")
        return Outcome.FAILED
    number: str | int = int(level) if level.isascii() and level.isdigit() and len(level) < 3 else level
    if number not in LEVELS and number not in range(len(LEVELS)):
        say(f"{level} is no level: a number from 0 to 7 is expected, or one of {', '.join(LEVELS)}")
        return Outcome.FAILED
    try:
        where.client.post("/level", {"level": number, "service": service})
    except DaemonError as error:
        return failed(error)
    name = number if isinstance(number, str) else LEVELS[number]
    whose = "everything" if service is None else f"service [{service}]"
    print(f"The log level of {whose} is {name} until the next reload")
    return Outcome.DONE


def stop(where: Whereabouts, *, now: bool, timeout: float) -> Outcome:
    """Have the daemon end, and wait for that; `now` ends its connections before they have finished."""
    try:
        with contextlib.ExitStack() as stack:
            before = _status(where)
            process = where.process()
            if process is None and before is not None and before.pid and where.client and where.client.local:
                process = DaemonProcess.find(before.pid)
            if process is not None:
                stack.enter_context(process)
            if before is None and process is None:
                print(f"culvert does not run: {_absence(where)}")
                return Outcome.DONE
            return _Stop(where, before, process, now=now).wait(timeout)
    except DaemonError as error:
        return failed(error)


def _status(where: Whereabouts) -> Status | None:
    """What the endpoint tells; None where there is none, or nobody listens. Raises DaemonError."""
    if where.client is None:
        return None
    try:
        return Status.of(where.client.get("/status"))
    except NobodyListensError:
        return None


class _Stop:
    """The end of one daemon, of which the endpoint or the process is known."""

    def __init__(
        self, where: Whereabouts, before: Status | None, process: DaemonProcess | None, *, now: bool
    ) -> None:
        self._client = where.client if before is not None else None
        self._since = None if before is None else before.since
        self._stopping = before is not None and before.draining
        self._process = process
        self._now = now
        self._left: int | None = None

    def wait(self, timeout: float) -> Outcome:
        """Tell it, and wait for the end. Raises DaemonError."""
        started = told = time.monotonic()
        hurried = not self._now
        if self._now or not self._stopping:  # told once more, it would end what is left
            self._tell()
        while not self._ended(_LOOK):
            at = time.monotonic()
            if at - told >= _TOLD_EVERY:
                told = at
                self._tell_what_is_left()
            if not hurried and at - started >= _SIGNAL_PAUSE and self._taken():
                hurried = True
                self._tell()
            if at - started >= timeout:
                left = "" if self._left is None else f": {self._left} connection(s) are left"
                say(f"It has not ended within {timeout:g} s{left} ('culvert stop --now' ends them)")
                return Outcome.NOT_YET
        print("Stopped")
        return Outcome.DONE

    def _tell(self) -> None:
        if self._client is not None:
            # Nothing may be left to answer: an end without a drain is quick.
            with contextlib.suppress(LostError, NobodyListensError):
                self._client.post("/stop")
        elif self._process is not None:
            self._process.send(signal.SIGTERM)

    def _taken(self) -> bool:
        """Whether the first word has been taken, so that another one is a second."""
        return self._client is not None or self._process is None or self._process.took(signal.SIGTERM)

    def _ended(self, seconds: float) -> bool:
        """Whether it has, or does within this time."""
        if self._process is not None:
            return self._process.wait(seconds)
        time.sleep(seconds)
        try:
            return self._look() is None
        except DaemonError:
            return False  # it may be busy with its end

    def _look(self) -> Status | None:
        """The daemon as it is now; None where it is gone, or another has come."""
        if self._client is None:
            return None
        try:
            found = Status.of(self._client.get("/status"))
        except (NobodyListensError, LostError):
            return None
        return found if found.since == self._since else None

    def _tell_what_is_left(self) -> None:
        """How many connections there are, whenever that has changed."""
        try:
            found = self._look()
        except DaemonError:
            return
        if found is not None and found.open != self._left:
            self._left = found.open
            print(f"Waiting for {found.open} connection(s) to finish", flush=True)
