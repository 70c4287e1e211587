"""The watching process: it says that something has changed at one of the places that it was told.

A program of its own and not a fork: it has no key in its memory, no listening socket and no log, and the
thread that watchfiles starts is nobody else's. It is started as its parent's user, for the folders may be
readable to that one alone, and becomes nobody once the kernel has taken down what to watch: no path is
opened after that. Whether a file's contents have changed is found by the parent.
"""

from __future__ import annotations

import os
import select
import socket
import sys

from watchfiles._rust_notify import RustNotify

from culvert.control import MESSAGE_LIMIT
from culvert.privileges import Identity, close_inherited_descriptors, drop
from culvert.watch.files import folder_of
from culvert.watch.watcher import CHANGED, FAILED, WATCHING

CHANNEL = 0
"""The descriptor of the channel to the parent. Its end means that the parent is gone."""

_STEP = 250
"""Milliseconds without a change after which changes count as complete; also how often the channel is looked
at, for watchfiles waits in steps."""

_LONGEST = 1000
"""Milliseconds after which changes are told though more of them come."""

_NOBODY = 65534
"""The user and the group that the kernel itself takes for nobody (/proc/sys/kernel/overflowuid)."""


class _End:
    """The end of the channel, in the form in which watchfiles takes a reason to stop."""

    def is_set(self) -> bool:
        return bool(select.select([CHANNEL], [], [], 0)[0])


def main() -> None:
    """Watch the places that the command line names, until the parent is gone."""
    close_inherited_descriptors()
    with socket.socket(fileno=CHANNEL) as channel:
        try:
            _watch(channel, frozenset(sys.argv[1:]))
        except ConnectionError:
            return
        except Exception as error:  # the parent has the log
            channel.send((FAILED + str(error).encode("utf-8", "replace"))[:MESSAGE_LIMIT])
            sys.exit(1)


def _watch(channel: socket.socket, names: frozenset[str]) -> None:
    """Tell of changes at these names, which are those of `Places`."""
    # A folder that this user may not list cannot be watched: the others can.
    folders = sorted(folder for folder in {folder_of(name) for name in names} if os.path.isdir(folder))  # noqa: PTH112 - it raises nothing
    notify = RustNotify(folders, False, False, 0, recursive=False, ignore_permission_denied=True)
    if os.geteuid() == 0:
        drop(None, Identity(_NOBODY, _NOBODY, ()))
    channel.send(WATCHING)
    while True:
        found = notify.watch(_LONGEST, _STEP, 0, _End())
        if isinstance(found, str):
            return
        if any(path in names or f"{folder_of(path)}/" in names for _, path in found):
            channel.send(CHANGED)
