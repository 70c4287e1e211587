"""The targets of a service in one worker: their addresses now, and how each of those fares."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from culvert.address import Address, HostPort, show
from culvert.targets.endpoint import LOCALHOST, Endpoint, is_address


class Backend:
    """One address of a target. Times are the event loop's, in seconds.

    `open` counts its connections, those included that are being made. `failures` counts those in a row.
    `due` is when it will be tried again, while it is set aside, else None. `checked` is when it was last
    probed, `busy` whether it is being probed.
    """

    __slots__ = ("busy", "checked", "due", "endpoint", "failures", "open")

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.open = 0
        self.failures = 0
        self.due: float | None = None
        self.checked = -math.inf
        self.busy = False

    @property
    def name(self) -> str:
        """How the log calls it: the target as it was configured, and the address where that is another."""
        written, address = str(self.endpoint.target), show(self.endpoint.sockaddr)
        return address if written == address else f"{written} ({address})"


class Target:
    """What one `connect` stands for. `backends` is in the order in which they are to be tried."""

    def __init__(self, address: Address, endpoints: Iterable[Endpoint], now: float) -> None:
        self.address = address
        self.looked_up = now
        """When the addresses were found, or were last looked for in vain."""
        self.failures = 0
        """How many look-ups in a row have failed."""
        self.suspicions = 0
        """How many were made in a row because no address answered."""
        self.busy = False
        self._known: dict[Endpoint, Backend] = {}
        self.backends: Sequence[Backend] = ()
        self.adopt(endpoints, now)

    @property
    def is_name(self) -> bool:
        """Whether a look-up can have another answer: localhost is always this machine (RFC 6761, 6.3)."""
        address = self.address
        return (
            isinstance(address, HostPort)
            and address.host not in (None, LOCALHOST)
            and not is_address(str(address.host))
        )

    def adopt(self, endpoints: Iterable[Endpoint], now: float) -> bool:
        """Take over the answer of a look-up; whether it has other addresses than the last one.

        Of an address that was known already, what is known of it stays.
        """
        before = {backend.endpoint for backend in self.backends}
        self.backends = tuple(self._backend(endpoint) for endpoint in endpoints)
        self.looked_up = now
        self.failures = 0
        current = {backend.endpoint for backend in self.backends}
        self._known = {e: b for e, b in self._known.items() if e in current or b.open}
        return current != before

    def _backend(self, endpoint: Endpoint) -> Backend:
        backend = self._known.get(endpoint)
        if backend is None:
            backend = self._known[endpoint] = Backend(endpoint)
        return backend

    @property
    def fails(self) -> bool:
        """Whether none of its addresses answers."""
        return all(backend.failures for backend in self.backends)

    def hold(self, backend: Backend) -> None:
        """A connection has reached this address, which a look-up may have taken away on the way there.

        To be called before anything else is waited for: `release` counts by the address alone.
        """
        known = self._known.setdefault(backend.endpoint, backend)
        if known is not backend:  # it has come back
            known.open += 1

    def release(self, endpoint: Endpoint) -> None:
        """One connection to this address is over."""
        backend = self._known[endpoint]
        backend.open -= 1
        if not backend.open and backend not in self.backends:
            del self._known[endpoint]
