"""What the caller left open: closed, but for what was passed on purpose."""

from __future__ import annotations

import os
import socket

import pytest

from culvert import privileges
from culvert.errors import ConfigurationError
from culvert.source import ConfigurationSource

from .forked import in_child

LEFT_OPEN = (3, 4, 5, 9, 200)


def is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


@pytest.mark.parametrize(("passed", "kept"), [(0, []), (2, [3, 4])])
def test_all_but_those_that_were_passed_are_closed(passed: int, kept: list[int]) -> None:
    def start() -> None:
        for fd in LEFT_OPEN:
            os.dup2(1, fd)
        privileges.close_inherited_descriptors(passed)
        assert [fd for fd in range(300) if is_open(fd)] == [0, 1, 2, *kept]

    assert in_child(start)[0] == 0  # the pipe for more words is among those that are closed


def test_a_configuration_by_descriptor_is_read_once_and_closed() -> None:
    ours, theirs = socket.socketpair()
    with ours:
        ours.sendall(b"[s]\naccept = 127.0.0.1:0\nclient = yes\nconnect = 9\n")
        number = theirs.detach()
        ours.shutdown(socket.SHUT_WR)
        source = ConfigurationSource(number)
        first = source.load()
        assert not is_open(number)
        assert source.load().services == first.services


def test_a_descriptor_that_is_not_open_is_told() -> None:
    with pytest.raises(ConfigurationError, match="Cannot read descriptor 1000: Bad file descriptor"):
        ConfigurationSource(1000).load()
