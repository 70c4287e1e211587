"""HTTP CONNECT through a proxy (RFC 9110, 9.3.6), with basic or NTLM authentication, on the client's side."""

from __future__ import annotations

import base64
import binascii
import re
import secrets
import time
from collections.abc import Generator, Iterator
from typing import Any, NamedTuple

from culvert.address import HostPort
from culvert.config.model import ProtocolOptions
from culvert.negotiate import ntlm
from culvert.negotiate.script import (
    Connect,
    Discard,
    Ends,
    Exactly,
    Line,
    NegotiationError,
    Note,
    Protocol,
    Script,
    Send,
    Side,
    Step,
    nothing,
)

HEADER_LINES = 100
"""Most header lines of one answer: proxies send about ten."""

HEADER_BYTES = 32768
"""Most bytes of one answer's head, which servers bound alike."""

BODY_LIMIT = 65536
"""Most bytes of the page beside a 407 that is read past to answer an NTLM challenge."""

CHUNKS = 64
"""Most chunks of such a page."""

INTERIM_ANSWERS = 5
"""Most answers of the kind 1xx in front of the one that counts."""

CHALLENGE_READ = 1024
"""Most characters of a field in which names of authentication schemes are looked for."""

SCHEMES_SHOWN = 8
"""Most names of authentication schemes that the log repeats."""

_STATUS_LINE = re.compile(rb"HTTP/1\.(?P<minor>[0-9]) (?P<status>[1-9][0-9]{2})(?: (?P<reason>.*))?")
_FIELD_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')
_SCHEME = re.compile(r"\s*(?P<scheme>[!#$%&'*+.^_`|~0-9A-Za-z-]+)(?:\s+\S.*|\s*)")

_Reading = Generator[Step, Any, "Answer"]


class Answer(NamedTuple):
    """The head of a response. `fields` are in their order, names in lower case; `minor` is of HTTP/1.x."""

    minor: int
    status: int
    reason: str
    fields: tuple[tuple[str, str], ...]

    def values(self, name: str) -> list[str]:
        """The values of all fields of this name."""
        return [value for field, value in self.fields if field == name]

    @property
    def stays(self) -> bool:
        """Whether the connection can carry another request."""
        words = {
            word.strip().lower()
            for name in ("connection", "proxy-connection")
            for value in self.values(name)
            for word in value.split(",")
        }
        return "close" not in words and (self.minor > 0 or "keep-alive" in words)


def client(options: ProtocolOptions) -> Protocol:
    """The protocol of a service with these options, of which `target` is there."""
    target = options.target
    assert target is not None  # noqa: S101  the configuration's rules see to it

    def before(_: Ends) -> Script:
        yield Connect()
        yield Note(f"CONNECT {authority(target)} through the proxy")
        if options.authentication == "ntlm":
            answer = yield from _ask_with_ntlm(options, target)
        else:
            yield Send(Side.SERVER, request(options, target, _basic(options)))
            answer = yield from read_answer()
        if not 200 <= answer.status < 300:
            raise _rejected(answer, options)
        # A TLS server waits for its client to begin.
        yield Discard(Side.SERVER)

    return Protocol(before, nothing)


def authority(target: HostPort) -> str:
    """The target as a request line has it (RFC 9112, 3.2.3)."""
    host = target.host or ""
    return f"[{host}]:{target.port}" if ":" in host else f"{host}:{target.port}"


def request(options: ProtocolOptions, target: HostPort, credentials: str | None) -> bytes:
    """The request's bytes. A header line of the configuration takes the place of ours of that name."""
    given = {line.partition(":")[0].strip().lower() for line in options.headers}
    where = authority(target)
    lines = [f"CONNECT {where} HTTP/1.1"]
    if "host" not in given:
        lines.append(f"Host: {where}")
    if credentials is not None and "proxy-authorization" not in given:
        lines.append(f"Proxy-Authorization: {credentials}")
    return "".join(f"{line}\r\n" for line in (*lines, *options.headers, "")).encode()


def _basic(options: ProtocolOptions) -> str | None:
    if options.username is None:
        return None
    pair = f"{options.username}:{options.password or ''}"
    return f"Basic {base64.b64encode(pair.encode()).decode()}"


def _ask_with_ntlm(options: ProtocolOptions, target: HostPort) -> _Reading:
    """Both requests of NTLM, which proves who a connection belongs to: they must go over the same one."""
    yield Send(Side.SERVER, request(options, target, _ntlm(ntlm.negotiate_message())))
    answer: Answer = yield from read_answer()
    if answer.status != 407:
        return answer
    data = _challenge_of(answer)
    if data is None:
        return answer
    challenge = ntlm.read_challenge(data)
    if not answer.stays:
        raise NegotiationError("the proxy closes the connection in the middle of NTLM")
    yield from _pass_over_body(answer)
    account = ntlm.Account(options.domain or "", options.username or "", options.password or "")
    proof = ntlm.authenticate_message(challenge, account, secrets.token_bytes(8), time.time())
    yield Send(Side.SERVER, request(options, target, _ntlm(proof)))
    return (yield from read_answer())


def _ntlm(message: bytes) -> str:
    return f"NTLM {base64.b64encode(message).decode()}"


def _challenge_of(answer: Answer) -> bytes | None:
    """The NTLM challenge of a 407, or None where it has none."""
    for value in answer.values("proxy-authenticate"):
        scheme, _, data = value.partition(" ")
        if scheme.lower() == "ntlm" and data.strip():
            try:
                return base64.b64decode(data.strip(), validate=True)
            except binascii.Error:
                raise NegotiationError("the proxy's NTLM challenge is not in base64") from None
    return None


def _rejected(answer: Answer, options: ProtocolOptions) -> NegotiationError:
    """The error in the proxy's words, for 407 with what it asks for; but not if it repeats a secret."""
    words = answer.reason
    if answer.status == 407:
        offered = [scheme for value in answer.values("proxy-authenticate") for scheme in schemes(value)]
        names = ", ".join(dict.fromkeys(offered[:SCHEMES_SHOWN])) or "no scheme that it names"
        words = f"{words} (the proxy asks for {names})"
    secrets_sent = [options.password, (_basic(options) or "").removeprefix("Basic ")]
    if any(secret and secret in words for secret in secrets_sent):
        words = "(its words are not shown: they have the password in them)"
    return NegotiationError(f"CONNECT request rejected: {answer.status} {words}".rstrip())


def schemes(value: str) -> Iterator[str]:
    """The authentication schemes that a Proxy-Authenticate field names (RFC 9110, 11.6.1).

    Challenges and their parameters are both separated by commas: what has `=` behind its first word is a
    parameter of the challenge before.
    """
    for part in _QUOTED.sub('""', value[:CHALLENGE_READ]).split(","):
        match = _SCHEME.fullmatch(part)
        if match is not None and not part[match.end("scheme") :].lstrip().startswith("="):
            yield match["scheme"]


# --- reading ---


def read_answer() -> _Reading:
    """The head of the answer that counts. Raises NegotiationError."""
    for _ in range(INTERIM_ANSWERS + 1):
        answer = yield from _read_head()
        if answer.status >= 200:
            return answer
    raise NegotiationError(f"the proxy sends more than {INTERIM_ANSWERS} interim answers")


def _read_head() -> _Reading:
    line: bytes = yield Line(Side.SERVER)
    match = _STATUS_LINE.fullmatch(line)
    if match is None:
        raise NegotiationError("the proxy does not speak HTTP/1")
    fields: list[tuple[str, str]] = []
    size = len(line)
    while line := (yield Line(Side.SERVER)):
        size += len(line)
        if len(fields) == HEADER_LINES or size > HEADER_BYTES:
            limit = f"{HEADER_LINES} header lines or {HEADER_BYTES} bytes of them"
            raise NegotiationError(f"the proxy's answer has more than {limit}")
        name, colon, value = line.partition(b":")
        if not colon or _FIELD_NAME.fullmatch(name) is None:
            raise NegotiationError("the proxy's answer has a header line that is none")
        fields.append((name.decode().lower(), value.strip().decode("utf-8", "replace")))
    reason = (match["reason"] or b"").decode("utf-8", "replace").strip()
    return Answer(int(match["minor"]), int(match["status"]), reason, tuple(fields))


def _pass_over_body(answer: Answer) -> Script:
    """Read past the page that comes with an answer (RFC 9112, 6.3)."""
    coding = [value.strip().lower() for value in answer.values("transfer-encoding")]
    if coding:
        if coding != ["chunked"]:
            raise NegotiationError("the proxy's answer has an unknown transfer coding")
        yield from _pass_over_chunks()
        return
    lengths = set(answer.values("content-length"))
    if len(lengths) != 1:
        raise NegotiationError("the proxy does not say where its answer ends")
    yield from _pass_over(_number(lengths.pop(), 10))


def _pass_over_chunks() -> Script:
    total = 0
    for _ in range(CHUNKS):
        line: bytes = yield Line(Side.SERVER)
        size = _number(line.partition(b";")[0].decode("latin-1").strip(), 16)
        total += size
        if total > BODY_LIMIT:
            break
        if size == 0:
            for _ in range(HEADER_LINES):
                if not (yield Line(Side.SERVER)):
                    return
            break
        yield from _pass_over(size)
        if (yield Line(Side.SERVER)):
            raise NegotiationError("the proxy's answer has a chunk of another size than it says")
    raise NegotiationError(f"the proxy's answer has more than {BODY_LIMIT} bytes or {CHUNKS} chunks")


def _pass_over(size: int) -> Script:
    if size > BODY_LIMIT:
        raise NegotiationError(f"the proxy's answer has more than {BODY_LIMIT} bytes")
    if size:
        yield Exactly(Side.SERVER, size)


def _number(text: str, base: int) -> int:
    if re.fullmatch(r"[0-9]{1,9}" if base == 10 else r"[0-9A-Fa-f]{1,8}", text) is None:
        raise NegotiationError("the proxy does not say where its answer ends")
    return int(text, base)
