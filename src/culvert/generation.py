"""One generation: a configuration with all that it takes to serve it, made ready before its workers fork.

Keys are read and addresses bound here, as root and outside the jail, by the supervisor. What is bound
already by the generation before is shared with it, so that a reload leaves no moment in which a port is
closed. A build that fails undoes what it began and leaves the generation before it as it was.
"""

from __future__ import annotations

import dataclasses
import os
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from culvert import capabilities, libwrap, posts, privileges, targets, transparent, worker
from culvert.activation import Activation, Passed, remarks
from culvert.address import show
from culvert.admin.door import Door, open_door
from culvert.admin.operations import Supervised
from culvert.admin.overview import DAEMON, Overview
from culvert.admission import Gate, gates
from culvert.config.model import Configuration, GlobalOptions, Service, Transparent
from culvert.contexts import make_contexts, report_lifetimes
from culvert.descriptors import Demand, DescriptorLimit
from culvert.errors import ConfigurationError, Severity
from culvert.idents import ConnectionNumbers
from culvert.latecomers import Arrivals
from culvert.ledger import Ledger
from culvert.listen import Binder, Bound, Listener, Owner
from culvert.log import KINDS, Channel, Level, Log, open_log
from culvert.metrics import Event, loss_counter, note
from culvert.posts import Posts, vpn_files
from culvert.service import Prepared
from culvert.source import Source, anchored
from culvert.tally import Cell
from culvert.tls import datagram_context, fips, psk
from culvert.tls.context import TlsContext
from culvert.tls.credentials import AskPassPhrase, PassPhrases
from culvert.turn import Turn
from culvert.watch import Watched

FIXED_OPTIONS = ("chroot", "foreground", "pid", "setgid", "setuid")
"""What a reload does not change, as in stunnel."""

_LEVELS = {Severity.ERROR: Level.ERR, Severity.WARNING: Level.WARNING, Severity.NOTE: Level.INFO}


class OpenLog(Protocol):
    """What opens the log for a generation, as `culvert.log.open_log` does."""

    def __call__(self, options: GlobalOptions, *, first: bool, jailed: bool) -> Log: ...


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
    watched: Watched | None
    ledger: Ledger | None
    """What its workers and those before them hold; None where nothing was ever limited."""
    descriptors: DescriptorLimit | None
    """Where this process has raised its own: programs get the one of before."""
    posts: Posts
    """What each worker does."""
    door: Door | None = None
    """Where the admin endpoint is, where there is one."""
    jailed: bool = False
    """Whether this process is in the jail, where the paths of its files start at the root."""

    @property
    def main(self) -> Channel:
        """Where the daemon itself writes."""
        return self.log.channel(self.options.debug, "main")

    @property
    def summary(self) -> str:
        """What it serves, in a few words."""
        count = len(self.services)
        processes = f"{self.workers} worker(s)" if self.workers else "one process"
        return f"Serving {count} service(s) with {processes}"

    def announce(self) -> None:
        main = self.main
        for prepared in self.services:
            if prepared.listener is not None:
                for failure in prepared.listener.take_over():
                    main.error(failure)
                _announce_listener(main, prepared.config.name, prepared.listener)
        for address in self.door.addresses if self.door is not None else ():
            main.info(f"Admin endpoint bound to {show(address)}")
        main.info("Accepting new connections")

    def run_worker(self, control: socket.socket, index: int) -> int:
        door = self.door
        if self.administers(index):
            return self._run_endpoint(control)
        if door is not None:
            door.let_go()
        clone = self.posts.take_up(index)
        self.close_jail(posts.POWERS if self.posts.is_vpn(index) else None)
        if self.posts.is_vpn(index):
            posts.give_up_powers(stays_root=self.identity is None)
        assignment = self.assignment(index)
        mine = self.posts.services_of(index)
        return worker.serve(dataclasses.replace(assignment, services=mine, clone=clone), control)

    def _run_endpoint(self, control: socket.socket) -> int:
        # No other process needs the libraries of these.
        from culvert.admin.endpoint import Endpoint  # noqa: PLC0415
        from culvert.admin.process import AdminProcess  # noqa: PLC0415

        door, ledger = self.door, self.ledger
        assert door is not None and ledger is not None  # noqa: S101  a post without a door is none
        for bound in self._listening():
            bound.sock.close()
        ledger.claim(serves=False)
        self.close_jail(frozenset())
        overview = Overview(self.services, ledger, os.getppid())

        def make() -> AdminProcess:
            endpoint = Endpoint(door, overview, Supervised(control, ledger), self.main)
            return AdminProcess(endpoint, door, ledger, self.log)

        return worker.obey(make, self.log, self.main, control)

    def administers(self, index: int) -> bool:
        return index == self.posts.administrator

    def note(self, event: Event) -> None:
        if self.ledger is not None:
            note(self.ledger.tally(DAEMON), event)

    def close_jail(self, powers: frozenset[int] | None = None) -> None:
        """Give up in this process, for good, what it takes to prepare but not to serve. None: keep the
        powers that serving takes; else these alone.
        """
        worker.preload()
        privileges.drop(self.options.chroot, None)
        self.log.enter_jail()
        self.jailed = True
        privileges.drop(None, self.identity, self._kept_powers() if powers is None else powers)

    def _kept_powers(self) -> frozenset[int]:
        """What it takes to serve, or to reload in this process, and only root has."""
        serving = [prepared.config.transparent for prepared in self.services]
        needed = Transparent.SOURCE if self.workers else Transparent.BOTH
        return frozenset({capabilities.CAP_NET_RAW}) if any(needed & one for one in serving) else frozenset()

    def assignment(self, index: int) -> worker.Assignment:
        """What the worker of this index has to do. Raises OSError where it cannot be counted."""
        if self.ledger is not None:
            self.ledger.claim()
        return worker.Assignment(
            self.services,
            self.options,
            self.log,
            self.numbers,
            self.descriptors,
            index == 0,
            ledger=self.ledger,
        )

    def bury(self, pid: int) -> None:
        if self.ledger is not None:
            self.ledger.bury(pid)

    def disown(self, heir: Generation) -> None:
        for bound in self._without(heir):
            bound.sock.close()

    def turn_away(self, successor: Generation) -> None:
        """Let nobody connect any more to what `successor` does not share, before its queue is emptied."""
        for bound in self._without(successor):
            bound.turn_away()

    def turn_away_clients(self) -> Arrivals:
        for bound in self._listening():
            bound.turn_away()
        addresses = [bound.address for bound in self._listening() if not bound.passed]
        return Arrivals(one[1] for one in addresses if not isinstance(one, str))

    def stop_listening(self) -> None:
        for bound in self._listening():
            bound.close()

    def retire(self, successor: Generation | None) -> None:
        for bound in self._without(successor):
            bound.close()

    def bound(self) -> list[Bound]:
        """All that it listens on."""
        return [*self._listening(), *(self.door.bound if self.door is not None else ())]

    def _listening(self) -> list[Bound]:
        """What its services listen on."""
        listeners = [one.listener for one in self.services if one.listener is not None]
        return [bound for one in listeners for bound in (*one.bound, *one.datagrams)]

    def _without(self, other: Generation | None) -> list[Bound]:
        kept = set(other.bound()) if other is not None else set()
        return [bound for bound in self.bound() if bound not in kept]


def _announce_listener(main: Channel, name: str, listener: Listener) -> None:
    for sock in listener.sockets:
        main.info(f"Service [{name}] (FD={sock.fileno()}) bound to {show(sock.getsockname())}")
    for refusal in listener.refusals:
        main.warning(f"Binding service [{name}] to {refusal.address}: {refusal.reason} ({refusal.errno})")


def no_terminal(path: str) -> bytes:
    """What asks for a pass phrase where nobody can be asked."""
    raise OSError("there is no terminal to ask for its pass phrase on")


def builder(
    source: Source,
    ask: AskPassPhrase = no_terminal,
    descriptors: DescriptorLimit | None = None,
    activation: Activation | None = None,
    log: OpenLog = open_log,
) -> Callable[[Generation | None], Generation]:
    """What loads the configuration and makes a generation of it, given the one that it is to follow.

    `ask` asks for pass phrases, once for each locked file: a reload must do without a terminal.
    `descriptors` is this process's limit, where that was raised. What `activation` holds is listened on in
    place of what would be bound.
    """
    means = _Means(source, PassPhrases(ask), descriptors, activation or Activation(), log)

    def build(previous: Generation | None) -> Generation:
        return _Build(means, previous).run()

    return build


@dataclass(frozen=True, slots=True)
class _Means:
    """What every attempt to make a generation has."""

    source: Source
    phrases: PassPhrases
    descriptors: DescriptorLimit | None
    activation: Activation
    open_log: OpenLog


class _Build:
    """One attempt to make a generation."""

    def __init__(self, means: _Means, previous: Generation | None) -> None:
        self._source = means.source
        self._phrases = means.phrases
        self._activation = means.activation
        self._passed: Mapping[str, tuple[Passed, ...]] = {}
        self._previous = previous
        self._descriptors = means.descriptors
        self._open_log = means.open_log
        self._binder = Binder(previous.bound() if previous is not None else ())
        self._refused: list[str] = []
        self._inetd = False
        self._reading = f"Reading configuration from {means.source.kind} {means.source.name}"

    def run(self) -> Generation:
        if self._previous is not None:
            self._previous.main.notice(self._reading)
        configuration = self._source.load()
        if configuration.inetd and self._previous is not None:
            raise ConfigurationError.single(
                f"{configuration.path} has no [service] section any more: that is inetd mode, to which a "
                "running daemon cannot change"
            )
        self._inetd = configuration.inetd
        fips.enforce(configuration.options)
        options, identity = self._standing(configuration.options)
        services = configuration.services
        if options.chroot is None:
            services = tuple(anchored(service) for service in services)
        ledger = self._ledger(options, services)
        doubts = transparent.limits(services)
        watched = Watched.of(services, options.chroot) if options.watch else None
        contents = vpn_files(services, options.chroot)
        contexts = make_contexts(services, self._phrases)
        jailed = self._previous is not None and self._previous.jailed
        self._passed = self._activation.assign(services)
        try:
            # Before the log: a start that finds its ports taken, by the daemon that runs already perhaps,
            # must not empty that one's log file.
            listeners = [self._listener(service) for service in services]
            door = None if self._inetd else open_door(options, self._binder)
            log = self._open_log(options, first=self._previous is None, jailed=jailed)
        except BaseException:
            self._binder.undo()
            raise
        try:
            if ledger is not None and options.admin is not None:
                log.count_losses(loss_counter(ledger.tally(DAEMON), KINDS))
            main = log.channel(options.debug, "main")
            self._report(configuration, main)
            report_lifetimes(services, contexts, main)
            for doubt in (*doubts, *self._doubts(services, options.chroot, jailed=jailed)):
                main.warning(doubt)
            prepared = self._prepare(zip(services, contexts, listeners, strict=True), options, ledger, main)
            main.notice("Configuration successful")
        except BaseException:
            self._binder.undo()
            log.close()
            raise
        return Generation(
            options,
            log,
            _worker_count(options),
            identity,
            prepared,
            ConnectionNumbers() if self._previous is None else self._previous.numbers,
            self._turns(prepared),
            watched,
            ledger,
            self._descriptors,
            Posts(_worker_count(options), options, prepared, contents),
            door,
            jailed,
        )

    def _doubts(self, services: Sequence[Service], chroot: str | None, *, jailed: bool) -> Iterator[str]:
        """What is worth a warning at each start and reload, beside the findings of the configuration."""
        for service in services:
            yield from remarks(service, self._passed.get(service.name, ()))
            if (warning := psk.openness(service)) is not None:
                yield warning
            if not jailed and (warning := libwrap.lets_everybody_in(service, chroot)) is not None:
                yield warning

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

    def _report(self, configuration: Configuration, main: Channel) -> None:
        """Log what was read and what was found of it."""
        if self._previous is None:
            main.notice(self._reading)
        for finding in configuration.findings:
            # What names its service has the words that monitors look for; the rest needs its line.
            text = finding.message if finding.message.startswith("Service [") else str(finding)
            main.write(_LEVELS[finding.severity], text)
        if self._descriptors is not None:
            demand = Demand.of(configuration.options, configuration.services)
            _report_descriptors(demand, self._descriptors.now, main)
        for name in self._refused:
            main.warning(f"A reload does not change '{name}': restart for the new value")

    def _prepare(
        self,
        parts: Iterable[tuple[Service, TlsContext, Listener | None]],
        options: GlobalOptions,
        ledger: Ledger | None,
        main: Channel,
    ) -> tuple[Prepared, ...]:
        parts = list(parts)
        gate_of: Mapping[str, Gate] = {}
        if ledger is not None:
            gate_of = gates(options.limits, [service for service, _, _ in parts], ledger)
        prepared = tuple(
            Prepared(
                service,
                context,
                targets.prepare(service, service.connect, main),
                targets.prepare(service, (service.redirect,), main) if service.redirect is not None else None,
                listener,
                self._turn(service),
                libwrap.load(service),
                gate_of.get(service.name),
                datagrams=datagram_context.made(service, self._phrases),
            )
            for service, context, listener in parts
        )
        return prepared if ledger is None or options.admin is None else _counted(prepared, ledger)

    def _ledger(self, options: GlobalOptions, services: Sequence[Service]) -> Ledger | None:
        known = self._previous.ledger if self._previous is not None else None
        limited = options.limits or any(service.limits for service in services)
        if known is None and (limited or options.admin is not None):
            return Ledger()
        return known

    def _listener(self, service: Service) -> Listener | None:
        if service.accept is None:
            return None
        if service.name in self._passed:
            bound = tuple(one.bound for one in self._passed[service.name])
            return self._binder.accompany(Listener(service, _owner(service), bound))
        return self._binder.listen(service, _owner(service))

    def _turn(self, service: Service) -> Turn | None:
        elsewhere = service.accept is not None or service.server_names or self._inetd
        if elsewhere and service.vpn is None:
            return None
        known = self._previous.turns if self._previous is not None else {}
        return known.get(service.name) or Turn(service.name)

    def _turns(self, services: tuple[Prepared, ...]) -> dict[str, Turn]:
        known = dict(self._previous.turns) if self._previous is not None else {}
        return known | {p.config.name: p.turn for p in services if p.turn is not None}


def _report_descriptors(demand: Demand, limit: int, main: Channel) -> None:
    """Log whether there are as many descriptors as the limits on connections ask for."""
    if (shortage := demand.shortage(limit)) is not None:
        main.warning(str(shortage))
    elif demand.most is None:
        main.info(f"A process may open {limit} descriptors, enough for {demand.room(limit)} connections")


def _worker_count(options: GlobalOptions) -> int:
    """How many workers serve; 0 is this process alone."""
    return len(os.sched_getaffinity(0)) if options.workers is None else options.workers


def _counted(prepared: tuple[Prepared, ...], ledger: Ledger) -> tuple[Prepared, ...]:
    """The services with what they count seen by the admin endpoint."""
    daemon = ledger.tally(DAEMON).ended
    daemon[Cell.SINCE] = daemon[Cell.SINCE] or int(time.time())
    return tuple(
        dataclasses.replace(one, tally=ledger.tally(one.config.name), failures=ledger.failures())
        for one in prepared
    )


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


def _owner(service: Service) -> Owner:
    """The user and group that may connect to a Unix socket."""
    user, group = service.setuid, service.setgid
    return Owner(
        None if user is None else privileges.find_user(user, service.where("setuid")),
        None if group is None else privileges.find_group(group, service.where("setgid")),
    )
