"""The CA's folder: who may read what, what is never overwritten, and several runs at once."""

from __future__ import annotations

import datetime
import os
import stat
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from culvert.cli.ca.authority import Authority, KeyKind, Purpose, Request, Revocation, generate_key, key_pem
from culvert.cli.ca.delivery import Delivery
from culvert.cli.ca.files import PUBLIC, SECRET, create, replace
from culvert.cli.ca.index import Entry
from culvert.cli.ca.names import parse
from culvert.cli.ca.store import Store
from culvert.errors import ConfigurationError
from culvert.tls.credentials import PassPhrases

NOW = datetime.datetime.now(datetime.UTC)
DAY = datetime.timedelta(days=1)


def refuse_to_ask(path: str) -> bytes:
    raise OSError("nobody to ask")


PHRASES = PassPhrases(refuse_to_ask)


def make_authority() -> Authority:
    return Authority.create(None, generate_key(KeyKind.ECDSA), DAY, NOW)


@pytest.fixture(autouse=True)
def open_umask() -> Iterator[None]:
    """Nothing but the code itself keeps a file closed."""
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.create(tmp_path / "ca", make_authority(), None)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_only_the_key_is_secret_and_nothing_is_open_to_writers(store: Store) -> None:
    assert mode(store.key_path) == 0o600
    assert mode(store.folder) == 0o755
    assert mode(store.certificate_path) == 0o644
    assert [path for path in store.folder.rglob("*") if mode(path) & 0o022] == []


def test_a_key_is_never_in_a_file_that_others_can_open(tmp_path: Path) -> None:
    """A file's mode at the moment it appears is what open(2) gave it."""
    (tmp_path / "there").touch(mode=0o666)
    with pytest.raises(ConfigurationError, match="exists already"):
        create(tmp_path / "there", b"secret", SECRET)
    assert (tmp_path / "there").read_bytes() == b""
    replace(tmp_path / "there", b"secret", SECRET)
    assert mode(tmp_path / "there") == 0o600


def test_a_failed_replacement_leaves_the_old_file_alone(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(ConfigurationError, match=r"Cannot write .*folder"):
        replace(tmp_path / "folder", b"new", PUBLIC)
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_a_link_is_not_followed_to_a_new_file(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigurationError, match="exists already"):
        create(tmp_path / "link", b"secret", SECRET)
    assert not (tmp_path / "elsewhere").exists()


def test_a_new_ca_overwrites_nothing(store: Store) -> None:
    before = store.key_path.read_bytes()
    with pytest.raises(ConfigurationError, match="is not empty, and is left as it is"):
        Store.create(store.folder, make_authority(), None)
    assert store.key_path.read_bytes() == before


def test_a_folder_that_is_empty_can_become_a_ca(tmp_path: Path) -> None:
    Store.create(tmp_path, make_authority(), None)
    assert Store.open(tmp_path).index().entries == []


def test_what_cannot_be_made_or_found_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"There is no CA in .*none \(make one"):
        Store.open(tmp_path / "none")
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "missing" / "ca"):
        with pytest.raises(ConfigurationError, match=f"Cannot (make|use) {folder}"):
            Store.create(folder, make_authority(), None)


def test_the_ca_comes_back_from_its_folder(store: Store) -> None:
    authority = store.authority(PHRASES)
    assert authority.certificate == store.certificate()


def test_an_encrypted_key_opens_with_its_pass_phrase_alone(tmp_path: Path) -> None:
    store = Store.create(tmp_path / "ca", make_authority(), b"open sesame")
    assert b"ENCRYPTED" in store.key_path.read_bytes()
    store.authority(PassPhrases(lambda _path: b"open sesame"))
    with pytest.raises(ConfigurationError, match=r"ca\.key stays locked: wrong pass phrase 3 times"):
        store.authority(PassPhrases(lambda _path: b"wrong"))
    with pytest.raises(ConfigurationError, match=r"ca\.key stays locked: nobody to ask"):
        store.authority(PHRASES)


def test_a_broken_ca_is_named_by_its_file(store: Store) -> None:
    other = key_pem(generate_key(KeyKind.ECDSA))
    for content, words in ((other, "does not belong to"), (b"", "Cannot use the key in .*ca.key")):
        store.key_path.write_bytes(content)
        with pytest.raises(ConfigurationError, match=words):
            store.authority(PHRASES)
    (store.folder / "index.json").write_text("{}")
    with pytest.raises(ConfigurationError, match=r"index\.json is damaged"):
        store.index()
    store.certificate_path.write_text("")
    with pytest.raises(ConfigurationError, match=r"ca\.pem is no certificate"):
        store.certificate()


def test_concurrent_changes_are_all_kept(store: Store) -> None:
    def work(number: int) -> None:
        for step in range(5):
            with Store.open(store.folder).change() as index:
                index.entries.append(Entry(100 * number + step, ("a",), Purpose.BOTH, NOW))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len({entry.serial for entry in store.index().entries}) == 20


def test_a_change_that_fails_changes_nothing(store: Store) -> None:
    def fail() -> None:
        with store.change() as index:
            index.crl_number = 99
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert store.index().crl_number == 0


def test_the_number_of_the_list_grows_also_where_a_list_was_not_made(store: Store) -> None:
    authority = store.authority(PHRASES)
    numbers = []

    def sign(number: int, revocations: Iterable[Revocation]) -> x509.CertificateRevocationList:
        numbers.append(number)
        return authority.revocation_list(number, revocations, DAY, NOW)

    def fail(_number: int, _revocations: object) -> x509.CertificateRevocationList:
        raise KeyError

    for _ in range(2):
        store.renew_crl(sign)
        with pytest.raises(KeyError):
            store.renew_crl(fail)
    assert numbers == [1, 3]
    crl = store.crl()
    assert crl is not None
    assert {path.read_bytes() for path in store.folder.glob("trust/*.r0")} == {crl.public_bytes(Encoding.PEM)}


@pytest.mark.parametrize("bundle", [False, True])
def test_what_is_handed_out_has_its_key_closed(tmp_path: Path, *, bundle: bool) -> None:
    key = generate_key(KeyKind.ECDSA)
    certificate = make_authority().issue(Request((parse("a.example"),), Purpose.BOTH), key, NOW)
    for overwrite in (False, True):
        delivery = Delivery(tmp_path, "a.example", bundle, overwrite)
        delivery.assert_possible(tmp_path / "ca")
        delivery.write(certificate, key)
    secret = [path for path in tmp_path.iterdir() if b"PRIVATE KEY" in path.read_bytes()]
    assert [(path.name, mode(path)) for path in secret] == [
        ("a.example.pem" if bundle else "a.example.key", 0o600)
    ]
    with pytest.raises(ConfigurationError, match=r"exists already, and is left as it is \(--replace"):
        Delivery(tmp_path, "a.example", bundle, overwrite=False).assert_possible(tmp_path / "ca")


def test_nothing_is_handed_out_into_the_cas_own_folder(store: Store) -> None:
    for folder in (store.folder, store.folder / "trust"):
        with pytest.raises(ConfigurationError, match="is the CA's own folder"):
            Delivery(folder, "ca", bundle=False, overwrite=True).assert_possible(store.folder)
    with pytest.raises(ConfigurationError, match="is not a folder that is there"):
        Delivery(store.folder / "none", "a", bundle=False, overwrite=True).assert_possible(store.folder)
