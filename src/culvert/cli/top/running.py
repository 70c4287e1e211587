"""`culvert top` itself: one loop over keys, signals and what the daemon tells."""

from __future__ import annotations

import os
import selectors
import signal
import socket
import sys
import termios
import time
from collections.abc import Iterable
from dataclasses import dataclass

from culvert.cli.console import open_console
from culvert.cli.daemon.client import AdminClient
from culvert.cli.daemon.errors import DaemonError
from culvert.cli.daemon.outcomes import Outcome
from culvert.cli.daemon.reading import failed
from culvert.cli.daemon.whereabouts import Whereabouts
from culvert.cli.faults import say
from culvert.cli.top.board import Act, Board
from culvert.cli.top.drawing import Canvas, draw
from culvert.cli.top.keys import Keys
from culvert.cli.top.rates import Sample
from culvert.cli.top.sampling import Sampler, Told, Trouble, look
from culvert.cli.top.terminal import Screen
from culvert.supervisor.signals import SignalPipe

_ESCAPE_PAUSE = 0.05
"""Seconds after which an escape is the key of this name: the rest of a longer one comes at once."""

_FIRST_LOOK = 1.0
"""Most seconds between the two looks that rates are made of, where one view is printed."""

_FASTEST, _SLOWEST = 0.25, 60.0
_FILE_WIDTH = 160

_ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


@dataclass(frozen=True, slots=True)
class Wishes:
    """How it is to be shown: `interval` in seconds; `count` views of a batch, None is without an end."""

    interval: float
    once: bool = False
    batch: bool = False
    count: int | None = None


def run_top(where: Whereabouts, wishes: Wishes) -> int:
    """Show the daemon until a key or a signal ends it; returns the exit status."""
    client = where.client
    if client is None:
        say("culvert top shows what the admin endpoint tells: 'admin' is not set, and --admin not given")
        return Outcome.FAILED
    terminal = sys.stdin.isatty() and sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"
    if not (terminal or wishes.once or wishes.batch):
        say("This is no terminal that can be drawn on: see 'culvert status', or --once, or --batch")
        return Outcome.FAILED
    try:
        first = look(client)
        if wishes.once or wishes.batch:
            return _print_views(client, wishes, first)
    except DaemonError as error:
        return failed(error)
    return _Display(client, wishes.interval, first).run()


def _print_views(client: AdminClient, wishes: Wishes, first: Sample) -> int:
    """View after view on standard output. Raises DaemonError."""
    board = Board()
    board.show(first)
    console = open_console()
    width = console.width if console.is_terminal else max(console.width, _FILE_WIDTH)
    pause = min(wishes.interval, _FIRST_LOOK) if wishes.once else wishes.interval
    left = 1 if wishes.once else wishes.count
    while left is None or left > 0:
        time.sleep(pause)
        board.show(look(client))
        canvas = Canvas(width, None, str(client.address), wishes.interval, colour=console.is_terminal)
        print("\n".join([time.strftime("%Y-%m-%d %H:%M:%S"), *draw(board, canvas)]), flush=True)
        left = None if left is None else left - 1
    return Outcome.DONE


class _Display:
    """The display on a terminal. To be used once."""

    def __init__(self, client: AdminClient, interval: float, first: Sample) -> None:
        self._client = client
        self._board = Board()
        self._board.show(first)
        self._keys = Keys()
        self._woken, self._waker = socket.socketpair()
        for end in (self._woken, self._waker):
            end.setblocking(False)
        self._sampler = Sampler(client, interval, self._wake)
        self._screen = Screen(sys.stdin.fileno(), sys.stdout.fileno())
        self._status: int | None = None

    def run(self) -> int:
        numbers = (*_ENDS, signal.SIGTSTP, signal.SIGCONT, signal.SIGWINCH)
        handlers = {number: signal.getsignal(number) for number in numbers}
        signals = SignalPipe(numbers)
        try:
            with self._screen, selectors.DefaultSelector() as selector:
                selector.register(sys.stdin, selectors.EVENT_READ, self._take_keys)
                selector.register(self._woken, selectors.EVENT_READ, self._take_news)
                selector.register(signals, selectors.EVENT_READ, lambda: self._take_signals(signals.read()))
                self._sampler.start()
                self._draw()
                while self._status is None:
                    self._turn(selector)
        except (OSError, termios.error):  # the terminal is gone
            return Outcome.FAILED
        finally:
            signals.close()
            for number, handler in handlers.items():
                signal.signal(number, handler)
        return self._status

    def _turn(self, selector: selectors.BaseSelector) -> None:
        ready = selector.select(_ESCAPE_PAUSE if self._keys.pending else None)
        for key, _ in ready:
            key.data()
        if not ready:
            self._press(self._keys.idle())
        if self._status is None:
            self._draw()

    def _draw(self) -> None:
        width, height = self._screen.size
        canvas = Canvas(width, height, str(self._client.address), self._sampler.interval)
        self._screen.draw(draw(self._board, canvas))

    def _wake(self) -> None:
        """In the sampler's thread: have the loop look for news."""
        try:
            self._waker.send(b"!")
        except OSError:
            return  # it is woken already, or over

    def _take_news(self) -> None:
        self._woken.recv(4096)
        for news in self._sampler.news():
            match news:
                case Sample():
                    self._board.show(news)
                case Trouble():
                    self._board.lose(news.reason)
                case Told():
                    self._board.message = news.text

    def _take_keys(self) -> None:
        data = self._screen.read()
        if not data:
            self._status = Outcome.FAILED
        self._press(self._keys.feed(data))

    def _press(self, keys: list[str]) -> None:
        for key in keys:
            match self._board.press(key):
                case Act.QUIT:
                    self._status = Outcome.DONE
                case Act.REFRESH:
                    self._sampler.hasten()
                case Act.END if self._board.victim is not None:
                    self._sampler.end(self._board.victim.connection.ident)
                case Act.FASTER:
                    self._pace(0.5)
                case Act.SLOWER:
                    self._pace(2)

    def _pace(self, factor: float) -> None:
        self._sampler.interval = min(max(self._sampler.interval * factor, _FASTEST), _SLOWEST)
        self._sampler.hasten()

    def _take_signals(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            if number in _ENDS:
                self._status = 128 + number
            elif number == signal.SIGTSTP:
                self._pause()
            elif number == signal.SIGCONT:
                # It may have been stopped without a word, and the modes be the shell's by now.
                self._screen.give_back()
                self._screen.take()

    def _pause(self) -> None:
        """Give the terminal back and stop, as Ctrl-Z asks for; go on when told to."""
        self._screen.give_back()
        handler = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, handler)
        self._screen.take()
