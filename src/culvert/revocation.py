"""Whether a peer's certificate was revoked: one service's questions by OCSP in one worker, and the answers.

The check runs between the handshake and the first byte that is carried, since OpenSSL's callback cannot
wait for a responder. Only the peer's own certificate is looked into (depth 0), as `OCSP` and `OCSPaia` ask
for; CRLs are for those above it. It fails closed: whatever ends without `Answer` is inconclusive, which
passes with `OCSPrequire = no` alone, and where neither `OCSP` nor `OCSPaia` is set and no staple came.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections import OrderedDict
from datetime import UTC, datetime

from cryptography import x509

from culvert.address import HttpUrl
from culvert.config.model import Service
from culvert.log import Channel
from culvert.metrics import Counters
from culvert.responder import ResponderClient, usable
from culvert.tls import ocsp, stapling
from culvert.tls.context import TlsContext
from culvert.tls.engine import Engine
from culvert.tls.failure import TlsError
from culvert.tls.issuers import Issuers
from culvert.tls.names import subject
from culvert.tls.ocsp import NONCE_LENGTH, Answer, Doubt, Inquiry, OcspError, SignerRules

REMEMBERED = 1000
"""Most certificates whose answers are kept."""


class RevocationError(TlsError):
    """The peer's certificate was revoked (`doubt` is None), or that it was not cannot be found out."""

    def __init__(self, doubt: Doubt | None, detail: str) -> None:
        super().__init__(f"certificate {'revoked' if doubt is None else 'status inconclusive'}: {detail}")
        self.doubt = doubt


class Answers:
    """Conclusive answers by certificate, each as long as it holds; the oldest go when they are too many."""

    def __init__(self, limit: int = REMEMBERED) -> None:
        self._limit = limit
        self._answers: OrderedDict[bytes, Answer] = OrderedDict()

    def __len__(self) -> int:
        return len(self._answers)

    def get(self, key: bytes, now: datetime) -> Answer | None:
        answer = self._answers.get(key)
        if answer is not None and answer.until <= now:
            del self._answers[key]
            return None
        return answer

    def put(self, key: bytes, answer: Answer) -> None:
        self._answers[key] = answer
        self._answers.move_to_end(key)
        while len(self._answers) > self._limit:
            self._answers.popitem(last=False)


class Revocation:
    """Looks into the certificates of one service's peers."""

    def __init__(
        self, service: Service, context: TlsContext, client: ResponderClient, counters: Counters
    ) -> None:
        self._policy = service.ocsp
        self._chain_verified = service.verify.chain
        verified = service.verify.chain or service.verify.peer
        self._wanted = verified and (service.client or self._policy.asks)
        self._rules = SignerRules.of(self._policy.flags, context.trusted)
        self._issuers = Issuers(context.trusted)
        self._client = client
        self._counters = counters
        self._answers = Answers()
        self._asking: dict[bytes, asyncio.Task[Answer | OcspError]] = {}

    def tasks(self) -> list[asyncio.Task[Answer | OcspError]]:
        """The questions under way: each ends within TIMEOUTocsp, whoever waits for it."""
        return list(self._asking.values())

    async def check(self, engine: Engine, log: Channel) -> None:
        """Look into the certificate that the peer showed, if any. Raises RevocationError, after logging."""
        if not self._wanted:
            return
        staple = stapling.received(engine) if self._staples_count else None
        if staple is None and not self._policy.asks and not self._answers:
            return
        der = engine.peer_certificate()
        if der is None:
            return
        leaf = x509.load_der_x509_certificate(der)
        try:
            answer = await self._answer(engine, leaf, hashlib.sha256(der).digest(), staple)
        except OcspError as error:
            self._inconclusive(error, leaf, log)
        else:
            if answer is not None:
                self._conclusive(answer, leaf, log)

    @property
    def _staples_count(self) -> bool:
        return not (self._policy.nonce and self._policy.asks)

    async def _answer(
        self, engine: Engine, leaf: x509.Certificate, key: bytes, staple: bytes | None
    ) -> Answer | None:
        """What is known of the certificate; None where nobody is to be asked. Raises OcspError."""
        now = datetime.now(UTC)
        known = self._answers.get(key, now)
        if known is not None and (known.revoked or staple is None):
            return known
        if staple is None and not self._policy.asks:
            return None
        chain = stapling.verified_chain(engine) if self._chain_verified else []
        issuer = self._issuers.find(leaf, chain)
        if issuer is None:
            raise OcspError(Doubt.NO_ISSUER, f"no trusted certificate is the issuer of {subject(leaf)}")
        inquiry = Inquiry(leaf, issuer)
        doubt: OcspError | None = None
        if staple is not None:
            try:
                answer = inquiry.judge(staple, now, self._rules)
            except OcspError as error:
                doubt = OcspError(error.doubt, f"the server's staple: {error.detail}")
            else:
                self._answers.put(key, answer)
                return answer
        if known is not None:
            return known
        if self._policy.asks:
            return await self._asked(inquiry, leaf, key)
        raise doubt or OcspError(Doubt.NO_RESPONDER, "nobody is to be asked")

    async def _asked(self, inquiry: Inquiry, leaf: x509.Certificate, key: bytes) -> Answer:
        """The responders' answer; those who want to know of the same certificate share one question."""
        task = self._asking.get(key)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._ask_all(inquiry, leaf, key))
            self._asking[key] = task
            task.add_done_callback(lambda _: self._asking.pop(key))
        answer = await asyncio.shield(task)
        if isinstance(answer, OcspError):
            raise OcspError(answer.doubt, answer.detail)
        return answer

    async def _ask_all(self, inquiry: Inquiry, leaf: x509.Certificate, key: bytes) -> Answer | OcspError:
        named = ocsp.responders(leaf) if self._policy.aia else []
        urls, refusals = usable([*([self._policy.url] if self._policy.url is not None else []), *named])
        doubts = [OcspError(Doubt.NO_RESPONDER, refusal) for refusal in refusals]
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._policy.timeout
        for number, url in enumerate(urls):
            patience = (deadline - loop.time()) / (len(urls) - number)
            try:
                answer = await self._ask(inquiry, url, patience)
            except OcspError as error:
                doubts.append(error)
            else:
                self._answers.put(key, answer)
                return answer
        if not doubts:
            return OcspError(Doubt.NO_RESPONDER, f"{subject(leaf)} names no responder")
        return OcspError(doubts[-1].doubt, "; ".join(error.detail for error in doubts))

    async def _ask(self, inquiry: Inquiry, url: HttpUrl, patience: float) -> Answer:
        nonce = os.urandom(NONCE_LENGTH) if self._policy.nonce else None
        der = await self._client.ask(url, inquiry.request(nonce), patience)
        try:
            return inquiry.judge(der, datetime.now(UTC), self._rules, nonce)
        except OcspError as error:
            raise OcspError(error.doubt, f"{url}: {error.detail}") from None

    # --- what comes of it ---

    def _conclusive(self, answer: Answer, leaf: x509.Certificate, log: Channel) -> None:
        if not answer.revoked:
            self._counters.ocsp["good"] += 1
            log.notice("OCSP: Accepted (good)")
            return
        self._counters.ocsp["revoked"] += 1
        log.warning("OCSP: Rejected (revoked)")
        log.warning(f"Rejected by OCSP at depth=0: {subject(leaf)}")
        when = f"{answer.revoked_at:%Y-%m-%d %H:%M:%S} UTC" if answer.revoked_at is not None else "unknown"
        raise RevocationError(None, f"OCSP: since {when}, reason: {answer.reason or 'not given'}")

    def _inconclusive(self, error: OcspError, leaf: x509.Certificate, log: Channel) -> None:
        self._counters.ocsp[error.doubt.value] += 1
        if not self._policy.require:
            log.notice(f"OCSP: Inconclusive, accepted by OCSPrequire = no ({error})")
            return
        log.warning(f"OCSP: Rejected (inconclusive: {error})")
        log.warning(f"Rejected by OCSP at depth=0: {subject(leaf)}")
        raise RevocationError(error.doubt, f"OCSP: {error}")
