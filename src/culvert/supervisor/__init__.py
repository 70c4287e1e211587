"""The daemon's first process: it forks workers, watches, replaces and reloads them, and acts on signals."""

from culvert.supervisor.contract import Build, ExitStatus, Generation
from culvert.supervisor.loop import Supervisor, Timing
from culvert.supervisor.process import log_fault

__all__ = ["Build", "ExitStatus", "Generation", "Supervisor", "Timing", "log_fault"]
