"""LDAP: StartTLS by an extended operation (RFC 4511, 4.14), on the client's side."""

from __future__ import annotations

from typing import NamedTuple

from culvert.negotiate.script import (
    Connect,
    Discard,
    Ends,
    Exactly,
    NegotiationError,
    Protocol,
    Script,
    Send,
    Side,
    nothing,
)

START_TLS = b"1.3.6.1.4.1.1466.20037"

RESPONSE_LIMIT = 16384
"""Most bytes of the answer: its longest part is a diagnostic message, which is a sentence."""

MESSAGE_SHOWN = 300
"""Characters of the server's diagnostic message that the log repeats."""

_SEQUENCE, _INTEGER, _ENUMERATED, _OCTET_STRING = 0x30, 0x02, 0x0A, 0x04
_EXTENDED_RESPONSE = 0x78  # [APPLICATION 24], constructed (RFC 4511, 4.12)
_MESSAGE_ID = 1
_UNSOLICITED = 0  # RFC 4511, 4.4: the server says so by itself, before it closes the connection

# 30 len (02 01 id) (77 len (80 len oid)): [APPLICATION 23] with the request's name as [0].
_NAME = bytes((0x80, len(START_TLS))) + START_TLS
_OPERATION = bytes((0x77, len(_NAME))) + _NAME
_MESSAGE = bytes((_INTEGER, 1, _MESSAGE_ID)) + _OPERATION
REQUEST = bytes((_SEQUENCE, len(_MESSAGE))) + _MESSAGE

_RESULTS = {
    1: "operationsError",
    2: "protocolError",
    7: "authMethodNotSupported",
    8: "strongerAuthRequired",
    10: "referral",
    12: "unavailableCriticalExtension",
    13: "confidentialityRequired",
    51: "busy",
    52: "unavailable",
    53: "unwillingToPerform",
    80: "other",
}


class Answer(NamedTuple):
    """An extended response: `result` is 0 for success, `message` is the server's diagnostic message."""

    unsolicited: bool
    result: int
    message: str

    def __str__(self) -> str:
        words = f"{_RESULTS.get(self.result, 'result')} ({self.result})"
        return f"{words}: {self.message[:MESSAGE_SHOWN]}" if self.message else words


def before(_: Ends) -> Script:
    """Connect, and ask the server for TLS."""
    yield Connect()
    yield Send(Side.SERVER, REQUEST)
    head = yield Exactly(Side.SERVER, 2)
    if head[0] != _SEQUENCE:
        raise NegotiationError("the server does not speak LDAP")
    octets = (yield Exactly(Side.SERVER, length_octets(head[1]))) if head[1] & 0x80 else head[1:]
    size = int.from_bytes(octets, "big")
    if size > RESPONSE_LIMIT:
        raise NegotiationError(f"the server's LDAP message has more than {RESPONSE_LIMIT} bytes")
    answer = read_answer((yield Exactly(Side.SERVER, size)))
    if answer.unsolicited:
        raise NegotiationError(f"the server ends the LDAP session: {answer}")
    if answer.result:
        raise NegotiationError(f"the server refuses StartTLS: {answer}")
    yield Discard(Side.SERVER)


CLIENT = Protocol(before, nothing)


def length_octets(first: int) -> int:
    """How many octets the length has behind this first one, which has its highest bit set."""
    count = first & 0x7F
    if not 1 <= count <= 4:
        raise NegotiationError("the server's LDAP message has no definite length (RFC 4511, 5.1)")
    return count


def read_answer(message: bytes) -> Answer:
    """The inside of an LDAPMessage that is to be an extended response. Raises NegotiationError."""
    number, rest = _take(message, _INTEGER)
    ident = int.from_bytes(number, "big", signed=True)
    if len(number) > 4 or ident not in (_MESSAGE_ID, _UNSOLICITED):
        raise NegotiationError("the server answers an LDAP request that was not made")
    operation, _ = _take(rest, _EXTENDED_RESPONSE)
    result, operation = _take(operation, _ENUMERATED)
    _, operation = _take(operation, _OCTET_STRING)  # matchedDN
    message_text, _ = _take(operation, _OCTET_STRING)
    if len(result) > 4:
        raise NegotiationError("the server's LDAP result code has more than 4 octets")
    code = int.from_bytes(result, "big")
    return Answer(ident == _UNSOLICITED, code, message_text.decode("utf-8", "replace"))


def _take(data: bytes, tag: int) -> tuple[bytes, bytes]:
    """The content of the element at the front, which must have this tag, and what is behind it."""
    if len(data) < 2 or data[0] != tag:
        raise NegotiationError("the server's answer is not an LDAP extended response")
    start, size = 2, data[1]
    if size & 0x80:
        start += length_octets(size)
        size = int.from_bytes(data[2:start], "big")
    content = data[start : start + size]
    if not content and tag in (_INTEGER, _ENUMERATED):
        raise NegotiationError("the server's LDAP message has a number without digits")
    if len(data) < start or len(content) < size:
        raise NegotiationError("the server's LDAP message ends within an element")
    return content, data[start + size :]
