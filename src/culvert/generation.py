"""One generation: a configuration with all that it takes to serve it, made ready before its workers fork.

Keys are read and addresses bound here, as root and outside the jail, by the supervisor. What is bound
already by the generation before is shared with it, so that a reload leaves no moment in which a port is
closed. A build that fails undoes what it began and leaves the generation before it as it was.
"""

from __future__ import annotations

import dataclasses
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from culvert import config, connect, privileges, sockopt, worker
from culvert.address import show
from culvert.config.model import Configuration, GlobalOptions, Service
from culvert.errors import ConfigurationError, Diagnostic, Severity, os_reason
from culvert.idents import ConnectionNumbers
from culvert.listen import Listener, listen
from culvert.log import Channel, Level, Log, open_log
from culvert.service import Prepared, Turn
from culvert.tls.context import TlsContext
from culvert.tls.credentials import AskPassPhrase, PassPhrases

FIXED_OPTIONS = ("chroot", "foreground", "pid", "setgid", "setuid")
"""What a reload does not change, as in stunnel."""

_LEVELS = {Severity.ERROR: Level.ERR, Severity.WARNING: Level.WARNING, Severity.NOTE: Level.INFO}


class ConfigurationSource:
    """Where the configuration comes from: a file, read anew for each reload, or a descriptor, read once."""

    def __init__(self, source: str | int) -> None:
        """`source` is a path or a descriptor's number. Nothing is read before `load`."""
        self._descriptor = source if isinstance(source, int) else None
        # As the first process was told it, and absolute, for a daemon changes to "/".
        self.kind = "descriptor" if isinstance(source, int) else "file"
        self.name = str(source)
        self._path = None if isinstance(source, int) else str(Path(source).absolute())
        self._text: bytes | None = None

    def load(self) -> Configuration:
        """The configuration as it stands now. Raises ConfigurationError."""
        if self._path is not None:
            return config.load(self._path)
        if self._text is None:
            self._text = self._read()
        return config.loads(self._text, f"{self.kind} {self.name}")

    def _read(self) -> bytes:
        try:
            with open(self._descriptor or 0, "rb", closefd=False) as file:
                return file.read(config.MAX_BYTES + 1)
        except OSError as error:
            raise ConfigurationError.single(
                f"Cannot read {self.kind} {self.name}: {os_reason(error)}"
            ) from None


@dataclass(slots=True)
class Generation:
    """A configuration ready to be served; `culvert.supervisor.Generation` says what each method is for."""

    options: GlobalOptions
    log: Log
    workers: int
    identity: privileges.Identity | None
    services: tuple[Prepared, ...]
    numbers: ConnectionNumbers
    turns: dict[str, Turn]

    @property
    def main(self) -> Channel:
        """Where the daemon itself writes."""
        return self.log.channel(self.options.debug, "main")

    def announce(self) -> None:
        main = self.main
        for prepared in self.services:
            if prepared.listener is not None:
                _announce_listener(main, prepared.config.name, prepared.listener)
        main.info("Accepting new connections")

    def run_worker(self, control: socket.socket, index: int) -> int:
        worker.preload()
        privileges.drop(self.options.chroot, self.identity)
        return worker.serve(self.assignment(index), control)

    def assignment(self, index: int) -> worker.Assignment:
        """What the worker of this index has to do."""
        return worker.Assignment(self.services, self.options, self.log, self.numbers, index == 0)

    def disown(self, heir: Generation) -> None:
        for listener in self._without(heir):
            for sock in listener.sockets:
                sock.close()

    def retire(self, successor: Generation | None) -> None:
        for listener in self._without(successor):
            listener.close()

    def listeners(self) -> list[Listener]:
        return [prepared.listener for prepared in self.services if prepared.listener is not None]

    def _without(self, other: Generation | None) -> list[Listener]:
        kept = {id(listener) for listener in other.listeners()} if other is not None else set()
        return [listener for listener in self.listeners() if id(listener) not in kept]


def _announce_listener(main: Channel, name: str, listener: Listener) -> None:
    for sock in listener.sockets:
        main.info(f"Service [{name}] (FD={sock.fileno()}) bound to {show(sock.getsockname())}")
    for refusal in listener.refusals:
        main.warning(f"Binding service [{name}] to {refusal.address}: {refusal.reason} ({refusal.errno})")


def no_terminal(path: str) -> bytes:
    """What asks for a pass phrase where nobody can be asked."""
    raise OSError("there is no terminal to ask for its pass phrase on")


def builder(
    source: ConfigurationSource, ask: AskPassPhrase = no_terminal
) -> Callable[[Generation | None], Generation]:
    """What loads the configuration and makes a generation of it, given the one that it is to follow.

    `ask` asks for pass phrases, once for each locked file: a reload must do without a terminal.
    """
    phrases = PassPhrases(ask)

    def build(previous: Generation | None) -> Generation:
        return _Build(source, phrases, previous).run()

    return build


class _Build:
    """One attempt to make a generation."""

    def __init__(
        self, source: ConfigurationSource, phrases: PassPhrases, previous: Generation | None
    ) -> None:
        self._source = source
        self._phrases = phrases
        self._previous = previous
        self._fresh: list[Listener] = []
        self._refused: list[str] = []
        self._reading = f"Reading configuration from {source.kind} {source.name}"

    def run(self) -> Generation:
        if self._previous is not None:
            self._previous.main.notice(self._reading)
        configuration = self._source.load()
        if configuration.inetd:
            raise ConfigurationError.single(
                f"{configuration.path} has no [service] section: this version of Culvert does not have "
                "inetd mode",
                hint="put the options into a section with 'accept'",
            )
        options, identity = self._standing(configuration.options)
        log = open_log(options, first=self._previous is None)
        try:
            services = self._prepare(configuration, log.channel(options.debug, "main"))
        except BaseException:
            for listener in self._fresh:
                listener.close()
            log.close()
            raise
        return Generation(
            options,
            log,
            _worker_count(options),
            identity,
            services,
            ConnectionNumbers() if self._previous is None else self._previous.numbers,
            self._turns(services),
        )

    def _standing(self, options: GlobalOptions) -> tuple[GlobalOptions, privileges.Identity | None]:
        """The options as they count from now on, and who the workers are to be."""
        if options.chroot is not None:  # valid when the daemon has changed its directory
            options = dataclasses.replace(options, chroot=str(Path(options.chroot).absolute()))
        if self._previous is None:
            _check_jail(options)
            return options, privileges.resolve(
                options.setuid,
                options.setgid,
                options.locations.get("setuid"),
                options.locations.get("setgid"),
            )
        fixed = {name: getattr(self._previous.options, name) for name in FIXED_OPTIONS}
        if (options.workers == 0) != (self._previous.options.workers == 0):
            fixed["workers"] = self._previous.options.workers  # one process cannot become several, nor back
        self._refused = [name for name, value in fixed.items() if getattr(options, name) != value]
        return dataclasses.replace(options, **fixed), self._previous.identity

    def _prepare(self, configuration: Configuration, main: Channel) -> tuple[Prepared, ...]:
        if self._previous is None:
            main.notice(self._reading)
        for finding in configuration.findings:
            # A finding on a service names it, in the words that monitors look for.
            text = finding.message if finding.service is not None else str(finding)
            main.write(_LEVELS[finding.severity], text)
        for name in self._refused:
            main.warning(f"A reload does not change '{name}': restart for the new value")
        contexts = self._contexts(configuration)
        prepared = tuple(
            Prepared(
                service, context, connect.prepare(service, main), self._listener(service), self._turn(service)
            )
            for service, context in zip(configuration.services, contexts, strict=True)
        )
        main.notice("Configuration successful")
        return prepared

    def _contexts(self, configuration: Configuration) -> list[TlsContext]:
        """Every service's context; the faults of all of them are reported together."""
        contexts: list[TlsContext] = []
        faults: list[Diagnostic] = []
        for service in configuration.services:
            try:
                contexts.append(TlsContext(service, self._phrases))
            except ConfigurationError as error:
                faults.extend(error.diagnostics)
        if faults:
            raise ConfigurationError(faults)
        return contexts

    def _listener(self, service: Service) -> Listener | None:
        if service.accept is None:
            return None
        for prepared in self._previous.services if self._previous is not None else ():
            if prepared.listener is not None and prepared.config.accept == service.accept:
                _set_options(prepared.listener, service)
                return prepared.listener
        listener = listen(service)
        self._fresh.append(listener)
        if listener.path is not None:
            _give_away(listener.path, service)
        return listener

    def _turn(self, service: Service) -> Turn | None:
        if service.accept is not None:
            return None
        known = self._previous.turns if self._previous is not None else {}
        return known.get(service.name) or Turn(service.name)

    def _turns(self, services: tuple[Prepared, ...]) -> dict[str, Turn]:
        known = dict(self._previous.turns) if self._previous is not None else {}
        return known | {p.config.name: p.turn for p in services if p.turn is not None}


def _set_options(listener: Listener, service: Service) -> None:
    """Give a shared listener the socket options of the service that takes it over."""
    for sock in listener.sockets:
        try:
            sockopt.apply(sock, sockopt.settings(service.socket_options, "a", sock.family))
        except OSError as error:
            raise ConfigurationError.single(
                f"Cannot set the options of the accept socket: {os_reason(error)}",
                service.where("socket"),
                service.name,
            ) from None


def _worker_count(options: GlobalOptions) -> int:
    return len(os.sched_getaffinity(0)) if options.workers is None else options.workers


def _check_jail(options: GlobalOptions) -> None:
    if options.chroot is None:
        return
    if not Path(options.chroot).is_dir():
        raise ConfigurationError.single(
            f"The chroot directory {options.chroot} does not exist", options.locations.get("chroot")
        )
    if os.geteuid() != 0:
        raise ConfigurationError.single(
            "Only root can chroot",
            options.locations.get("chroot"),
            hint="start it as root, or leave out 'chroot'",
        )


def _give_away(path: str, service: Service) -> None:
    """Hand a Unix socket to the user and group that may connect to it."""
    uid = -1 if service.setuid is None else privileges.find_user(service.setuid, service.where("setuid"))
    gid = -1 if service.setgid is None else privileges.find_group(service.setgid, service.where("setgid"))
    if (uid, gid) == (-1, -1):
        return
    try:
        os.chown(path, uid, gid)
    except OSError as error:
        raise ConfigurationError.single(
            f"Cannot give {path} to its owner: {os_reason(error)}",
            service.where("setuid", "setgid"),
            service.name,
        ) from None
