"""The one table of options: everything that reads, checks, lists or documents an option starts here."""

from culvert.config.options.option import Availability, Option, Scope
from culvert.config.options.table import OPTIONS, find, hides, named, names

__all__ = ["OPTIONS", "Availability", "Option", "Scope", "find", "hides", "named", "names"]
