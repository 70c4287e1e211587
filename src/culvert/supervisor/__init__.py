"""The daemon's first process: it forks workers, watches, replaces and reloads them, and acts on signals."""

from culvert.supervisor.contract import Build, Generation
from culvert.supervisor.loop import Supervisor
from culvert.supervisor.timing import Timing

__all__ = ["Build", "Generation", "Supervisor", "Timing"]
