"""Keeps the OCSP answer on a server's own certificate fresh, in the background of each worker."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime

from cryptography import x509

from culvert.address import HttpUrl
from culvert.config.model import Service
from culvert.log import Channel
from culvert.responder import ResponderClient, usable
from culvert.tls import ocsp
from culvert.tls.context import TlsContext
from culvert.tls.issuers import Issuers
from culvert.tls.ocsp import Doubt, Inquiry, OcspError, SignerRules
from culvert.tls.stapling import Staple

FIRST_PAUSE = 10.0
"""Seconds until a responder that failed is asked again; the pause doubles each time."""

LAST_PAUSE = 3600.0
"""The longest pause after a failure, in seconds."""

SHORTEST_PAUSE = 2.0
"""The shortest pause before a renewal, in seconds: a responder may name any end."""

LONGEST_LIFE = 2 * 86400.0
"""Seconds after which an answer is renewed at half of that even if it holds for longer."""


class StapleRenewal:
    """Fetches a service's staple and puts it into the context; `run` it as a task for as long as it serves.

    A server without a staple serves all the same. Any answer that is truly the responder's is given out,
    also one that says `revoked`: that is for the client to know.
    """

    def __init__(self, service: Service, context: TlsContext, client: ResponderClient, log: Channel) -> None:
        self._name = service.name
        self._timeout = service.ocsp.timeout
        self._staple = context.staple
        self._rules = SignerRules.of(service.ocsp.flags, context.trusted)
        self._client = client
        self._log = log
        self._urls: Sequence[HttpUrl] = ()
        self._inquiry: Inquiry | None = None
        self._expiry: asyncio.TimerHandle | None = None
        if context.credentials is not None and self._staple is not None:
            self._prepare(service, context.credentials.chain, context.trusted)

    @property
    def possible(self) -> bool:
        """Whether there is somebody to ask, and an issuer to ask for."""
        return bool(self._urls) and self._inquiry is not None

    def _prepare(
        self,
        service: Service,
        chain: tuple[x509.Certificate, ...],
        trusted: tuple[x509.Certificate, ...],
    ) -> None:
        configured = [service.ocsp.url] if service.ocsp.url is not None else []
        self._urls, refusals = usable([*ocsp.responders(chain[0]), *configured])
        for refusal in refusals:
            self._log.warning(f"OCSP stapling: {refusal}")
        if not self._urls:
            return
        issuer = Issuers(trusted).find(chain[0], chain[1:])
        if issuer is None:
            self._log.notice(
                f"OCSP stapling: the issuer of the certificate of [{self._name}] stands neither in "
                "'cert' behind it nor in CAfile: no staple is fetched"
            )
        else:
            self._inquiry = Inquiry(chain[0], issuer)

    async def run(self) -> None:
        """Fetch and renew without end."""
        failures = 0
        while True:
            try:
                life = await self._fetch()
            except OcspError as error:
                pause = min(FIRST_PAUSE * 2 ** min(failures, 16), LAST_PAUSE)
                failures += 1
                self._log.warning(f"OCSP stapling: {error}; the next attempt is in {pause:.0f} s")
            else:
                failures = 0
                pause = max(min(life, LONGEST_LIFE) / 2, SHORTEST_PAUSE)
            await asyncio.sleep(pause)

    async def _fetch(self) -> float:
        """Put a new staple into use; for how many seconds it holds. Raises OcspError where there is none."""
        doubt = OcspError(Doubt.NO_RESPONDER, "nobody is to be asked")
        for url in self._urls:
            try:
                return await self._fetch_from(url)
            except OcspError as error:
                doubt = error
        raise doubt

    async def _fetch_from(self, url: HttpUrl) -> float:
        assert self._inquiry is not None  # noqa: S101  it is not run unless it is `possible`
        assert self._staple is not None  # noqa: S101
        der = await self._client.ask(url, self._inquiry.request(), self._timeout)
        now = datetime.now(UTC)
        answer = self._inquiry.judge(der, now, self._rules)
        life = (answer.until - now).total_seconds()
        self._use(self._staple, der, life)
        self._log.info(f"OCSP stapling: {url} answered, valid until {answer.until:%Y-%m-%d %H:%M:%S} UTC")
        if answer.revoked:
            self._log.error(f"OCSP stapling: the certificate of service [{self._name}] was revoked")
        return life

    def _use(self, staple: Staple, der: bytes, seconds: float) -> None:
        """Give it out for as long as it holds, whatever becomes of its renewal."""
        if self._expiry is not None:
            self._expiry.cancel()
        staple.der = der
        self._expiry = asyncio.get_running_loop().call_later(max(seconds, 0), self._drop, staple)

    @staticmethod
    def _drop(staple: Staple) -> None:
        staple.der = None
