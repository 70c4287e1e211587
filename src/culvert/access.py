"""Who may come to a service, by where it comes from: networks, TCP wrappers, the client's ident server."""

from __future__ import annotations

import asyncio
import socket
from collections import defaultdict
from collections.abc import Iterable

from culvert import ident_client
from culvert.config.model import Network, Service, Sources
from culvert.libwrap import TcpWrappers
from culvert.log import Channel
from culvert.negotiate.ident import IdentError
from culvert.negotiate.script import Ends
from culvert.refusals import RefusedError
from culvert.resolve import InternetAddress

_MAPPED = bytes(10) + b"\xff\xff"
"""How an IPv4 address begins as an IPv6 one (RFC 4291, 2.5.5.2)."""


class NetworkSet:
    """Networks, asked for an address: what it takes depends on how many lengths there are, not networks."""

    def __init__(self, networks: Iterable[Network]) -> None:
        known: defaultdict[tuple[int, int], set[int]] = defaultdict(set)
        for network in networks:
            shift = network.max_prefixlen - network.prefixlen
            known[network.version, shift].add(int(network.network_address) >> shift)
        self._known = dict(known)

    def __contains__(self, host: str) -> bool:
        # For every client: `ipaddress` takes several times as long.
        packed = socket.inet_pton(socket.AF_INET6 if ":" in host else socket.AF_INET, host.partition("%")[0])
        if packed.startswith(_MAPPED):
            packed = packed[len(_MAPPED) :]
        number, version = int.from_bytes(packed, "big"), 4 if len(packed) == 4 else 6
        return any(
            version == of_version and number >> shift in prefixes
            for (of_version, shift), prefixes in self._known.items()
        )


class _Sources:
    """A configuration's sources, asked for a client."""

    def __init__(self, sources: Sources) -> None:
        self._networks = NetworkSet(sources.networks)
        self._unix = sources.unix
        self.given = bool(sources)

    def cover(self, address: InternetAddress | None) -> bool:
        return self._unix if address is None else address[0] in self._networks


class AccessControl:
    """The checks of one service. An address is as `accept` returns it, or None on a Unix socket."""

    def __init__(self, service: Service, wrappers: TcpWrappers | None) -> None:
        rules = service.access
        self._service = service
        self._allowed, self._denied = _Sources(rules.allow), _Sources(rules.deny)
        self._proxies = NetworkSet(service.proxy.trusted.networks)
        self._wrappers = wrappers
        self._asks = wrappers is not None or rules.ident is not None

    def check_connecting(self, address: InternetAddress | None) -> None:
        """Hold that whoever has connected may go on: a client, or the proxy in front of it.

        Raises RefusedError.
        """
        if not self._service.proxy.accept:
            self.check(address)
        elif address is not None and address[0] not in self._proxies:
            raise RefusedError("no trusted proxy", "it is none of the proxies that trustProxy names")

    def check(self, address: InternetAddress | None) -> None:
        """Hold that a client's address may come, by the networks alone. Raises RefusedError."""
        if self._denied.given and self._denied.cover(address):
            raise RefusedError("denied", "denyFrom names its address")
        if self._allowed.given and not self._allowed.cover(address):
            raise RefusedError("not allowed", "allowFrom does not name its address")

    async def admit(self, ends: Ends, log: Channel) -> None:
        """Hold that a client may come in, whatever that has to be asked. Raises RefusedError."""
        self.check(ends.source)
        if self._service.access.ident is not None and None in (ends.source, ends.destination):
            raise RefusedError("ident", "it has no connection that an ident server could know of")
        if ends.source is None:
            if self._wrappers is not None:
                log.notice("libwrap is not asked: the client has no address")
        elif self._asks:
            await self._ask_wrappers(ends.source, log)
            await self._ask_ident(ends, log)

    async def _ask_wrappers(self, address: InternetAddress, log: Channel) -> None:
        if self._wrappers is None:
            return
        name, timeout = self._service.name, self._service.timeout_busy
        loop = asyncio.get_running_loop()
        asked = loop.run_in_executor(self._wrappers.asking, self._wrappers.allows, name, address)
        try:
            async with asyncio.timeout(timeout):
                allowed = await asked
        except TimeoutError:
            reason = f"libwrap had no answer: TIMEOUTbusy ({timeout:g} s) exceeded"
            raise RefusedError("libwrap", reason) from None
        if not allowed:
            raise RefusedError("libwrap", "hosts.allow and hosts.deny do not let it in (libwrap)")
        log.info("hosts.allow and hosts.deny let it in (libwrap)")

    async def _ask_ident(self, ends: Ends, log: Channel) -> None:
        user = self._service.access.ident
        if user is None:
            return
        timeout = min(self._service.timeout_busy, self._service.timeout_connect)
        try:
            found = await ident_client.ask(ends, timeout)
        except IdentError as error:
            raise RefusedError("ident", f"its ident server {error}") from None
        shown = found.decode("utf-8", "backslashreplace")
        if found != user.encode():
            raise RefusedError("ident", f'its ident server names "{shown}", not "{user}"')
        log.info(f'ident: the user is "{shown}"')
