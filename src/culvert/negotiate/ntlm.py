"""NTLMv2 as a proxy asks for it: the three messages of MS-NLMP, without signing and sealing.

Every offset that a challenge names is checked against its length; nothing is longer than the line that it
came in.
"""

from __future__ import annotations

import functools
import hashlib
import hmac
import struct
from dataclasses import dataclass, field
from typing import NamedTuple

from culvert.negotiate.md4 import md4
from culvert.negotiate.script import NegotiationError

CHALLENGE_LIMIT = 8192
"""Most bytes of a server's challenge: it comes in one line."""

_SIGNATURE = b"NTLMSSP\0"
_NEGOTIATE, _CHALLENGE, _AUTHENTICATE = 1, 2, 3

_UNICODE = 0x00000001
_OEM = 0x00000002
_REQUEST_TARGET = 0x00000004
_NTLM = 0x00000200
_ALWAYS_SIGN = 0x00008000
_EXTENDED_SESSION_SECURITY = 0x00080000
_TARGET_INFO = 0x00800000

_WANTED = _UNICODE | _OEM | _REQUEST_TARGET | _NTLM | _ALWAYS_SIGN | _EXTENDED_SESSION_SECURITY

# MS-NLMP 2.2.1.2: signature, type, target name (length, room, offset), flags, challenge, reserved, and the
# target information (length, room, offset).
_CHALLENGE_HEAD = struct.Struct("<8sIHHIIQ8sHHI")
_SHORT_CHALLENGE = 32
"""A challenge of NTLMv1 ends in front of its target information."""

_PAIR = struct.Struct("<HH")
_END_OF_LIST, _TIMESTAMP = 0, 7  # AV_PAIR identifiers (MS-NLMP 2.2.2.1)

_EPOCH_DIFFERENCE = 11644473600
"""Seconds from 1601, where Windows' time begins, to 1970."""

_md5 = functools.partial(hashlib.md5, usedforsecurity=False)  # a FIPS module would refuse it otherwise


@dataclass(frozen=True, slots=True)
class Account:
    """Who asks to be let through. `domain` may be empty."""

    domain: str
    username: str
    password: str = field(repr=False)


class Challenge(NamedTuple):
    """What a server asks. `target_info` is its list of AV_PAIRs; `timestamp` is the one in it, if any."""

    unicode: bool
    challenge: bytes
    target_info: bytes
    timestamp: bytes | None


def negotiate_message() -> bytes:
    """The first message. It names neither domain nor workstation: the last one does."""
    return struct.pack("<8sIIHHIHHI", _SIGNATURE, _NEGOTIATE, _WANTED, 0, 0, 0, 0, 0, 0)


def read_challenge(message: bytes) -> Challenge:
    """The second message, the server's. Raises NegotiationError."""
    if not _SHORT_CHALLENGE <= len(message) <= CHALLENGE_LIMIT:
        raise NegotiationError("the proxy's NTLM challenge has no valid length")
    if len(message) < _CHALLENGE_HEAD.size:
        raise NegotiationError("the proxy's NTLM challenge has no target information: it speaks NTLMv1 only")
    head = _CHALLENGE_HEAD.unpack_from(message)
    signature, kind, flags, challenge, length, offset = head[0], head[1], head[5], head[6], head[8], head[10]
    if signature != _SIGNATURE or kind != _CHALLENGE:
        raise NegotiationError("the proxy's NTLM message is no challenge")
    if not flags & _TARGET_INFO or not length:
        raise NegotiationError("the proxy's NTLM challenge has no target information: it speaks NTLMv1 only")
    target_info = message[offset : offset + length]
    if len(target_info) != length:
        raise NegotiationError("the proxy's NTLM challenge names bytes that are not there")
    return Challenge(
        bool(flags & _UNICODE), struct.pack("<Q", challenge), target_info, _timestamp(target_info)
    )


def _timestamp(pairs: bytes) -> bytes | None:
    at = 0
    while at + _PAIR.size <= len(pairs):
        ident, size = _PAIR.unpack_from(pairs, at)
        at += _PAIR.size
        if ident == _END_OF_LIST:
            return None
        value = pairs[at : at + size]
        at += size
        if ident == _TIMESTAMP and len(value) == size == 8:
            return value
    raise NegotiationError("the target information of the proxy's NTLM challenge has no end")


def authenticate_message(challenge: Challenge, account: Account, nonce: bytes, now: float) -> bytes:
    """The third message: the proof. `nonce` is 8 random bytes, `now` is seconds since 1970.

    Raises NegotiationError where the server's character set cannot hold the names.
    """
    ticks = challenge.timestamp or struct.pack("<Q", int((now + _EPOCH_DIFFERENCE) * 10_000_000))
    key = response_key(account)
    proof = nt_response(key, challenge, nonce, ticks)
    # A server that sends its time expects no LMv2 response (MS-NLMP 3.1.5.1.2).
    weaker = bytes(24) if challenge.timestamp is not None else lm_response(key, challenge, nonce)
    encoding = "utf-16-le" if challenge.unicode else "ascii"
    try:
        names = [text.encode(encoding) for text in (account.domain, account.username, "")]
    except UnicodeEncodeError:
        raise NegotiationError("the proxy's NTLM takes ASCII names only") from None
    flags = _UNICODE if challenge.unicode else _OEM
    flags |= _REQUEST_TARGET | _NTLM | _ALWAYS_SIGN | _EXTENDED_SESSION_SECURITY | _TARGET_INFO
    parts = [weaker, proof, *names, b""]
    head = struct.pack("<8sI", _SIGNATURE, _AUTHENTICATE)
    offset = len(head) + 8 * len(parts) + 4
    for part in parts:
        head += struct.pack("<HHI", len(part), len(part), offset)
        offset += len(part)
    return head + struct.pack("<I", flags) + b"".join(parts)


def response_key(account: Account) -> bytes:
    """NTOWFv2 (MS-NLMP 3.3.2)."""
    secret = md4(account.password.encode("utf-16-le"))
    return _hmac(secret, (account.username.upper() + account.domain).encode("utf-16-le"))


def nt_response(key: bytes, challenge: Challenge, nonce: bytes, ticks: bytes) -> bytes:
    """The NTLMv2 response: the proof, and what it proves."""
    temp = b"\x01\x01" + bytes(6) + ticks + nonce + bytes(4) + challenge.target_info + bytes(4)
    return _hmac(key, challenge.challenge + temp) + temp


def lm_response(key: bytes, challenge: Challenge, nonce: bytes) -> bytes:
    """The LMv2 response."""
    return _hmac(key, challenge.challenge + nonce) + nonce


def _hmac(key: bytes, data: bytes) -> bytes:
    return hmac.new(key, data, _md5).digest()
