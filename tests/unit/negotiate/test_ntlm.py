"""NTLMv2 by the published example of MS-NLMP, 4.2.4, and challenges that lie about their length."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from culvert.negotiate import ntlm
from culvert.negotiate.script import NegotiationError

ACCOUNT = ntlm.Account("Domain", "User", "Password")
NONCE = b"\xaa" * 8
CHALLENGE = bytes.fromhex(
    "4e544c4d53535000020000000c000c003800000033828ae20123456789abcdef"
    "00000000000000002400240044000000060070170000000f5300650072007600"
    "6500720002000c0044006f006d00610069006e0001000c005300650072007600"
    "6500720000000000"
)
"""The CHALLENGE_MESSAGE of 4.2.4.3."""

TIME = struct.pack("<HHQ", 7, 8, 0x01D000000000ABCD)


def with_info(info: bytes, flags: int = 0x00800001, length: int | None = None, offset: int = 48) -> bytes:
    size = len(info) if length is None else length
    return (
        struct.pack("<8sIHHIIQ8sHHI", b"NTLMSSP\0", 2, 0, 0, 0, flags, 7, bytes(8), size, size, offset) + info
    )


def fields(message: bytes) -> list[bytes]:
    """The six parts of an AUTHENTICATE_MESSAGE, by the offsets that it names."""
    assert message[:12] == b"NTLMSSP\0\x03\0\0\0"
    found = []
    for at in range(12, 60, 8):
        length, room, offset = struct.unpack_from("<HHI", message, at)
        assert length == room
        assert offset + length <= len(message)
        found.append(message[offset : offset + length])
    return found


def test_the_key_of_the_example() -> None:
    assert ntlm.response_key(ACCOUNT).hex() == "0c868a403bfd7a93a3001ef22ef02e3f"


def test_the_responses_of_the_example() -> None:
    challenge = ntlm.read_challenge(CHALLENGE)
    assert challenge.challenge.hex() == "0123456789abcdef"
    key = ntlm.response_key(ACCOUNT)
    assert ntlm.lm_response(key, challenge, NONCE).hex() == (
        "86c35097ac9cec102554764a57cccc19" + "aaaaaaaaaaaaaaaa"
    )
    proof = ntlm.nt_response(key, challenge, NONCE, bytes(8))
    assert proof[:16].hex() == "68cd0ab851e51c96aabc927bebef6a1c"
    assert proof[16:].hex() == (
        "01010000000000000000000000000000aaaaaaaaaaaaaaaa00000000"
        "02000c0044006f006d00610069006e0001000c005300650072007600650072000000000000000000"
    )


def test_the_third_message_carries_names_and_responses() -> None:
    message = ntlm.authenticate_message(ntlm.read_challenge(CHALLENGE), ACCOUNT, NONCE, -11644473600)
    lm, nt, domain, user, workstation, key = fields(message)
    assert lm.hex().startswith("86c35097")
    assert nt.hex().startswith("68cd0ab8")
    assert [text.decode("utf-16-le") for text in (domain, user, workstation)] == ["Domain", "User", ""]
    assert key == b""


def test_a_servers_time_is_taken_and_leaves_the_weaker_response_out() -> None:
    challenge = ntlm.read_challenge(with_info(TIME + bytes(4)))
    lm, nt, *_ = fields(ntlm.authenticate_message(challenge, ACCOUNT, NONCE, 1.0))
    assert lm == bytes(24)
    assert nt[24:32] == TIME[4:]


def test_a_server_without_unicode_gets_ascii_or_a_reason() -> None:
    challenge = ntlm.read_challenge(with_info(bytes(4), flags=0x00800002))
    assert b"Domain" in ntlm.authenticate_message(challenge, ACCOUNT, NONCE, 1.0)
    with pytest.raises(NegotiationError, match="ASCII"):
        ntlm.authenticate_message(challenge, ntlm.Account("", "Zo\u00eb", "x"), NONCE, 1.0)


def test_the_password_is_not_shown() -> None:
    assert "Password" not in repr(ACCOUNT)


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (b"", "no valid length"),
        (CHALLENGE[:40], "NTLMv1 only"),
        (CHALLENGE + bytes(9000), "no valid length"),
        (b"NTLMSSQ\0" + CHALLENGE[8:], "no challenge"),
        (CHALLENGE[:8] + b"\x03" + CHALLENGE[9:], "no challenge"),
        (with_info(b""), "NTLMv1 only"),
        (with_info(bytes(4), length=5), "bytes that are not there"),
        (with_info(bytes(4), length=65535), "bytes that are not there"),
        (with_info(bytes(4), offset=2**32 - 1), "bytes that are not there"),
        (with_info(b"\x02\x00\xff\xff"), "no end"),
        (with_info(b"\x02\x00\x00\x00"), "no end"),
    ],
)
def test_a_challenge_that_is_none(message: bytes, reason: str) -> None:
    with pytest.raises(NegotiationError, match=reason):
        ntlm.read_challenge(message)


@given(
    st.binary(max_size=120)
    | st.tuples(st.integers(0, 103), st.binary(max_size=8)).map(
        lambda patch: CHALLENGE[: patch[0]] + patch[1] + CHALLENGE[patch[0] + len(patch[1]) :]
    )
)
def test_any_challenge_is_answered_within_bounds_or_refused(message: bytes) -> None:
    try:
        challenge = ntlm.read_challenge(message)
        answer = ntlm.authenticate_message(challenge, ACCOUNT, NONCE, 0.0)
    except NegotiationError:
        return
    assert len(answer) <= len(message) + 256
