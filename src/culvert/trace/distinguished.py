"""Distinguished names from their DER form, as a CertificateRequest lists authorities (RFC 5280, 4.1.2.4)."""

from __future__ import annotations

from cryptography.x509 import NameOID

from culvert.tls.names import quoted
from culvert.tls.presentation import MalformedError, Reader

_SEQUENCE, _SET, _OBJECT = 0x30, 0x31, 0x06
_ENCODINGS = {
    0x0C: "utf-8",
    0x13: "ascii",
    0x14: "latin-1",
    0x16: "ascii",
    0x1C: "utf-32-be",
    0x1E: "utf-16-be",
}
"""UTF8String, PrintableString, TeletexString, IA5String, UniversalString, BMPString."""

_OBJECT_LIMIT = 64
"""Longest object identifier in bytes: one of a peer's could be a number of a million digits."""

_SHORT = {
    NameOID.COMMON_NAME: "CN",
    NameOID.COUNTRY_NAME: "C",
    NameOID.DOMAIN_COMPONENT: "DC",
    NameOID.EMAIL_ADDRESS: "emailAddress",
    NameOID.LOCALITY_NAME: "L",
    NameOID.ORGANIZATION_NAME: "O",
    NameOID.ORGANIZATIONAL_UNIT_NAME: "OU",
    NameOID.SERIAL_NUMBER: "serialNumber",
    NameOID.STATE_OR_PROVINCE_NAME: "ST",
}


def name(der: bytes) -> str:
    """A name in the order of its bytes, `C=PL, CN=a`. Raises MalformedError."""
    outer = Reader(der)
    relatives = _value(outer, _SEQUENCE)
    outer.end()
    shown = []
    while relatives:
        attributes = _value(relatives, _SET)
        parts = []
        while attributes:
            parts.append(_attribute(_value(attributes, _SEQUENCE)))
        shown.append("+".join(parts))
    return ", ".join(shown)


def _attribute(reader: Reader) -> str:
    kind = _object(_value(reader, _OBJECT).rest())
    tag, value = _element(reader)
    reader.end()
    encoding = _ENCODINGS.get(tag)
    content = value.rest()
    if encoding is None:
        return f"{kind}=#{content.hex()}"
    return f"{kind}={quoted(content.decode(encoding, 'replace'))}"


def _object(data: bytes) -> str:
    """An object identifier's short or dotted name (X.690, 8.19)."""
    if len(data) > _OBJECT_LIMIT:
        raise MalformedError("an object identifier that is too long")
    numbers, number = [], 0
    for octet in data:
        number = number << 7 | octet & 0x7F
        if not octet & 0x80:
            numbers.append(number)
            number = 0
    if not numbers or number:
        raise MalformedError("an object identifier without an end")
    first = min(numbers[0] // 40, 2)
    dotted = ".".join(map(str, (first, numbers[0] - 40 * first, *numbers[1:])))
    return next((short for known, short in _SHORT.items() if known.dotted_string == dotted), dotted)


def _value(reader: Reader, expected: int) -> Reader:
    tag, value = _element(reader)
    if tag != expected:
        raise MalformedError(f"a name with the tag 0x{tag:02X} where 0x{expected:02X} was expected")
    return value


def _element(reader: Reader) -> tuple[int, Reader]:
    tag, length = reader.number(1), reader.number(1)
    if length == 0x80 or length > 0x83:  # indefinite, or longer than a handshake message can be
        raise MalformedError("a name with a length that DER does not have")
    if length > 0x80:
        length = reader.number(length - 0x80)
    return tag, Reader(reader.take(length))
