"""`culvert ca`: a small certificate authority, by Typer."""

from __future__ import annotations

import datetime
import enum
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer
from cryptography import x509

from culvert.cli.ca import names as naming
from culvert.cli.ca.authority import (
    COMMON_NAME_LIMIT,
    LEAF_LIFE,
    Authority,
    KeyKind,
    Purpose,
    Reason,
    Request,
    SigningKey,
    generate_key,
)
from culvert.cli.ca.constraints import parse_permit
from culvert.cli.ca.delivery import Delivery
from culvert.cli.ca.index import Entry, Status, serial_text
from culvert.cli.ca.listing import show_all, show_entry, to_json
from culvert.cli.ca.store import Store
from culvert.cli.console import open_console
from culvert.cli.faults import printable, say
from culvert.cli.pass_phrase import Prompt
from culvert.errors import ConfigurationError, Diagnostic, Severity
from culvert.tls.credentials import PassPhrases

_DAYS_LIMIT = 36500

ca_app = typer.Typer(
    name="ca",
    help="Make the certificates of a tunnel's two ends: a small certificate authority.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Folder = Annotated[Path, typer.Option("--dir", metavar="DIR", help="the CA's folder")]
Days = Annotated[int, typer.Option(min=1, max=_DAYS_LIMIT, help="how long it is valid")]
Key = Annotated[KeyKind, typer.Option("--key", help="ECDSA on P-256, or RSA with 3072 bits")]
_CA = Path("ca")


class Format(enum.StrEnum):
    """How `show` prints."""

    TEXT = "text"
    JSON = "json"


@ca_app.command()
def init(
    *,
    folder: Folder = _CA,
    name: Annotated[str | None, typer.Option(help="its name in certificates and logs")] = None,
    days: Days = 3650,
    key: Key = KeyKind.ECDSA,
    permit: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SUBTREE",
            help="a part of all names, the only one it can issue for; repeatable",
        ),
    ] = None,
    encrypt: Annotated[bool, typer.Option("--encrypt", help="protect its key by a pass phrase")] = False,
) -> None:
    """Make a CA in a new folder.

    With --permit it can issue for these names alone: example.com and all below it, the addresses
    10.0.0.0/8, the mailboxes @example.com or @.example.com (of hosts below it), URIs with the host
    //example.com or //.example.com.
    """
    if name is not None and not (name.strip() and name.isprintable() and len(name) <= COMMON_NAME_LIMIT):
        raise ConfigurationError.single(
            f"--name takes 1 to {COMMON_NAME_LIMIT} printable characters, not {name!r}"
        )
    permitted = [parse_permit(subtree) for subtree in permit or ()]
    Store(folder).assert_free()
    pass_phrase = _new_pass_phrase(folder) if encrypt else None
    authority = Authority.create(name, generate_key(key), datetime.timedelta(days), _now(), permitted)
    store = Store.create(folder, authority, pass_phrase)
    _print(
        f"{store.certificate_path}: the CA's certificate, until {authority.end:%Y-%m-%d}; its peers' CAfile"
    )
    _print(f"{store.key_path}: the CA's private key; whoever has it can be any peer")


@ca_app.command()
def issue(
    *,
    names: Annotated[
        list[str],
        typer.Argument(metavar="NAME", help="DNS name, IP or e-mail address, URI (as spiffe://)"),
    ],
    folder: Folder = _CA,
    server: Annotated[bool, typer.Option("--server", help="for servers; default: both")] = False,
    client: Annotated[bool, typer.Option("--client", help="for clients; default: both")] = False,
    days: Annotated[
        int | None,
        typer.Option(min=1, max=_DAYS_LIMIT, help=f"how long it is valid; default: {LEAF_LIFE.days}"),
    ] = None,
    key: Key = KeyKind.ECDSA,
    out: Annotated[Path, typer.Option(metavar="DIR", help="where its files go")] = Path(),
    bundle: Annotated[bool, typer.Option("--bundle", help="certificate and key in one file")] = False,
    replace: Annotated[bool, typer.Option("--replace", help="renew: overwrite the files")] = False,
) -> None:
    """Issue a certificate and its key.

    It is one for all NAMEs; its files are NAME.pem and NAME.key, after the first.
    """
    parsed = tuple(dict.fromkeys(naming.parse(name) for name in names))
    life = datetime.timedelta(days) if days is not None else None
    request = Request(parsed, _purpose(server=server, client=client), life)
    delivery = Delivery(out, naming.file_stem(parsed[0]), bundle, replace)
    store = Store.open(folder)
    delivery.assert_possible(folder)
    authority = store.authority(PassPhrases(Prompt()))
    private = generate_key(key)
    certificate = authority.issue(request, private, _now())
    entry = Entry.of(certificate, request.purpose)
    # On record first: a certificate that was handed out and is not in the index could not be revoked.
    with store.change() as index:
        delivery.assert_possible(folder)
        earlier = [e for e in index.entries if e.names[0] == entry.names[0]]
        store.keep_copy(certificate)
        index.entries.append(entry)
    _hand_out(delivery, certificate, private)
    _tell_issued(delivery, entry)
    _tell_earlier(earlier)


@ca_app.command()
def revoke(
    wanted: Annotated[str, typer.Argument(metavar="NAME|SERIAL")],
    folder: Folder = _CA,
    reason: Annotated[Reason, typer.Option(case_sensitive=False)] = Reason.UNSPECIFIED,
) -> None:
    """Revoke a certificate.

    With a NAME all that are valid under it, with a SERIAL number that one.
    """
    with Store.open(folder).change() as index:
        revoked = index.revoke(wanted, reason, _now())
    for entry in revoked:
        _print(f"revoked: {entry.names[0]}, serial number {serial_text(entry.serial)}")
    _print("It takes effect where the next list arrives: culvert ca crl")


@ca_app.command()
def crl(folder: Folder = _CA, days: Days = 30) -> None:
    """Write the list of revoked certificates.

    Peers that have it refuse every certificate once it is out of date: write and hand out the next before.
    """
    store = Store.open(folder)
    authority = store.authority(PassPhrases(Prompt()))
    life = datetime.timedelta(days)
    made = store.renew_crl(
        lambda number, revocations: authority.revocation_list(number, revocations, life, _now())
    )
    _print(
        f"{store.crl_path}: {len(made)} revoked certificate(s), for CRLfile; "
        f"out of date on {made.next_update_utc:%Y-%m-%d}"
    )


@ca_app.command()
def show(
    wanted: Annotated[str | None, typer.Argument(metavar="NAME|SERIAL")] = None,
    folder: Folder = _CA,
    form: Annotated[
        Format, typer.Option("--format", help="text for people, json for programs")
    ] = Format.TEXT,
) -> None:
    """Show the CA and what it issued.

    With a NAME or SERIAL number: all about that certificate.
    """
    store, now = Store.open(folder), _now()
    index = store.index()
    entries = index.entries if wanted is None else index.find(wanted)
    if form is Format.JSON:
        print(to_json(store, entries, now))
    elif wanted is None:
        show_all(store, now, open_console())
    else:
        console = open_console()
        for entry in entries:
            show_entry(store, entry, now, console)


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def _print(line: str) -> None:
    open_console().print(printable(line), soft_wrap=True)


def _new_pass_phrase(folder: Path) -> bytes:
    try:
        return Prompt().choose(str(Store(folder).key_path))
    except OSError as error:
        raise ConfigurationError.single(f"The CA is not made: {error}") from None


def _purpose(*, server: bool, client: bool) -> Purpose:
    if server == client:
        return Purpose.BOTH
    return Purpose.SERVER if server else Purpose.CLIENT


def _hand_out(delivery: Delivery, certificate: x509.Certificate, key: SigningKey) -> None:
    try:
        delivery.write(certificate, key)
    except ConfigurationError as error:
        serial = serial_text(certificate.serial_number)
        note = f"The certificate is on record all the same: `culvert ca revoke {serial}` takes it back"
        raise ConfigurationError([*error.diagnostics, Diagnostic(Severity.NOTE, note)]) from None


def _tell_issued(delivery: Delivery, entry: Entry) -> None:
    what = "certificate and private key" if delivery.bundle else "certificate"
    _print(f"{delivery.certificate_path}: {what} of {', '.join(entry.names)}, until {entry.end:%Y-%m-%d}")
    if delivery.key_path is not None:
        _print(f"{delivery.key_path}: its private key, for its owner only")


def _tell_earlier(entries: Iterable[Entry]) -> None:
    for entry in entries:
        if entry.status(_now()) is Status.VALID:
            serial = serial_text(entry.serial)
            say(f"An earlier certificate of that name, {serial}, stays valid until {entry.end:%Y-%m-%d}", ".")
