"""`culvert.Server`: what a configuration says, served in the event loop of a program.

It is the daemon without what makes a daemon: no fork, no signals, no pid file, no change of user or root,
and a logger of the program's in place of log files. What of the configuration is about these is refused where
it would be dangerous to go without it, and warned of otherwise.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from types import TracebackType
from typing import Self

from culvert import config
from culvert.config.model import Configuration, Debug, Foreground
from culvert.errors import ConfigurationError, Diagnostic, Severity, os_reason
from culvert.generation import Generation, builder, no_terminal
from culvert.log import Level
from culvert.program_log import OpenProgramLog, quiet_logger
from culvert.resolve import SocketAddress
from culvert.service import RunningService
from culvert.succession import Serving, Succession

_DANGEROUS = ("chroot", "setgid", "setuid")
_NEEDLESS = ("admin", "foreground", "log", "output", "pid", "service", "syslog", "watch", "workers")


@dataclass(frozen=True, slots=True)
class ConnectionState:
    """One connection that lives. Bytes are of what was carried to the TLS side, and to the plain side."""

    service: str
    ident: str
    peer: str
    seconds: float
    sent_to_tls: int
    sent_to_plain: int


@dataclass(frozen=True, slots=True)
class ServiceStats:
    """What one service has done since the server started, over reloads. `open` is of now, and the bytes are
    those of connections that are over."""

    open: int = 0
    accepted: int = 0
    handshakes: int = 0
    handshakes_failed: int = 0
    resumed: int = 0
    truncated: int = 0
    sent_to_tls: int = 0
    sent_to_plain: int = 0

    @classmethod
    def of(cls, service: RunningService) -> Self:
        """Those of one generation's service."""
        counted = {one.name: getattr(service.counters, one.name) for one in fields(cls) if one.name != "open"}
        return cls(open=len(service.connections), **counted)

    def __add__(self, other: ServiceStats) -> ServiceStats:
        return ServiceStats(*(getattr(self, one.name) + getattr(other, one.name) for one in fields(self)))


def load_config(source: str | bytes | os.PathLike[str]) -> Configuration:
    """Read a configuration, without opening anything that it names.

    `source` is a path, or the text itself: bytes, or a string of more than one line. Raises
    ConfigurationError with all that is wrong in it, each with its line.
    """
    if isinstance(source, bytes) or (isinstance(source, str) and "\n" in source):
        return config.loads(source, "configuration")
    return config.load(os.fspath(source))


class Server:
    """Serves a configuration in the running event loop, as long as an `async with` lasts.

        async with culvert.Server(culvert.load_config("tunnel.conf")) as server:
            port = server.port("web")

    It takes connections once the block begins. At its end nobody new is let in, those who are there may go on
    for `drain_timeout` seconds (the configuration's `drainTimeout` where that is None), and are ended then.
    `start` and `close` do the same without a block. Several servers may run in one loop. Every method is to
    be called in the loop's thread.
    """

    def __init__(
        self,
        configuration: Configuration,
        *,
        drain_timeout: float | None = None,
        logger: logging.Logger | None = None,
        ask_pass_phrase: Callable[[str], bytes] = no_terminal,
    ) -> None:
        """`logger` gets the log, else the one named `culvert`; `ask_pass_phrase` is given the path of a key
        that is locked, in another thread. Raises ConfigurationError for what needs a daemon."""
        self._source = _Given(_fitting(configuration))
        self._drain_timeout = drain_timeout
        log = OpenProgramLog(logger if logger is not None else quiet_logger())
        self._build = builder(self._source, ask_pass_phrase, log=log)
        self._succession = Succession(self._add_up)
        self._current: Serving | None = None
        self._past: dict[str, ServiceStats] = {}
        self._changing = asyncio.Lock()
        self._closed = False

    async def start(self) -> None:
        """Read the files, bind the addresses and take connections. To be called once.

        Raises ConfigurationError where a file or an address cannot be had; then nothing is left open.
        """
        if self._current is not None or self._closed:
            raise RuntimeError("a culvert.Server can be started once: make another one")
        await self._change(self._source.configuration)

    async def reload(self, configuration: Configuration) -> None:
        """Serve another configuration from now on. Connections that live go on as they are.

        An address that both have is never closed in between. Raises ConfigurationError where the new one
        cannot be served; then the old one goes on.
        """
        if self._current is None:
            raise RuntimeError("a culvert.Server is reloaded between its start and its end")
        await self._change(_fitting(configuration))

    async def close(self, drain_timeout: float | None = None) -> None:
        """Let nobody new in, and return when all connections are over; end those that are left after
        `drain_timeout` seconds (the server's own where that is None), or when this is cancelled."""
        self._closed = True
        if drain_timeout is None:
            drain_timeout = self._drain_timeout
        async with self._changing:
            if drain_timeout is None:
                drain_timeout = self._source.configuration.options.drain_timeout
            self._current = None
            try:
                async with asyncio.timeout(drain_timeout):
                    await self._succession.take_latecomers()
                    self._succession.stop_accepting()
                    await self._succession.drain()
            except TimeoutError:
                pass
            finally:
                self._succession.stop_accepting()
                await self._succession.end()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    @property
    def addresses(self) -> Mapping[str, tuple[SocketAddress, ...]]:
        """Where each service accepts: `(host, port)`, `(host, port, flow, scope)` or a Unix socket's path.

        A port that the configuration left to the kernel (0) is the one that it chose.
        """
        if self._current is None:
            return {}
        return {
            prepared.config.name: tuple(bound.address for bound in prepared.listener.bound)
            for prepared in self._current.generation.services
            if prepared.listener is not None
        }

    def port(self, service: str) -> int:
        """The port at which a service accepts: what the kernel has chosen, where the configuration says 0.

        Raises LookupError for one that accepts at no port.
        """
        ports: list[int] = [
            address[1] for address in self.addresses.get(service, ()) if not isinstance(address, str)
        ]
        if not ports:
            raise LookupError(f"no service [{service}] accepts at a port")
        return ports[0]

    @property
    def connections(self) -> tuple[ConnectionState, ...]:
        """The connections that live, those included that a configuration of before has taken."""
        now = asyncio.get_running_loop().time()
        return tuple(
            ConnectionState(one.service, one.ident, one.peer, now - one.started, *one.sent)
            for serving in self._succession
            for service in serving.worker.services
            for one in service.connections.values()
        )

    @property
    def stats(self) -> Mapping[str, ServiceStats]:
        """What each service has done so far, also those that a reload has taken out."""
        total = dict(self._past)
        for serving in self._succession:
            _add(total, serving)
        return total

    def _add_up(self, left: Serving) -> None:
        _add(self._past, left)

    async def _change(self, configuration: Configuration) -> None:
        async with self._changing:
            before = self._current.generation if self._current is not None else None
            if self._closed:
                raise RuntimeError("this culvert.Server is closed")
            served, self._source.configuration = self._source.configuration, configuration
            try:
                fresh = Serving.of(await self._built(before), before)
            except BaseException as error:
                self._source.configuration = served  # a failure changes nothing
                if isinstance(error, OSError):
                    raise ConfigurationError.single(f"Cannot serve: {os_reason(error)}") from error
                raise
            self._current = fresh
            self._succession.commit(fresh)

    async def _built(self, before: Generation | None) -> Generation:
        """The next generation, built in a thread: files are read, and names looked up.

        Cancelled, it waits for the thread: what was opened there must not be left open.
        """
        building = asyncio.get_running_loop().run_in_executor(None, self._build, before)
        try:
            return await asyncio.shield(building)
        except asyncio.CancelledError:
            building.add_done_callback(lambda done: _abandon(done, before))
            raise


class _Given:
    """A configuration as the source of generations."""

    kind = "program"

    def __init__(self, configuration: Configuration) -> None:
        self.configuration = configuration

    @property
    def name(self) -> str:
        return self.configuration.path

    def load(self) -> Configuration:
        return self.configuration


def _abandon(done: asyncio.Future[Generation], before: Generation | None) -> None:
    if not done.cancelled() and done.exception() is None:
        done.result().retire(before)
        done.result().log.close()


def _add(total: dict[str, ServiceStats], serving: Serving) -> None:
    for service in serving.worker.services:
        name = service.config.name
        total[name] = total.get(name, ServiceStats()) + ServiceStats.of(service)


def _fitting(configuration: Configuration) -> Configuration:
    """The configuration as it can be served inside a program. Raises ConfigurationError where it cannot."""
    options = configuration.options
    faults, warnings = [], []
    if configuration.inetd:
        text = "there is no [service] section: inetd mode is for a process of its own"
        faults.append(Diagnostic(Severity.ERROR, f"{configuration.path}: {text}"))
    for name in _DANGEROUS:
        if name in options.locations:
            text = f'"{name}" would change the whole program: leave it out, or run culvert as a daemon'
            faults.append(Diagnostic(Severity.ERROR, text, options.locations[name]))
    for service in configuration.services:
        if service.vpn is not None:
            text = '"tun" is for a daemon: a VPN has a process of its own'
            faults.append(Diagnostic(Severity.ERROR, text, service.where("tun"), service.name))
    if faults:
        raise ConfigurationError(faults)
    for name in _NEEDLESS:
        if name in options.locations:
            text = f'"{name}" has no effect inside a program'
            warnings.append(Diagnostic(Severity.WARNING, text, options.locations[name]))
    for service in configuration.services:
        if service.trace:
            text = '"trace = yes" has no effect inside a program: there is no admin endpoint'
            warnings.append(Diagnostic(Severity.WARNING, text, service.where("trace")))
    options = replace(
        options,
        admin=None,
        foreground=Foreground.QUIET,
        output=None,
        pid=None,
        syslog=False,
        watch=False,
        workers=0,
    )
    services = configuration.services
    if "debug" not in options.locations:  # the logger decides
        options = replace(options, debug=_everything(options.debug))
        services = tuple(
            one if "debug" in one.locations else replace(one, debug=_everything(one.debug))
            for one in services
        )
    return replace(
        configuration, options=options, services=services, findings=(*configuration.findings, *warnings)
    )


def _everything(debug: Debug) -> Debug:
    return replace(debug, level=Level.DEBUG)
