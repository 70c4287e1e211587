"""What each worker of a generation has to do: all services but the VPNs, or one VPN.

A VPN has a process of its own, which has its interface, and the power to set addresses and routes; other
services have neither. A reload that changes nothing of a VPN leaves its process alone: it goes on as one of
the new generation's.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType

from culvert import capabilities
from culvert.config.model import GlobalOptions, Service
from culvert.control import Action, Request
from culvert.errors import ConfigurationError, Location
from culvert.service import Prepared
from culvert.vpn import device, network
from culvert.watch import Watched

_NOWHERE = Location("", 0, "")


@dataclass(frozen=True, slots=True)
class Posts:
    """The posts of one generation, by the index of the worker that has each.

    `contents` are those of the files that each VPN's service names, when they were read.
    """

    workers: int
    options: GlobalOptions
    services: Sequence[Prepared]
    contents: Sequence[object]

    @property
    def _vpns(self) -> list[Prepared]:
        return [one for one in self.services if one.config.vpn is not None]

    @property
    def _others(self) -> list[Prepared]:
        return [one for one in self.services if one.config.vpn is None]

    def indices(self) -> list[int]:
        """All posts. Where there are VPNs alone, nobody need serve the rest."""
        ordinary = range(self.workers) if self._others or not self._vpns else range(0)
        administrator = [] if self.administrator is None else [self.administrator]
        return [*ordinary, *range(self.workers, self._end), *administrator]

    @property
    def administrator(self) -> int | None:
        """The post of the admin endpoint's process, which is the last; None where there is no endpoint."""
        return self._end if self.options.admin is not None else None

    @property
    def _end(self) -> int:
        """The index after all who serve."""
        return self.workers + len(self._vpns)

    def is_vpn(self, index: int) -> bool:
        """Whether the post is that of a VPN."""
        return self.workers <= index < self._end

    def services_of(self, index: int) -> list[Prepared]:
        """The services that a worker has, among those that are prepared."""
        return [self._vpns[index - self.workers]] if self.is_vpn(index) else self._others

    def take_up(self, index: int) -> int:
        """In a worker: let go of what others listen on, and open what its post takes, before the jail closes.

        Returns the descriptor of which a VPN makes its interface, else -1. Raises ConfigurationError.
        """
        mine = self.services_of(index)
        for prepared in self.services:
            if prepared not in mine and prepared.listener is not None:
                prepared.listener.close()
        return _open_device(mine[0]) if self.is_vpn(index) else -1

    def heir(self, index: int, successor: Posts) -> int | None:
        """Which of the successor's posts is this one, so that its worker can stay; None for none."""
        if not self.is_vpn(index):
            return None
        mine = self._identity(index - self.workers)
        for position in range(len(successor._vpns)):
            if successor._identity(position) == mine:
                return successor.workers + position
        return None

    def words(self, index: int) -> list[bytes]:
        """What a worker that has stayed is to be told: the levels of its log are those of the new file."""
        levels: list[tuple[int, str | None]] = [(self.options.debug.level, None)]
        levels += [(one.config.debug.level, one.config.name) for one in self.services_of(index)]
        return [Request(Action.LEVEL, level=level, service=name).encode() for level, name in levels]

    def missing(self, before: Posts | None) -> list[int]:
        """The posts that no worker of the generation before can stay at."""
        kept = set() if before is None else {before.heir(index, self) for index in before.indices()}
        return [index for index in self.indices() if index not in kept]

    def _identity(self, position: int) -> tuple[object, ...]:
        """What must not have changed: the service itself, its files, and what it takes from the daemon."""
        options = self.options
        return (
            _bare(self._vpns[position].config),
            self.contents[position],
            (options.chroot, options.foreground, options.limits, options.log_format),
            options.admin
            is None,  # what is counted for an endpoint is counted in memory from before the fork
            (options.output, options.service, options.syslog),
        )


def _bare(service: Service) -> Service:
    """The service without its place in the file and its log's level."""
    debug = dataclasses.replace(service.debug, level=0)
    return dataclasses.replace(service, location=_NOWHERE, locations=MappingProxyType({}), debug=debug)


def vpn_files(services: Sequence[Service], chroot: str | None) -> list[object]:
    """What the files of each VPN hold; to be called before they are read.

    Raises ConfigurationError where what a VPN needs is not there.
    """
    vpns = [service for service in services if service.vpn is not None]
    if vpns and not network.installed():
        raise ConfigurationError.single(
            f'"tun" needs the Python package {network.PACKAGE}, which is not installed',
            vpns[0].where("tun"),
            vpns[0].name,
            f"{sys.executable} -m pip install pyroute2",
        )
    return [tuple(Watched.of([service], chroot).contents.items()) for service in vpns]


def _open_device(prepared: Prepared) -> int:
    network.preload()
    try:
        return device.open_clone()
    except device.DeviceError as error:
        raise ConfigurationError.single(str(error), prepared.config.where("tun")) from None


POWERS = frozenset({capabilities.CAP_NET_ADMIN})
"""What a VPN's process keeps of root's powers as it becomes somebody else."""


def give_up_powers(*, stays_root: bool) -> None:
    """Leave a VPN's process what it needs, for good: files are read again for renewed CRLs by one that stays
    root. One that does not has POWERS alone by now.

    Raises OSError.
    """
    capabilities.gain_no_more()
    if not stays_root:
        return
    had = capabilities.permitted()
    if had >> capabilities.CAP_SETPCAP & 1:
        capabilities.empty_bounding_set()  # or a program that it is made to run would be all of root again
    wanted = POWERS | {capabilities.CAP_DAC_READ_SEARCH}
    capabilities.keep_only(number for number in wanted if had >> number & 1)
