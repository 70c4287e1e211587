"""What the admin endpoint asks for: checked here, and done by the supervisor or passed on to the workers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from culvert.control import Action, Request
from culvert.log import Channel
from culvert.supervisor.process import Worker
from culvert.supervisor.workforce import Workforce


@dataclass(frozen=True, slots=True)
class Means:
    """What the supervisor does for it."""

    log: Channel
    set_level: Callable[[int, str | None], None]
    reload: Callable[[], None]
    stop: Callable[[], None]


def obey(asking: Worker, message: bytes, workforce: Workforce, means: Means) -> None:
    """Do what a process asks for, if it may ask. It knows that nothing came of it where the socket that came
    with the message is closed without a word.
    """
    try:
        if not asking.generation.administers(asking.index):
            means.log.error(f"{asking} asks for what is not its business")
            return
        try:
            request = Request.decode(message)
        except ValueError as error:
            means.log.error(f"{asking} asks for what nobody understands: {error}")
            return
        if request.action is Action.RELOAD:
            means.log.notice("A reload was asked for over the admin endpoint")
            means.reload()
            return
        if request.action is Action.STOP:
            means.log.notice("The end was asked for over the admin endpoint")
            asking.close_passed()  # it answers while it may
            means.stop()
            return
        if request.action is Action.LEVEL:
            means.set_level(request.level, request.service)
        if request.action is Action.TRACE:
            workforce.attach(message, asking.passed)
            return
        for worker in list(workforce):
            workforce.tell(worker, message, asking.passed)
    finally:
        asking.close_passed()
