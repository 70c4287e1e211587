"""How long a packet may be on the way to a peer: found by probes, and watched (RFC 8899, made simple).

Nothing that a router says is believed: it only makes the next probe come sooner. So a path that says nothing
is found out as well, and nobody can shrink a tunnel by what he sends. Sizes are of whole IP packets, in
bytes; times are seconds of any one monotonic clock.

The longest is tried first, which most paths carry; then the middle of what is left, until that is less than
STEP. What was found is confirmed now and then: the way may have changed.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from culvert.vpn.datagram.records import TOKEN

BASE = 1280
"""What every path carries with IPv6 (RFC 8200, 5), and all but a few without: where it begins."""

FLOOR = 576
"""Shorter is not tried (RFC 791, 3.1)."""

HIGHEST = 16 * 1024
"""Longer is not tried: it is about what a record has room for (RFC 6347, 4.1)."""

STEP = 8
"""How near to the longest is near enough."""

TRIES = 3
"""Probes of one size that get lost before it is taken for too long."""

FIRST_PATIENCE = 1.0
LEAST_PATIENCE = 0.25
"""Seconds until a probe is taken for lost: three round trips, but between these."""

CONFIRM = 20.0
"""Seconds between probes of what was found: in a minute it is known that the way carries less."""

PAUSE = 5.0
"""Seconds until the next try where nothing has come through at all."""

RAISE = 600.0
"""Seconds until longer ones are tried again (RFC 8899, 5.1.1)."""


class Probe(NamedTuple):
    """What to send: a packet of `size` bytes that carries `token`."""

    size: int
    token: bytes


class PathMtu:
    """The longest packet of one path. Send the `probe` that is due at `deadline`, and tell what became of it.

    A size is too long where its probes got lost and a shorter one then came through: where nothing comes
    through, nothing is learned of sizes.
    """

    def __init__(self, highest: int, now: float) -> None:
        """`highest` is what the first hop carries."""
        highest = min(highest, HIGHEST)
        self.confirmed = min(BASE, highest)
        self.deadline = now
        self._highest = highest
        self._too_long = highest + 1
        self._trying = highest
        self._suspect: int | None = None
        self._token: bytes | None = None
        self._sent = now
        self._tries = 0
        self._patience = FIRST_PATIENCE
        self._raise_at = now + RAISE

    @property
    def searching(self) -> bool:
        """Whether it may turn out longer soon."""
        return self._too_long - self.confirmed > STEP

    def probe(self, now: float) -> Probe | None:
        """The probe to send now, if it is time."""
        if now < self.deadline:
            return None
        if self._token is None:
            self._choose(now)
        elif self._tries >= TRIES and not self._shorter():
            self._token, self._suspect = None, None
            self.deadline = now + PAUSE
            return None
        self._tries += 1
        self._sent = now
        self.deadline = now + self._patience
        return Probe(self._trying, self._token or b"")

    def answered(self, token: bytes, now: float) -> bool:
        """A probe has come through; returns whether `confirmed` is another one for it."""
        if token != self._token:
            return False
        if self._tries == 1:
            self._patience = min(max(3 * (now - self._sent), LEAST_PATIENCE), FIRST_PATIENCE)
        before = self.confirmed
        if self._suspect is not None:
            self._too_long, self._suspect = self._suspect, None
        if self._trying > before or before >= self._too_long:
            self.confirmed = self._trying
        self._rest(now)
        return self.confirmed != before

    def refused(self, size: int, now: float) -> bool:
        """This machine itself will not send as much; returns whether `confirmed` is another one for it."""
        before = self.confirmed
        self._too_long = min(self._too_long, max(size, FLOOR + 1))
        if before >= self._too_long:
            self.confirmed = BASE if self._too_long > BASE else FLOOR
        if self._trying >= self._too_long:
            self._suspect = None
            self._rest(now)
        return self.confirmed != before

    def suggest(self, size: int, now: float) -> None:
        """The peer has sent a packet of this size: most ways carry as much in both directions."""
        if self.confirmed < size < self._too_long and size != self._trying:
            self._suspect = None
            self._try(size)
            self.deadline = now

    def doubt(self, now: float) -> None:
        """Somebody says that the way carries less: find out at once."""
        if self._token is None:
            self._try(self.confirmed)
            self.deadline = now

    def _choose(self, now: float) -> None:
        """Which size is next: the longest, the middle of what is left, or the one that was found."""
        if now >= self._raise_at:
            self._raise_at = now + RAISE
            self._too_long = self._highest + 1
        if not self.searching:
            self._try(self.confirmed)
        elif self._too_long > self._highest:
            self._try(self._highest)
        else:
            self._try((self.confirmed + self._too_long) // 2)

    def _shorter(self) -> bool:
        """Try whether anything comes through where this size does not; False where nothing is left to try."""
        if self._trying <= FLOOR:
            return False
        if self._suspect is None:
            self._suspect = self._trying
        self._try(BASE if self._trying > BASE else FLOOR)
        return True

    def _try(self, size: int) -> None:
        self._trying, self._tries = size, 0
        self._token = os.urandom(TOKEN)

    def _rest(self, now: float) -> None:
        self._token = None
        self.deadline = now if self.searching else now + CONFIRM
