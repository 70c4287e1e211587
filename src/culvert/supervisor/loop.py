"""The supervisor itself: one loop that waits for signals, for messages of workers and for deadlines.

One generation is current: a worker of it that dies is replaced. At a start and at a reload there is a
candidate too: it becomes current once all its workers serve, and is undone when one of them fails. Workers
of any other generation are leaving, drained or told to stop, and only waited for.

Nothing polls, but for clients who are just connecting as the daemon ends (`ending`). Every wait for a worker
is bounded by its `deadline`: past it the worker is killed, and that death is like any other. The selector is
poll, for an epoll descriptor would be shared with the children.
"""

from __future__ import annotations

import functools
import gc
import math
import os
import selectors
import signal
import socket
import time
from collections.abc import Callable

from culvert.config.model import GlobalOptions
from culvert.control import ASK, LIST, LOG, READY, REQUEST
from culvert.drain import Drain
from culvert.errors import ConfigurationError
from culvert.log import Channel, Level, Log, changed, shown
from culvert.metrics import Event
from culvert.notify import Notifier
from culvert.privileges import ExitStatus
from culvert.standing import Standing
from culvert.supervisor import requests
from culvert.supervisor.contract import Build, Generation
from culvert.supervisor.ending import Ending
from culvert.supervisor.process import Worker, fork_worker, main_channel
from culvert.supervisor.replacement import Replacement, Replacements
from culvert.supervisor.requests import Means
from culvert.supervisor.signals import ENDS, SignalPipe, hold_back_ends, signal_name
from culvert.supervisor.timing import LONGEST_WAIT, TIMING, Timing
from culvert.supervisor.watchdog import Watchdog
from culvert.supervisor.workforce import Workforce
from culvert.watch import Host, Renewal


class Supervisor:
    """Runs the generations that `build` makes, from the first start to the signal that ends the daemon."""

    def __init__(self, build: Build, timing: Timing = TIMING, notifier: Notifier | None = None) -> None:
        self._build = build
        self._timing = timing
        self._notifier = notifier or Notifier()
        self._watchdog = Watchdog(self._notifier, self._complain)
        self._current: Generation | None = None
        self._candidate: Generation | None = None
        self._workers = Workforce(timing.stop, lambda: self._log)
        self._replacements = Replacements(timing.pause_first, timing.pause_last)
        self._announce_by = math.inf
        self._reload_again = self._reloads = False
        self._stopping = False
        self._ending: Ending | None = None
        self._status = ExitStatus.OK
        self._log: Channel
        self._signals: SignalPipe
        self._standing = Standing()
        self._reason = ""
        self._selector = selectors.PollSelector()
        self._renewal = Renewal(Host(self._reload, lambda: self._log, self._hear, self._selector.unregister))
        self._actions: dict[int, Callable[[], None]] = {
            signal.SIGTERM: self._stop,
            signal.SIGINT: self._stop,
            signal.SIGQUIT: self._stop,
            signal.SIGHUP: self._reload,
            signal.SIGUSR1: self._reopen_logs,
            signal.SIGUSR2: self._list_connections,
            signal.SIGCHLD: self._reap,
        }

    def run(self) -> int:
        """Serve until a signal says otherwise; returns an `ExitStatus`. To be called once.

        Raises ConfigurationError when the first generation cannot be built. What fails later is in the log;
        a daemon's failed start is also told to the user, by the process that waits for it.
        """
        first = self._build(None)
        self._log = main_channel(first)
        self._notifier.complain = self._complain
        try:
            self._start(first)
            while self._workers or not self._stopping:
                for key, _ in self._selector.select(self._patience()):
                    key.data()
                self._meet_deadlines()
        except Exception:
            self._crash()
        self._leave()
        return self._status

    def _start(self, first: Generation) -> None:
        """Become a daemon where asked, write the pid file, fork the first workers."""
        try:
            self._detach(first.options)
        except (ConfigurationError, OSError) as error:
            first.retire(None)
            configured = isinstance(error, ConfigurationError)
            self._refuse(ExitStatus.CONFIGURATION if configured else ExitStatus.FAILED_START, str(error))
        else:
            self._launch(first)

    def _detach(self, options: GlobalOptions) -> None:
        """Take the place in the system that the options ask for. Raises ConfigurationError and OSError."""
        self._standing.detach(options, self._notifier.introduce)
        self._signals = SignalPipe(self._actions, ENDS)
        self._selector.register(self._signals, selectors.EVENT_READ, self._take_signals)
        self._standing.write_pid()

    def _refuse(self, status: ExitStatus, reason: str) -> None:
        """End a start that failed: in the log, and in what the waiting process says and returns."""
        for line in reason.splitlines():
            self._log.error(line)
        self._status = status
        self._reason = reason
        self._stopping = True
        self._notifier.status(reason)

    def _crash(self) -> None:
        """End after a fault of the supervisor's own: nobody is left to watch the workers."""
        self._log.fault("The supervisor")
        self._refuse(ExitStatus.CRASH, "The supervisor failed: all workers are killed")
        self._workers.kill_all()

    def _complain(self, text: str) -> None:
        self._log.error(text)

    def _leave(self) -> None:
        hold_back_ends()
        self._renewal.end()
        if self._current is not None:
            self._current.retire(None)
        if self._ending is not None and self._status == ExitStatus.OK:
            self._status = self._ending.conclude()
        self._standing.give_up(self._log)
        self._log.notice("Terminated")
        if self._reason:
            self._standing.send(self._status, self._reason)  # to who may start another one at once

    # What the loop waits for: signals, messages, deadlines.

    def _take_signals(self) -> None:
        for number in self._signals.read():
            if number != signal.SIGCHLD:
                self._log.notice(f"Received {signal_name(number)}")
            self._actions[number]()

    def _receive(self, worker: Worker) -> None:
        """Take one message of a worker, or the end of its channel as it exits."""
        if not self._workers.has(worker):
            return  # reaped by an earlier event of the same turn
        message = worker.receive()
        worker.hear(message)
        if not message:
            self._selector.unregister(worker.channel)
            worker.deadline = min(worker.deadline, time.monotonic() + self._timing.stop)
        elif message == READY:
            if not worker.stopping:
                worker.deadline = math.inf
            if self._candidate is not None and all(one.ready for one in self._workers.of(self._candidate)):
                self._commit(self._candidate)
        elif message.startswith(REQUEST):
            means = Means(self._log, self._set_log_level, self._reload, self._stop)
            requests.obey(worker, message, self._workers, means)
        else:
            self._announce_when_drained()
            if self._ending is not None:
                self._ending.tell(self._notifier)
            self._watchdog.answered(self._must_live())

    def _hear(self, channel: socket.socket, react: Callable[[], None]) -> None:
        self._selector.register(channel, selectors.EVENT_READ, react)

    def _patience(self) -> float | None:
        """How long the loop may wait: to the next deadline, or for ever."""
        nearest = min(
            self._workers.due,
            self._replacements.due,
            self._announce_by,
            self._renewal_due,
            self._watchdog.due,
            self._ending.due if self._ending is not None else math.inf,
        )
        return None if nearest == math.inf else min(max(0.0, nearest - time.monotonic()), LONGEST_WAIT)

    def _meet_deadlines(self) -> None:
        now = time.monotonic()
        if self._workers.due <= now:
            self._reap()  # one that has ended may have been told by a signal that was lost
        self._workers.meet_deadlines(now, self._timing.stop)
        if self._ending is not None:
            self._ending.meet_deadlines(now)
        for one in self._replacements.take(now):
            self._replace(one)
        if self._announce_by <= now:
            self._announce()
        if self._renewal_due <= now:
            self._renewal.act()
        if self._watchdog.due <= now:
            required = None if self._stopping else self._must_live()
            self._watchdog.act(required, now, lambda worker: self._workers.tell(worker, ASK))

    def _must_live(self) -> list[Worker]:
        """The workers without which the daemon does not do its work."""
        current = self._current
        return [
            one
            for one in self._workers.of(current)
            if one.ready and current is not None and not current.administers(one.index)
        ]

    @property
    def _renewal_due(self) -> float:
        """When changed files are to be looked at: not while a reload is under way."""
        return math.inf if self._reloading or self._stopping else self._renewal.due

    # Generations: prepare, prove, commit or undo.

    @property
    def _reloading(self) -> bool:
        return self._candidate is not None or self._announce_by < math.inf

    def _reload(self) -> None:
        if self._stopping:
            return
        if self._reloading:
            self._reload_again = True
            self._note(Event.RELOAD_QUEUED)
            return
        self._note(Event.RELOAD_BEGUN)
        self._notifier.reloading()
        try:
            candidate = self._prepare()
        except ConfigurationError as error:
            if not self._renewal.waits(error):
                for finding in error.diagnostics:
                    self._log.error(str(finding))
                self._log.error("Configuration failed")
                self._note(Event.RELOAD_FAILED)
            self._goes_on(str(error))
        except Exception as error:  # the running configuration outlives a fault in loading another
            self._renewal.waits(None)
            self._log.fault("Loading the configuration")
            self._log.error("Configuration failed")
            self._note(Event.RELOAD_FAILED)
            self._goes_on(f"{type(error).__name__}: {error}")
        else:
            self._launch(candidate)

    def _goes_on(self, reason: str) -> None:
        """Tell the service manager that a reload is over, and has failed."""
        summary = self._current.summary if self._current is not None else ""
        self._notifier.ready(f"Reload failed, {summary} as before: {reason}")

    def _prepare(self) -> Generation:
        """Build a candidate, in the directory of the start: relative paths mean what they meant then."""
        with self._standing.at_home():
            return self._build(self._current)

    def _launch(self, candidate: Generation) -> None:
        """Fork a candidate's workers: what they say, or their end, decides about it."""
        self._candidate = candidate
        gc.collect()
        try:
            for index in candidate.posts.missing(self._current and self._current.posts):
                self._fork(candidate, index)
        except OSError as error:
            self._undo(candidate, f"Cannot fork a worker: {error.strerror}", ExitStatus.FAILED_START)
        else:
            if not self._workers.of(candidate):  # all who are to serve it do so already
                self._commit(candidate)

    def _commit(self, new: Generation) -> None:
        """Make the candidate the current generation, and let the workers of the old one finish."""
        old, self._current, self._candidate = self._current, new, None
        self._log = main_channel(new)
        self._replacements.clear()
        self._announce_by = time.monotonic() + self._timing.drain
        self._reloads = old is not None
        if old is not None:
            for index in self._workers.hand_over(old, new):
                self._schedule(index, 0.0)
            old.retire(new)  # first: its workers take what waits until nobody else has the socket
            self._workers.drain(self._workers.of(old), new.options.reload_drain_timeout)
            self._close_log(old)
        self._renewal.follow(new.watched)
        self._announce_when_drained()

    def _announce_when_drained(self) -> None:
        """Say that the current generation serves once no worker of another one accepts any more."""
        leaving = self._workers.leaving(self._current)
        if self._announce_by < math.inf and all(one.draining or one.stopping for one in leaving):
            self._announce()

    def _announce(self) -> None:
        self._announce_by = math.inf
        if self._reloads:
            self._note(Event.RELOADED)
        if self._current is not None:
            self._current.announce()
            self._announce_to_manager(self._current.summary)
        self._reload_if_asked()

    def _announce_to_manager(self, summary: str) -> None:
        report = self._standing.report
        if report is not None and report.awaited:
            report.send(ExitStatus.OK, str(os.getpid()))
        else:
            self._notifier.ready(summary)
        self._watchdog.start(time.monotonic())

    def _undo(self, failed: Generation, reason: str, status: ExitStatus) -> None:
        """Give up the candidate: the current generation goes on; without one the start has failed."""
        self._candidate = None
        for worker in self._workers.of(failed):
            self._workers.stop(worker)
        failed.retire(self._current)
        if self._current is None:
            self._refuse(status, reason)
            return
        self._renewal.waits(None)
        self._log.error(reason)
        self._log.error("Configuration failed")
        self._note(Event.RELOAD_FAILED)
        self._goes_on(reason)
        self._close_log(failed)
        self._reload_if_asked()

    def _reload_if_asked(self) -> None:
        asked, self._reload_again = self._reload_again, False
        if asked:
            self._reload()

    def _generations(self) -> list[Generation]:
        """The generations in use, each once."""
        found = [self._current, self._candidate, *(worker.generation for worker in self._workers)]
        return list({id(one): one for one in found if one is not None}.values())

    def _logs(self) -> list[Log]:
        """The logs in use, each once: generations may share theirs."""
        return list({id(one.log): one.log for one in self._generations()}.values())

    def _close_log(self, generation: Generation) -> None:
        """Close the log of a generation that may be over, unless one in use has it."""
        if not self._stopping and all(log is not generation.log for log in self._logs()):
            generation.log.close()

    # Workers.

    def _fork(self, generation: Generation, index: int, pause: float = 0.0) -> None:
        worker = fork_worker(generation, index, functools.partial(self._forget, generation))
        worker.pause = pause
        worker.deadline = worker.started + self._timing.ready
        self._workers.add(worker)
        self._selector.register(
            worker.channel, selectors.EVENT_READ, functools.partial(self._receive, worker)
        )

    def _forget(self, generation: Generation) -> None:
        """Let go, in a child, of all that is the supervisor's, another worker's or another generation's.

        The signals that the supervisor acts on stay caught, to no effect: one that is sent to all processes
        (Ctrl-C, killall -HUP, an init's SIGTERM) must not cost a connection that the supervisor would keep.
        A program that a worker executes has them all as default, as exec resets what is caught.
        """
        self._signals.close()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        if self._standing.report is not None:
            self._standing.report.close()
        self._renewal.let_go()
        self._notifier.close()
        self._workers.let_go()
        for other in self._generations():
            if other is not generation:
                other.disown(generation)
        for log in self._logs():
            if log is not generation.log:
                log.close()

    def _reap(self) -> None:
        """Take note of every child that ended: as the first process of a container, also of strangers."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self._renewal.reaped(pid, status)
            if (worker := self._workers.remove(pid)) is not None:
                self._bury(worker, os.waitstatus_to_exitcode(status))

    def _bury(self, worker: Worker, code: int) -> None:
        """Act on a worker's end; `code` is its exit status, or minus the signal that killed it."""
        if worker.channel in self._selector.get_map():
            self._selector.unregister(worker.channel)
        worker.generation.bury(worker.pid)
        words = worker.last_words()
        why = f": {words}" if words else ""
        fate = f"{worker} ended with status {code}"
        if code < 0:
            fate = f"{worker} was killed by {signal_name(-code)}"
        if worker.generation is self._candidate:
            status = ExitStatus.CONFIGURATION if code == ExitStatus.CONFIGURATION else ExitStatus.FAILED_START
            self._undo(worker.generation, f"{fate} before all workers were ready{why}", status)
        elif worker.generation is self._current and not self._stopping:
            self._log.error(fate)
            recent = time.monotonic() - worker.started < self._timing.settled
            self._schedule(worker.index, worker.pause if recent else 0.0)
        else:
            self._log.write(Level.INFO if code == 0 or worker.stopping else Level.ERR, fate)
        if self._ending is not None:
            self._ending.bury(worker, code)
            self._ending.tell(self._notifier)
        self._close_log(worker.generation)
        self._announce_when_drained()

    def _schedule(self, index: int, last_pause: float) -> None:
        pause = self._replacements.schedule(index, last_pause)
        self._log.notice(f"Worker {index} is replaced in {pause:g} s")

    def _replace(self, one: Replacement) -> None:
        if self._current is None:
            return
        try:
            self._fork(self._current, one.index, one.pause)
            if not self._current.administers(one.index):
                self._note(Event.WORKER_REPLACED)
        except OSError as error:
            self._log.error(f"Cannot fork a worker: {error.strerror}")
            self._schedule(one.index, one.pause)

    # The end of the daemon.

    def _stop(self) -> None:
        """Let the connections finish for as long as the options say; a second time, end them."""
        if self._ending is not None:
            self._ending.force()
            return
        if self._stopping:
            return
        self._stopping = True
        self._note(Event.STOPPING)
        self._replacements.clear()
        self._announce_by = math.inf
        # A start that is under way has nobody to wait for.
        patience = self._current.options.drain_timeout if self._current is not None else 0.0
        self._notifier.stopping(patience)
        if self._candidate is not None:
            self._candidate.retire(self._current)
            self._candidate = None
        self._ending = Ending(Drain(self._log, patience), self._workers, self._current)

    def _set_log_level(self, level: int, service: str | None) -> None:
        """Change the level of what is logged here, of one service or of everything, until the next reload.

        Workers are told it, too; those that replace others later inherit the log of here.
        """
        for log in self._logs():
            log.set_level(level, service)
        self._log.notice(changed(level, service))

    def _list_connections(self) -> None:
        for log in self._logs():
            if lost := log.lost():
                self._log.notice(f"Log lines lost in process {os.getpid()}: {shown(lost)}")
        for worker in self._workers.leaving(self._current):
            if worker.draining:
                self._log.notice(f"{worker} is left from before a reload: SIGTERM to it ends its connections")
        self._workers.tell_all(LIST)

    def _reopen_logs(self) -> None:
        for log in self._logs():
            for failure in log.reopen():
                self._log.error(failure)
        for worker in self._workers:
            self._workers.tell(worker, LOG, worker.generation.log.descriptors())

    def _note(self, event: Event) -> None:
        if self._current is not None:
            self._current.note(event)
