"""The extensions of handshake messages, each as what it says: a text or a list of texts."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from culvert.tls.presentation import MalformedError, Reader
from culvert.trace import names
from culvert.trace.distinguished import name as distinguished_name

Field = str | int | list[str] | dict[str, "Field"]
"""What a field of a message holds."""

CLIENT_HELLO, SERVER_HELLO, HELLO_RETRY_REQUEST, OTHER = "client", "server", "retry", "other"
"""In which message an extension stands: the form of some depends on it (RFC 8446, 4.2)."""

_LIST_LIMIT = 512
"""Most entries of a list that are shown; the longest of today's clients have a few dozen."""


_EXTENSIONS_LIMIT = 128
"""Most extensions of a message that are shown: there are not as many."""


def numbers(reader: Reader, size: int, name: Callable[[int], str]) -> list[str]:
    """The numbers of `size` bytes that are left, by name."""
    found = []
    while reader:
        found.append(name(reader.number(size)))
    return limited(found)


def limited(entries: list[str]) -> list[str]:
    """A list that is not too long to be shown."""
    if len(entries) <= _LIST_LIMIT:
        return entries
    return [*entries[:_LIST_LIMIT], f"and {len(entries) - _LIST_LIMIT} more"]


def text(data: bytes) -> str:
    """A name that a peer has sent; what is not UTF-8 is escaped."""
    return data.decode("utf-8", "backslashreplace")


def size(reader: Reader) -> str:
    """What is left, by its length."""
    return f"{len(reader.rest())} byte(s)"


def group(number: int) -> str:
    return names.named(names.GROUPS, number)


def signature(number: int) -> str:
    return names.named(names.SIGNATURES, number)


def authorities(reader: Reader) -> list[str]:
    """Distinguished names, each behind its length."""
    found = []
    while reader:
        found.append(distinguished_name(reader.vector(2).rest()))
    return limited(found)


def read(reader: Reader, where: str) -> dict[str, Field]:
    """The extensions that are left, by name. Raises MalformedError."""
    found: dict[str, Field] = {}
    while reader:
        if len(found) == _EXTENSIONS_LIMIT:
            found["more"] = size(reader)
            break
        number, content = reader.number(2), reader.vector(2)
        label = names.named(names.EXTENSIONS, number)
        name, again = label, 1
        while name in found:
            again += 1
            name = f"{label} #{again}"
        try:
            found[name] = _READERS.get(number, _other)(content, where)
            content.end()
        except MalformedError as error:
            found[name] = f"malformed: {error}"
    return found


def _other(reader: Reader, _where: str) -> Field:
    return size(reader)


def _server_name(reader: Reader, where: str) -> Field:
    if where != CLIENT_HELLO:
        return size(reader)
    found = []
    entries = reader.vector(2)
    while entries:
        kind, name = entries.number(1), text(entries.vector(2).rest())
        found.append(name if kind == 0 else f"type {kind}: {name}")
    return limited(found)


def _vector_of(
    length: int, number: int, table: Mapping[int, str], digits: int = 4
) -> Callable[[Reader, str], Field]:
    """The reader of a vector of numbers with names."""

    def read_vector(reader: Reader, _where: str) -> Field:
        return numbers(reader.vector(length), number, lambda found: names.named(table, found, digits))

    return read_vector


def _protocols(reader: Reader, _where: str) -> Field:
    found = []
    entries = reader.vector(2)
    while entries:
        found.append(text(entries.vector(1).rest()))
    return limited(found)


def _supported_versions(reader: Reader, where: str) -> Field:
    if where == CLIENT_HELLO:
        return numbers(reader.vector(1), 2, names.version)
    return names.version(reader.number(2))


def _key_share(reader: Reader, where: str) -> Field:
    if where == HELLO_RETRY_REQUEST:
        return group(reader.number(2))
    if where == SERVER_HELLO:
        return _share(reader)
    found = []
    entries = reader.vector(2)
    while entries:
        found.append(_share(entries))
    return limited(found)


def _share(reader: Reader) -> str:
    name = group(reader.number(2))
    return f"{name} ({len(reader.vector(2).rest())} byte(s))"


def _pre_shared_key(reader: Reader, where: str) -> Field:
    if where != CLIENT_HELLO:
        return f"identity {reader.number(2)} selected"
    found = []
    identities = reader.vector(2)
    while identities:
        identity, age = identities.vector(2).rest(), identities.number(4)
        found.append(f"identity of {len(identity)} byte(s), obfuscated age {age}")
    binders = reader.vector(2)
    while binders:
        binders.vector(1)
    return limited(found)


def _early_data(reader: Reader, where: str) -> Field:
    return f"at most {reader.number(4)} byte(s)" if where == OTHER and len(reader) == 4 else size(reader)


def _status_request(reader: Reader, where: str) -> Field:
    if where != CLIENT_HELLO:
        return size(reader)
    kind = reader.number(1)
    reader.rest()
    return "ocsp" if kind == 1 else f"type {kind}"


def _fragment_length(reader: Reader, _where: str) -> Field:
    return names.named(names.FRAGMENT_LENGTHS, reader.number(1), 2)


def _record_size(reader: Reader, _where: str) -> Field:
    return reader.number(2)


def _renegotiation(reader: Reader, _where: str) -> Field:
    return size(reader.vector(1))


def _cookie(reader: Reader, _where: str) -> Field:
    return size(reader.vector(2))


def _authorities(reader: Reader, _where: str) -> Field:
    return authorities(reader.vector(2))


_READERS: Mapping[int, Callable[[Reader, str], Field]] = {
    0: _server_name,
    1: _fragment_length,
    5: _status_request,
    10: _vector_of(2, 2, names.GROUPS),
    11: _vector_of(1, 1, names.POINT_FORMATS, 2),
    13: _vector_of(2, 2, names.SIGNATURES),
    16: _protocols,
    27: _vector_of(1, 2, names.CERTIFICATE_COMPRESSIONS),
    28: _record_size,
    41: _pre_shared_key,
    42: _early_data,
    43: _supported_versions,
    44: _cookie,
    45: _vector_of(1, 1, names.PSK_MODES, 2),
    47: _authorities,
    50: _vector_of(2, 2, names.SIGNATURES),
    51: _key_share,
    65281: _renegotiation,
}
