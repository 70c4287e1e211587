"""What a CA remembers: the certificates that it issued, which are revoked, and the last CRL's number."""

from __future__ import annotations

import contextlib
import datetime
import enum
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from cryptography import x509

from culvert.cli.ca import names as naming
from culvert.cli.ca.authority import Purpose, Reason, Revocation
from culvert.errors import ConfigurationError

_FORM = 1
_SERIAL = re.compile(r"(?:0x)?[0-9a-f:]{1,80}", re.IGNORECASE)


class Status(enum.StrEnum):
    """What has become of a certificate."""

    VALID = "valid"
    EXPIRED = "expired"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True)
class Entry:
    """One certificate that was issued. It goes by the first of its names."""

    serial: int
    names: tuple[str, ...]
    purpose: Purpose
    end: datetime.datetime
    revocation: Revocation | None = None

    @classmethod
    def of(cls, certificate: x509.Certificate, purpose: Purpose) -> Entry:
        """The entry of a new certificate."""
        alternative = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        names = tuple(naming.show(name) for name in alternative)
        return cls(certificate.serial_number, names, purpose, certificate.not_valid_after_utc)

    def status(self, now: datetime.datetime) -> Status:
        """A revoked one stays so when it expires."""
        if self.revocation is not None:
            return Status.REVOKED
        return Status.EXPIRED if now > self.end else Status.VALID


@dataclass(slots=True)
class Index:
    """All of it; `store` reads and writes it under its lock."""

    crl_number: int = 0
    entries: list[Entry] = field(default_factory=list)

    def find(self, wanted: str) -> list[Entry]:
        """The certificates by that name or, where there is none, with that serial number in hexadecimal.

        Raises ConfigurationError where there is neither.
        """
        spellings = {wanted}
        with contextlib.suppress(ConfigurationError):  # it may be a serial number
            spellings.add(naming.show(naming.parse(wanted)))
        found = [entry for entry in self.entries if entry.names[0] in spellings]
        if not found and _SERIAL.fullmatch(wanted):
            digits = wanted.lower().removeprefix("0x").replace(":", "")
            found = [entry for entry in self.entries if f"{entry.serial:x}" == digits.lstrip("0")]
        if not found:
            raise ConfigurationError.single(
                f'No certificate has the name or serial number "{wanted}"{self._holders(spellings)}',
                hint="`culvert ca show` lists them",
            )
        return found

    def revoke(self, wanted: str, reason: Reason, now: datetime.datetime) -> list[Entry]:
        """Revoke what `find` finds, all of it where one name has several: the entries as they are then.

        Raises ConfigurationError where none of them is still valid.
        """
        found = self.find(wanted)
        still_valid = [entry for entry in found if entry.status(now) is Status.VALID]
        if not still_valid:
            last = found[-1]
            what = f"expired on {last.end:%Y-%m-%d}"
            if last.revocation is not None:
                what = f"was revoked on {last.revocation.time:%Y-%m-%d}"
            raise ConfigurationError.single(f"Nothing is left to revoke: {last.names[0]} {what}")
        revoked = {e.serial: replace(e, revocation=Revocation(e.serial, now, reason)) for e in still_valid}
        self.entries = [revoked.get(entry.serial, entry) for entry in self.entries]
        return list(revoked.values())

    def revocations(self) -> Iterator[Revocation]:
        """What a CRL must hold; also of expired certificates, so that no verifier misses one."""
        return (entry.revocation for entry in self.entries if entry.revocation is not None)

    def _holders(self, spellings: set[str]) -> str:
        holders = [f"{e.names[0]} ({serial_text(e.serial)})" for e in self.entries if spellings & {*e.names}]
        return f"; it is a further name of {', '.join(holders)}" if holders else ""


def serial_text(serial: int) -> str:
    """A serial number as `openssl x509 -serial` shows it."""
    digits = f"{serial:X}"
    return digits if len(digits) % 2 == 0 else f"0{digits}"


def to_json(index: Index) -> bytes:
    """The index for its file."""
    entries = [_as_object(entry) for entry in index.entries]
    return json.dumps(
        {"form": _FORM, "crl_number": index.crl_number, "certificates": entries}, indent=1
    ).encode()


def from_json(data: bytes) -> Index:
    """The index from its file. Raises ValueError where it is none that this version wrote."""
    try:
        tree = json.loads(data)
        if tree["form"] != _FORM:
            raise ValueError(f"its form is {tree['form']!r}, this version knows {_FORM}")
        return Index(int(tree["crl_number"]), [_as_entry(item) for item in tree["certificates"]])
    except (KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from None


def _as_object(entry: Entry) -> dict[str, object]:
    result: dict[str, object] = {
        "serial": serial_text(entry.serial),
        "names": list(entry.names),
        "purpose": entry.purpose.value,
        "end": entry.end.isoformat(),
    }
    if entry.revocation is not None:
        result["revoked"] = entry.revocation.time.isoformat()
        result["reason"] = entry.revocation.reason.value
    return result


def _as_entry(item: dict[str, Any]) -> Entry:
    serial = int(item["serial"], 16)
    names = tuple(str(name) for name in item["names"])
    if not names:
        raise ValueError(f"certificate {item['serial']} has no name")
    revocation = None
    if "revoked" in item:
        revocation = Revocation(serial, _time(item["revoked"]), Reason(item["reason"]))
    return Entry(serial, names, Purpose(item["purpose"]), _time(item["end"]), revocation)


def _time(text: str) -> datetime.datetime:
    time = datetime.datetime.fromisoformat(text)
    if time.tzinfo is None:
        raise ValueError(f"{text} has no time zone")
    return time
