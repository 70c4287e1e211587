"""Files that renew themselves: noticed by a process of its own, compared, and taken into use by a reload."""

from culvert.watch.files import Watched
from culvert.watch.renewal import Host, Renewal, Timing

__all__ = ["Host", "Renewal", "Timing", "Watched"]
