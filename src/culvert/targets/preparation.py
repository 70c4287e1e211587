"""What is made ready for connecting before the jail closes: targets and source addresses are resolved."""

from __future__ import annotations

from dataclasses import dataclass, field

from culvert.address import Address, HostPort
from culvert.config.model import Service
from culvert.errors import ConfigurationError, os_reason
from culvert.log import Channel
from culvert.resolve import SocketAddress, resolve
from culvert.targets.board import Board
from culvert.targets.endpoint import Endpoint, endpoints_of


@dataclass(frozen=True, slots=True)
class Targets:
    """What a service connects to (`addresses`), as far as it was resolved before the jail closed.

    `endpoints` has, for each address in its order, the addresses found; None for one that is still to be
    resolved. `sources` has the addresses of `local`, `board` what workers tell each other.
    """

    addresses: tuple[Address, ...]
    endpoints: tuple[tuple[Endpoint, ...] | None, ...]
    sources: tuple[tuple[int, SocketAddress], ...]
    board: Board = field(default_factory=Board)


def prepare(service: Service, addresses: tuple[Address, ...], log: Channel) -> Targets:
    """Resolve what can be resolved at start; a name that has no answer yet is looked up while serving."""
    endpoints: list[tuple[Endpoint, ...] | None] = []
    for target in addresses:
        try:
            found = None if service.delay and isinstance(target, HostPort) else endpoints_of(target)
        except OSError as error:
            log.error(f"Service [{service.name}]: cannot resolve {target}: {os_reason(error)}")
            log.notice(f"Service [{service.name}]: {target} will be looked up again while it serves")
            found = None
        endpoints.append(found)
    return Targets(addresses, tuple(endpoints), _sources(service))


def _sources(service: Service) -> tuple[tuple[int, SocketAddress], ...]:
    if service.local is None:
        return ()
    try:
        return tuple(resolve(service.local, 0))
    except OSError as error:
        raise ConfigurationError.single(
            f"Cannot resolve the source address {service.local}: {os_reason(error)}",
            service.where("local"),
            service.name,
        ) from None
