"""Handshake messages by name and with their main fields (RFC 5246, 7.4; RFC 8446, 4; RFC 6347, 4.2).

What a message looks like depends on what was negotiated, so each connection has a `Handshake` that keeps it
in mind. What cannot be read is shown as malformed; no bytes make it fail.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from culvert.tls.names import issuer, subject
from culvert.tls.presentation import MalformedError, Reader
from culvert.trace import extensions, names
from culvert.trace.extensions import Field

_RETRY_RANDOM = bytes.fromhex("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c")
"""The random of a ServerHello that is a HelloRetryRequest (RFC 8446, 4.1.3)."""

_NAMED_CURVE = 3

_CERTIFICATES_LIMIT = 32
"""Most certificates of a message that are looked into: real chains have three or four, and a peer can send
half a million that are empty."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message: `length` counts its header too; `fault` says why the fields are not all there."""

    name: str
    length: int
    fields: dict[str, Field] = field(default_factory=dict)
    fault: str | None = None


class Handshake:
    """What one connection's messages say, in their order."""

    def __init__(self) -> None:
        self.version = 0
        """The version that the server chose; 0 before."""
        self.cipher = ""
        """The name of the cipher suite that the server chose; empty before."""
        self._datagram = False

    def read(self, data: bytes, *, datagram: bool = False) -> Message:
        """One whole message with its header, of twelve bytes in DTLS (RFC 6347, 4.2.2)."""
        self._datagram = datagram
        fields: dict[str, Field] = {}
        if not data:
            return Message("an empty message", 0, fields, "cut off: no header")
        name = names.named(names.MESSAGES, data[0], 2)
        try:
            reader = Reader(data)
            kind, length = reader.number(1), reader.number(3)
            if datagram:
                reader.take(8)
            if len(reader) != length:
                raise MalformedError(f"{length} byte(s) announced, {len(reader)} there")
            if kind == 2 and data[-length:][2:34] == _RETRY_RANDOM:
                name = "HelloRetryRequest"
            read = _READERS.get(kind)
            if read is not None:
                read(self, reader, fields)
                reader.end()
        except MalformedError as error:
            return Message(name, len(data), fields, str(error))
        return Message(name, len(data), fields)

    @property
    def _is_13(self) -> bool:
        return self.version in (names.TLS13, 0xFEFC)

    def _client_hello(self, reader: Reader, fields: dict[str, Field]) -> None:
        fields["version"] = names.version(reader.number(2))
        fields["random"] = reader.take(32).hex()
        fields["session_id"] = reader.vector(1).rest().hex()
        if self._datagram:
            fields["cookie"] = reader.vector(1).rest().hex()
        fields["ciphers"] = extensions.numbers(reader.vector(2), 2, names.cipher)
        fields["compressions"] = extensions.numbers(
            reader.vector(1), 1, lambda number: names.named(names.COMPRESSIONS, number, 2)
        )
        if reader:
            fields["extensions"] = extensions.read(reader.vector(2), extensions.CLIENT_HELLO)

    def _server_hello(self, reader: Reader, fields: dict[str, Field]) -> None:
        legacy = reader.number(2)
        fields["version"] = names.version(legacy)
        random = reader.take(32)
        fields["random"] = random.hex()
        fields["session_id"] = reader.vector(1).rest().hex()
        fields["cipher"] = self.cipher = names.cipher(reader.number(2))
        fields["compression"] = names.named(names.COMPRESSIONS, reader.number(1), 2)
        where = extensions.HELLO_RETRY_REQUEST if random == _RETRY_RANDOM else extensions.SERVER_HELLO
        found = extensions.read(reader.vector(2), where) if reader else {}
        fields["extensions"] = found
        chosen = found.get("supported_versions")
        self.version = next((n for n, name in names.VERSIONS.items() if name == chosen), legacy)

    def _encrypted_extensions(self, reader: Reader, fields: dict[str, Field]) -> None:
        fields["extensions"] = extensions.read(reader.vector(2), extensions.OTHER)

    def _verify_request(self, reader: Reader, fields: dict[str, Field]) -> None:
        fields["version"] = names.version(reader.number(2))
        fields["cookie"] = reader.vector(1).rest().hex()

    def _ticket(self, reader: Reader, fields: dict[str, Field]) -> None:
        fields["lifetime"] = reader.number(4)
        if self._is_13:
            reader.take(4)  # how the ticket's age is obfuscated
            fields["nonce"] = reader.vector(1).rest().hex()
        fields["ticket"] = extensions.size(reader.vector(2))
        if self._is_13:
            fields["extensions"] = extensions.read(reader.vector(2), extensions.OTHER)

    def _certificate(self, reader: Reader, fields: dict[str, Field]) -> None:
        if self._is_13:
            fields["context"] = reader.vector(1).rest().hex()
        entries = reader.vector(3)
        shown: list[str] = []
        stapled: list[str] = []
        while entries:
            if len(shown) == _CERTIFICATES_LIMIT:
                shown.append(f"and {extensions.size(entries)} more")
                break
            shown.append(certificate(entries.vector(3).rest()))
            if self._is_13:
                stapled += extensions.read(entries.vector(2), extensions.OTHER)
        fields["certificates"] = list(shown)
        if stapled:
            fields["extensions"] = extensions.limited(stapled)

    def _compressed_certificate(self, reader: Reader, fields: dict[str, Field]) -> None:
        fields["algorithm"] = names.named(names.CERTIFICATE_COMPRESSIONS, reader.number(2))
        fields["uncompressed_length"] = reader.number(3)
        fields["compressed"] = extensions.size(reader.vector(3))

    def _certificate_request(self, reader: Reader, fields: dict[str, Field]) -> None:
        if self._is_13:
            fields["context"] = reader.vector(1).rest().hex()
            fields["extensions"] = extensions.read(reader.vector(2), extensions.OTHER)
            return
        fields["certificate_types"] = extensions.numbers(
            reader.vector(1), 1, lambda number: names.named(names.CERTIFICATE_TYPES, number, 2)
        )
        if self._signs_by_name:
            fields["signature_algorithms"] = extensions.numbers(reader.vector(2), 2, extensions.signature)
        fields["authorities"] = extensions.authorities(reader.vector(2))

    def _certificate_verify(self, reader: Reader, fields: dict[str, Field]) -> None:
        self._signature(reader, fields)

    def _signature(self, reader: Reader, fields: dict[str, Field]) -> None:
        if self._signs_by_name:
            fields["algorithm"] = extensions.signature(reader.number(2))
        fields["signature"] = extensions.size(reader.vector(2))

    @property
    def _signs_by_name(self) -> bool:
        """Whether signatures say by what they were made, as since TLS 1.2."""
        return self.version not in (0x0300, 0x0301, 0x0302, 0xFEFF)

    def _certificate_status(self, reader: Reader, fields: dict[str, Field]) -> None:
        kind = reader.number(1)
        fields["type"] = "ocsp" if kind == 1 else str(kind)
        fields["response"] = extensions.size(reader.vector(3) if kind == 1 else reader)

    def _server_key_exchange(self, reader: Reader, fields: dict[str, Field]) -> None:
        exchange = self.cipher.removeprefix("TLS_").partition("_WITH_")[0]
        if "PSK" in exchange:
            fields["identity_hint"] = extensions.text(reader.vector(2).rest())
        if exchange.startswith("ECDH"):
            kind = reader.number(1)
            if kind != _NAMED_CURVE:
                raise MalformedError(f"curve type {kind}, where a named one was expected")
            fields["group"] = extensions.group(reader.number(2))
            fields["public_key"] = extensions.size(reader.vector(1))
        elif exchange.startswith("DH"):
            fields["group"] = f"prime of {8 * len(reader.vector(2).rest())} bits"
            reader.vector(2)  # the generator
            fields["public_key"] = extensions.size(reader.vector(2))
        elif "PSK" not in exchange:
            fields["parameters"] = extensions.size(reader)
        if reader and not ("PSK" in exchange or exchange.lower().endswith("_anon")):
            self._signature(reader, fields)

    def _client_key_exchange(self, reader: Reader, fields: dict[str, Field]) -> None:
        fields["exchange"] = extensions.size(reader)

    def _finished(self, reader: Reader, fields: dict[str, Field]) -> None:
        fields["verify_data"] = reader.rest().hex()[:128]

    def _key_update(self, reader: Reader, fields: dict[str, Field]) -> None:
        number = reader.number(1)
        fields["request_update"] = {0: "update_not_requested", 1: "update_requested"}.get(number, str(number))

    def _opaque(self, reader: Reader, fields: dict[str, Field]) -> None:
        fields["content"] = extensions.size(reader)


def certificate(der: bytes) -> str:
    """A certificate's subject, issuer and last day."""
    try:
        found = x509.load_der_x509_certificate(der)
        ends = found.not_valid_after_utc
    except (ValueError, x509.InvalidVersion, UnsupportedAlgorithm):
        return f"unreadable certificate of {len(der)} byte(s)"
    return f"{subject(found)} (issued by {issuer(found)}, until {ends:%Y-%m-%d})"


_READERS: Mapping[int, Callable[[Handshake, Reader, dict[str, Field]], None]] = {
    1: Handshake._client_hello,
    2: Handshake._server_hello,
    3: Handshake._verify_request,
    4: Handshake._ticket,
    8: Handshake._encrypted_extensions,
    11: Handshake._certificate,
    12: Handshake._server_key_exchange,
    13: Handshake._certificate_request,
    15: Handshake._certificate_verify,
    16: Handshake._client_key_exchange,
    20: Handshake._finished,
    21: Handshake._opaque,
    22: Handshake._certificate_status,
    23: Handshake._opaque,
    24: Handshake._key_update,
    25: Handshake._compressed_certificate,
    67: Handshake._opaque,
    254: Handshake._opaque,
}
