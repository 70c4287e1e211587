"""`culvert ca show`: a CA, what it issued and what became of that, for people and for programs."""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Mapping

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID
from rich.console import Console
from rich.text import Text

from culvert.cli.ca.constraints import constraints_of, permitted_by
from culvert.cli.ca.index import Entry, Status, serial_text
from culvert.cli.ca.store import Store
from culvert.cli.faults import printable

_STYLES = {Status.VALID: "green", Status.EXPIRED: "dim", Status.REVOKED: "red"}
_SOON = datetime.timedelta(days=30)


def show_all(store: Store, now: datetime.datetime, console: Console) -> None:
    """The CA, then a line for each certificate, the newest last."""
    _print_facts(_describe_authority(store, now), console)
    entries = store.index().entries
    if not entries:
        console.print("No certificate was issued yet.", soft_wrap=True)
        return
    console.print()
    console.print(f"{'STATUS':<8} {'UNTIL':<10} {'DAYS':>5} {'FOR':<6} {'SERIAL':<40} NAMES", soft_wrap=True)
    for entry in entries:
        console.print(_line(entry, now), soft_wrap=True)


def show_entry(store: Store, entry: Entry, now: datetime.datetime, console: Console) -> None:
    """All about one certificate."""
    console.print(Text(printable(entry.names[0]), "bold"), soft_wrap=True)
    certificate = store.issued(entry)
    status = entry.status(now).value
    if entry.revocation is not None:
        status += f" on {entry.revocation.time:%Y-%m-%d} ({entry.revocation.reason.value})"
    facts = {
        "status": status,
        "names": ", ".join(entry.names),
        "for": entry.purpose.value,
        **_describe_certificate(certificate, now),
    }
    _print_facts(facts, console)


def to_json(store: Store, entries: list[Entry], now: datetime.datetime) -> str:
    """The CA and these certificates as one JSON object.

    {"ca": {"subject": str, "end": str, "days_left": int, "permitted": [str] | null, "crl_end": str | null},
    "certificates": [{"serial": str, "names": [str], "for": "server" | "client" | "both", "end": str,
    "days_left": int, "status": "valid" | "expired" | "revoked", "revoked": str | null,
    "reason": str | null}]}; times are in ISO 8601.
    """
    certificate, crl = store.certificate(), store.crl()
    constraints = constraints_of(certificate)
    crl_end = crl.next_update_utc if crl is not None else None
    authority = {
        "subject": _subject(certificate),
        "end": certificate.not_valid_after_utc.isoformat(),
        "days_left": _days_left(certificate.not_valid_after_utc, now),
        "permitted": permitted_by(constraints) if constraints is not None else None,
        "crl_end": crl_end.isoformat() if crl_end is not None else None,
    }
    return json.dumps({"ca": authority, "certificates": [_as_object(e, now) for e in entries]}, indent=2)


def days_text(end: datetime.datetime, now: datetime.datetime) -> str:
    """An end in words: `2027-01-31, 364 days left`."""
    if now > end:
        return f"{end:%Y-%m-%d}, expired"
    return f"{end:%Y-%m-%d}, {_days_left(end, now)} days left"


def _as_object(entry: Entry, now: datetime.datetime) -> dict[str, object]:
    revocation = entry.revocation
    return {
        "serial": serial_text(entry.serial),
        "names": list(entry.names),
        "for": entry.purpose.value,
        "end": entry.end.isoformat(),
        "days_left": _days_left(entry.end, now),
        "status": entry.status(now).value,
        "revoked": revocation.time.isoformat() if revocation is not None else None,
        "reason": revocation.reason.value if revocation is not None else None,
    }


def _line(entry: Entry, now: datetime.datetime) -> Text:
    status, days = entry.status(now), _days_left(entry.end, now)
    is_late = status is Status.VALID and entry.end - now < _SOON
    return Text.assemble(
        (f"{status.value:<8}", _STYLES[status]),
        " ",
        (f"{entry.end:%Y-%m-%d} {days:>5}", "yellow" if is_late else ""),
        f" {entry.purpose.value:<6} {serial_text(entry.serial):<40} {printable(', '.join(entry.names))}",
    )


def _describe_authority(store: Store, now: datetime.datetime) -> dict[str, str]:
    certificate, crl = store.certificate(), store.crl()
    constraints = constraints_of(certificate)
    facts = {
        "CA": _subject(certificate),
        "in": str(store.folder),
        **_describe_certificate(certificate, now),
        "issues for": ", ".join(permitted_by(constraints)) if constraints is not None else "any name",
        "CRL": "none yet (`culvert ca crl`)",
    }
    if crl is not None:
        end = crl.next_update_utc
        facts["CRL"] = (
            f"number {_crl_number(crl)}, until {days_text(end, now) if end is not None else 'ever'}"
        )
    return facts


def _describe_certificate(certificate: x509.Certificate, now: datetime.datetime) -> dict[str, str]:
    spki = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return {
        "serial": serial_text(certificate.serial_number),
        "from": f"{certificate.not_valid_before_utc:%Y-%m-%d}",
        "until": days_text(certificate.not_valid_after_utc, now),
        "sha256": certificate.fingerprint(SHA256()).hex(":").upper(),
        "key sha256": hashlib.sha256(spki).hexdigest(),
    }


def _print_facts(facts: Mapping[str, str], console: Console) -> None:
    for label, value in facts.items():
        console.print(Text(f"  {label:<11} {printable(value)}"), soft_wrap=True)


def _subject(certificate: x509.Certificate) -> str:
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value) if names else certificate.subject.rfc4514_string()


def _crl_number(crl: x509.CertificateRevocationList) -> int:
    return crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number


def _days_left(end: datetime.datetime, now: datetime.datetime) -> int:
    """Whole days, and negative for what is over."""
    return (end - now) // datetime.timedelta(days=1)
