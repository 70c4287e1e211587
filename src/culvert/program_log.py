"""The log of Culvert inside another program: Python's `logging`, in place of files and syslog."""

from __future__ import annotations

import logging

from culvert.config.model import GlobalOptions
from culvert.log import Entry, Level, Log, clean

LOGGER = "culvert"
"""The logger that is used where the program names none."""

_LEVELS = {
    Level.EMERG: logging.CRITICAL,
    Level.ALERT: logging.CRITICAL,
    Level.CRIT: logging.CRITICAL,
    Level.ERR: logging.ERROR,
    Level.WARNING: logging.WARNING,
    Level.NOTICE: logging.INFO,
    Level.INFO: logging.INFO,
    Level.DEBUG: logging.DEBUG,
}


class ProgramLog(Log):
    """Lines as log records: `[IDENT] text`. What peers have a part in is made harmless as in a file."""

    def __init__(self, logger: logging.Logger, most: int = logging.CRITICAL) -> None:
        """No record has a level above `most`: for faults that are raised as well."""
        super().__init__(())
        self._logger = logger
        self._most = most

    def write(self, entry: Entry) -> None:
        severity = min(_LEVELS[Level(entry.level)], self._most)
        if self._logger.isEnabledFor(severity):
            self._logger.log(severity, "[%s] %s", clean(entry.ident).decode(), clean(entry.text).decode())


class OpenProgramLog:
    """Opens the log of each generation: the same logger, whatever the options say."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger

    def __call__(self, options: GlobalOptions, *, first: bool, jailed: bool) -> Log:
        return ProgramLog(self._logger)


def quiet_logger() -> logging.Logger:
    """The logger of this name, which says nothing where the program has set up no logging."""
    logger = logging.getLogger(LOGGER)
    if not any(isinstance(handler, logging.NullHandler) for handler in logger.handlers):
        logger.addHandler(logging.NullHandler())
    return logger
