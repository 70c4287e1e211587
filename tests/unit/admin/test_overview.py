"""What keeps clients away from a daemon, as /readyz says it."""

from __future__ import annotations

from culvert.admin.overview import View
from culvert.tally import Cell, Tally


def test_workers_that_only_finish_serve_nobody_who_comes() -> None:
    idle = Tally.private().read(0)
    assert View(idle, processes=1, accepting=0, services=()).obstacles() == ["no worker serves"]
    assert not View(idle, processes=2, accepting=1, services=()).obstacles()


def test_a_daemon_that_stops_says_so() -> None:
    tally = Tally.private()
    tally.own[Cell.STOPPING] = 1
    view = View(tally.read(0), processes=1, accepting=1, services=())
    assert view.obstacles() == ["the daemon is stopping"]
