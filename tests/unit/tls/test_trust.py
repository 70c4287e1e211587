"""Whom a service trusts and what those have revoked: CRLfile, and CRLpath while its files come and go."""

from __future__ import annotations

import base64
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from hypothesis import given, settings
from hypothesis import strategies as st

from culvert.errors import UnusableFileError
from culvert.tls.context import TlsContext
from culvert.tls.credentials import FILE_LIMIT
from culvert.tls.trust import parse

from ..identities import Identity, issue, write
from .certificates import certify, common_name, revocation_list, write_identity
from .conftest import Authority
from .ends import TLS12, TLS13, Pair, context

CHAIN = "verifyChain = yes"
VERSIONS = pytest.mark.parametrize("version", [TLS12, TLS13])

UNREADABLE_NAME = bytes.fromhex("0c04fffefdfc")
"""A UTF8String that is not UTF-8, as long as one of "name": `cryptography` does not mind, OpenSSL does."""

Show = Callable[..., Pair]


@pytest.fixture
def shown(authority: Authority, tmp_path: Path) -> Show:
    """Has a client show a certificate, the authority's own without another, to a server's context."""

    def show(server: TlsContext, client: Identity | None = None, version: str = TLS13) -> Pair:
        path = write_identity(tmp_path / "shown.pem", client or authority.client)
        return Pair(context(version, f"cert = {path}", client=True), server).shake_hands()

    return show


def listed(path: Path, content: bytes) -> str:
    """The option of a file of CRLs that has this content."""
    return f"CRLfile = {write(path, content)}"


def server(authority: Authority, *options: str) -> TlsContext:
    return context(authority.server_cert, authority.trust, CHAIN, *options)


def cause(pair: Pair) -> str | None:
    """What the server counts the refusal of its client by."""
    found = pair.server.context.verification(pair.server.engine)
    assert found is not None
    assert (pair.server.failure is not None) == (found.cause is not None)
    return found.cause


@VERSIONS
def test_who_is_on_the_list_is_refused(
    authority: Authority, shown: Show, tmp_path: Path, version: str
) -> None:
    revoked = certify(common_name("revoked"), issuer=authority.root)
    lists = listed(tmp_path / "crl", revocation_list(authority.root, revoked))
    assert shown(server(authority, lists), version=version).accepted
    assert cause(shown(server(authority, lists), revoked, version)) == "certificate revoked"


@VERSIONS
def test_a_server_on_the_list_is_refused(authority: Authority, tmp_path: Path, version: str) -> None:
    lists = listed(tmp_path / "crl", revocation_list(authority.root, authority.server))
    client = context(version, authority.trust, CHAIN, lists, client=True)
    pair = Pair(client, context(version, authority.server_cert)).shake_hands()
    assert "certificate revoked" in " ".join(finding.text for finding in pair.client.findings)
    assert not pair.accepted


@pytest.mark.parametrize(
    ("starts_in", "ends_in", "reason"), [(-30, -1, "CRL has expired"), (1, 30, "CRL is not yet valid")]
)
def test_a_list_out_of_its_time_lets_nobody_pass(
    *, authority: Authority, shown: Show, tmp_path: Path, starts_in: float, ends_in: float, reason: str
) -> None:
    out_of_time = revocation_list(authority.root, starts_in=starts_in, ends_in=ends_in)
    assert cause(shown(server(authority, listed(tmp_path / "crl", out_of_time)))) == reason


def test_a_list_by_another_key_lets_nobody_pass(authority: Authority, shown: Show, tmp_path: Path) -> None:
    forged = revocation_list(authority.root, signer=issue("root"))
    assert cause(shown(server(authority, listed(tmp_path / "crl", forged)))) == ("CRL signature failure")


def test_a_list_of_another_authority_is_none(authority: Authority, shown: Show, tmp_path: Path) -> None:
    other = revocation_list(issue("another"))
    assert cause(shown(server(authority, listed(tmp_path / "crl", other)))) == (
        "unable to get certificate CRL"
    )


def test_an_issuer_in_between_needs_a_list_as_well(authority: Authority, shown: Show, tmp_path: Path) -> None:
    between = issue("between", authority.root)
    leaf = certify(common_name("leaf"), issuer=between)
    path = write_identity(tmp_path / "chained.pem", leaf, between)
    roots, below = revocation_list(authority.root), revocation_list(between)
    against = revocation_list(authority.root, between)
    for content, expected in (
        (roots + below, True),
        (roots, False),
        (below, False),
        (against + below, False),
    ):
        checking = server(authority, listed(tmp_path / "crl", content))
        pair = Pair(context(f"cert = {path}", client=True), checking).shake_hands()
        assert pair.accepted is expected


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it holds no CRL in PEM form"),
        (b"-----BEGIN X509 CRL-----\n", "it holds no CRL in PEM form"),
        (b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n", ""),
    ],
)
def test_what_is_no_list_is_refused_by_option_and_line(
    authority: Authority, tmp_path: Path, content: bytes, reason: str
) -> None:
    option = listed(tmp_path / "crl", content)
    with pytest.raises(UnusableFileError) as refused:
        server(authority, option)
    (finding,) = refused.value.diagnostics
    assert finding.message.startswith(f"{tmp_path / 'crl'} cannot be used: {reason}")
    assert finding.location is not None
    assert (finding.location.text, finding.service) == (option, "tunnel")


def test_a_file_that_is_not_there_is_refused(authority: Authority, tmp_path: Path) -> None:
    with pytest.raises(UnusableFileError, match="No such file"):
        server(authority, f"CRLfile = {tmp_path / 'nowhere'}")


def unreadable(authority: Authority) -> bytes:
    """A CRL that `cryptography` reads and OpenSSL does not."""
    named = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "name")])
    body = "".join(revocation_list(authority.root, name=named).decode().splitlines()[1:-1])
    der = base64.b64decode(body)
    assert der.count(b"\x0c\x04name") == 1
    encoded = base64.encodebytes(der.replace(b"\x0c\x04name", UNREADABLE_NAME))
    return b"-----BEGIN X509 CRL-----\n" + encoded + b"-----END X509 CRL-----\n"


def test_a_list_that_openssl_cannot_read_is_refused_as_such(authority: Authority, tmp_path: Path) -> None:
    with pytest.raises(UnusableFileError) as refused:
        server(authority, listed(tmp_path / "crl", unreadable(authority)))
    (finding,) = refused.value.diagnostics
    assert finding.message.startswith(f"{tmp_path / 'crl'} cannot be used: ")


class Folder:
    """A CRLpath, and a server that looks at it."""

    def __init__(self, authority: Authority, path: Path, show: Show) -> None:
        path.mkdir()
        self.path = path
        self.server = server(authority, f"CRLpath = {path}")
        self._show = show

    def write(self, content: bytes, name: str = "12345678.r0") -> None:
        """Put a file into the place of what is there, as a careful operator does."""
        write(self.path / "new", content).replace(self.path / name)

    def look(self) -> list[str]:
        """Have the server look at the folder, and say what is wrong with it."""
        return self.server.refresh(time.monotonic())

    def admits(self, client: Identity | None = None) -> bool:
        return self._show(self.server, client).accepted

    def refusal(self, client: Identity | None = None) -> str | None:
        return cause(self._show(self.server, client))


@pytest.fixture
def folder(authority: Authority, tmp_path: Path, shown: Show) -> Folder:
    return Folder(authority, tmp_path / "crls", shown)


def test_an_empty_folder_lets_nobody_pass(folder: Folder) -> None:
    assert folder.look() == []
    assert folder.refusal() == "unable to get certificate CRL"


def test_a_list_counts_from_when_it_comes_until_it_goes(authority: Authority, folder: Folder) -> None:
    folder.write(revocation_list(authority.root))
    assert folder.look() == []
    assert folder.admits()
    folder.write(revocation_list(authority.root, authority.client))
    assert folder.admits(), "nobody has looked yet"
    assert folder.look() == []
    assert not folder.admits()
    folder.write(revocation_list(authority.root))
    folder.look()
    assert folder.admits()
    (folder.path / "12345678.r0").unlink()
    folder.look()
    assert not folder.admits()


def test_only_names_by_hash_are_looked_at(authority: Authority, folder: Folder) -> None:
    for name in ("12345678.0", "1234567.r0", "12345678.r", "12345678.r0.pem", "ABCDEF01.r0", "crl.pem"):
        folder.write(revocation_list(authority.root), name)
    assert folder.look() == []
    assert not folder.admits()
    folder.write(revocation_list(authority.root), "abcdef01.r17")
    folder.look()
    assert folder.admits()


def test_a_file_may_hold_the_lists_of_several(authority: Authority, folder: Folder) -> None:
    folder.write(revocation_list(issue("another")) + revocation_list(authority.root, authority.client))
    assert folder.look() == []
    assert folder.refusal() == "certificate revoked"


DAMAGES: dict[str, Callable[[Authority], bytes]] = {
    "empty": lambda _: b"",
    "no list": lambda _: b"this is no list\n",
    "cut off": lambda authority: revocation_list(authority.root)[:-60],
    "for OpenSSL": unreadable,
    "too large": lambda authority: revocation_list(authority.root) + bytes(FILE_LIMIT),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_leaves_in_force_what_it_said_and_is_complained_of_once(
    authority: Authority, folder: Folder, damage: str
) -> None:
    other = certify(common_name("other"), issuer=authority.root)
    folder.write(revocation_list(authority.root, other))
    folder.look()
    folder.write(DAMAGES[damage](authority))
    (fault,) = folder.look()
    assert fault.startswith(f"The CRL {folder.path / '12345678.r0'} is not used: ")
    assert folder.look() == []
    assert (folder.admits(), folder.admits(other)) == (True, False)
    folder.write(revocation_list(authority.root, authority.client))
    assert folder.look() == []
    assert not folder.admits()


def test_a_damaged_file_does_not_stand_in_the_way_of_another(authority: Authority, folder: Folder) -> None:
    for damage in DAMAGES.values():
        folder.write(damage(authority), "00000000.r0")
        folder.write(revocation_list(authority.root))
        assert len(folder.look()) == 1
        assert folder.admits()
        (folder.path / "12345678.r0").unlink()
        folder.look()
        assert not folder.admits()


@pytest.mark.parametrize("target", ["nothing", "12345678.r1", "."])
def test_a_link_that_leads_to_no_file_does_not_either(
    authority: Authority, folder: Folder, target: str
) -> None:
    (folder.path / "12345678.r1").symlink_to(target)
    folder.write(revocation_list(authority.root))
    assert len(folder.look()) == (target != "nothing")
    assert folder.admits()


def test_a_pipe_is_not_waited_for(authority: Authority, folder: Folder) -> None:
    os.mkfifo(folder.path / "12345678.r1")
    folder.write(revocation_list(authority.root))
    assert len(folder.look()) == 1
    assert folder.admits()


def test_a_folder_that_is_gone_leaves_its_lists_in_force_and_is_complained_of_once(
    authority: Authority, folder: Folder
) -> None:
    other = certify(common_name("other"), issuer=authority.root)
    folder.write(revocation_list(authority.root, other))
    folder.look()
    away = folder.path.rename(folder.path.with_name("away"))
    assert folder.look() == [f"CRLpath {folder.path} cannot be read: No such file or directory"]
    assert folder.look() == []
    assert (folder.admits(), folder.admits(other)) == (True, False)
    away.rename(folder.path)
    assert folder.look() == []
    folder.path.rename(away)
    assert len(folder.look()) == 1


PARTS = st.one_of(
    st.sampled_from([b"-----BEGIN X509 CRL-----", b"-----END X509 CRL-----", b"\n", b"MIIB", b"MAA="]),
    st.binary(max_size=20),
    st.binary(max_size=60).map(base64.b64encode),
)


@given(st.lists(PARTS, max_size=12).map(b"\n".join))
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_lists_or_one_kind_of_error(content: bytes) -> None:
    try:
        assert parse(content)
    except ValueError:
        return


GENUINE = revocation_list(issue("property"))


@given(st.integers(0, len(GENUINE) - 1), st.integers(0, 255))
@settings(max_examples=300, deadline=None)
def test_any_damage_to_a_list_is_one_kind_of_error(at: int, byte: int) -> None:
    try:
        assert len(parse(GENUINE[:at] + bytes([byte]) + GENUINE[at + 1 :])) == 1
    except ValueError:
        return
