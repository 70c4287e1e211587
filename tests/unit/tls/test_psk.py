"""Pre-shared keys: the file that has them, and handshakes in which both sides must have the same."""

from __future__ import annotations

import statistics
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from culvert.config.model import Service
from culvert.errors import Diagnostic, UnusableFileError
from culvert.tls import psk
from culvert.tls.credentials import FILE_LIMIT
from culvert.tls.psk import IDENTITY_LIMIT, KEY_LIMIT, KEY_MIN, Secrets

from ..identities import write
from .conftest import Authority
from .ends import TLS12, TLS13, End, Pair, context, service

VERSIONS = pytest.mark.parametrize("version", [TLS12, TLS13])

HEX = "00112233445566778899aabbccddeeff"
TEXT = "correct horse: battery"
OTHER = "ff" * 16


def configured(path: Path, *options: str, client: bool = False) -> Service:
    return service(f"PSKsecrets = {path}", *options, client=client)


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    """A file of two identities."""
    return write(tmp_path / "secrets", f"alice:{HEX}\nbob:{TEXT}\n".encode())


def loaded(path: Path, content: bytes | str, *options: str, client: bool = False) -> Secrets:
    data = content if isinstance(content, bytes) else content.encode()
    found = psk.load(configured(write(path, data), *options, client=client))
    assert found is not None
    return found


def refused(path: Path, content: bytes | str, *options: str, client: bool = False) -> Diagnostic:
    with pytest.raises(UnusableFileError) as caught:
        loaded(path, content, *options, client=client)
    (finding,) = caught.value.diagnostics
    assert finding.location is not None
    assert finding.service == "tunnel"
    return finding


class TestFile:
    """PSKsecrets."""

    def test_no_file_no_keys(self) -> None:
        assert psk.load(service(client=True)) is None

    def test_a_key_is_hexadecimal_or_text(self, secrets: Path) -> None:
        found = psk.load(configured(secrets))
        assert found is not None
        assert found.server_key(b"alice") == (bytes.fromhex(HEX), True)
        assert found.server_key(b"bob") == (TEXT.encode(), True)

    @pytest.mark.parametrize(
        ("written", "key"),
        [
            (HEX.upper(), bytes.fromhex(HEX)),
            (f"{HEX}0", f"{HEX}0".encode()),
            (f"{HEX} {HEX}", f"{HEX} {HEX}".encode()),
            (f"{HEX}\v{HEX}", f"{HEX}\v{HEX}".encode()),
            (f"{HEX}\f", f"{HEX}\f".encode()),
            ("ü" * 8, ("ü" * 8).encode()),
            ("ab" * KEY_LIMIT, b"\xab" * KEY_LIMIT),
            ("z" * KEY_MIN, b"z" * KEY_MIN),
        ],
    )
    def test_what_counts_as_hexadecimal(self, tmp_path: Path, written: str, key: bytes) -> None:
        assert loaded(tmp_path / "secrets", f"a:{written}\n").server_key(b"a") == (key, True)

    @pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
    def test_empty_lines_and_the_ends_of_lines_do_not_matter(self, tmp_path: Path, end: str) -> None:
        found = loaded(tmp_path / "secrets", end.join(["", f"a:{HEX}", "  ", f"b:{TEXT}"]))
        assert found.server_key(b"a")[0] == bytes.fromhex(HEX)
        assert found.server_key(b"b")[0] == TEXT.encode()

    @pytest.mark.parametrize(
        ("line", "reason"),
        [
            ("no colon", "IDENTITY:KEY is expected"),
            (f":{HEX}", "IDENTITY:KEY is expected"),
            ("a:", "a key has 16 bytes or more, which are 32 hexadecimal digits"),
            (f"a:{HEX[2:]}", "a key has 16 bytes or more, which are 32 hexadecimal digits"),
            (f"a:{'z' * (KEY_MIN - 1)}", "a key has 16 bytes or more, which are 32 hexadecimal digits"),
            (f"a:{'ab' * (KEY_LIMIT + 1)}", "a key has 256 bytes at most"),
            (f"{'a' * (IDENTITY_LIMIT + 1)}:{HEX}", "an identity has 128 bytes at most"),
            (f"first:{HEX}", "this identity is there already"),
            (f"a\0b:{HEX}", "an identity has no byte 0"),
        ],
    )
    @pytest.mark.parametrize("client", [True, False], ids=["client", "server"])
    def test_a_line_that_is_none_is_refused_by_its_number(
        self, tmp_path: Path, line: str, reason: str, client: bool
    ) -> None:
        path = tmp_path / "secrets"
        finding = refused(path, f"first:{HEX}\n\n{line}\nlast:{OTHER}\n", client=client)
        assert finding.message == f"{path}:3: {reason}"
        assert finding.location is not None
        assert finding.location.text == f"PSKsecrets = {path}"

    @pytest.mark.parametrize("identity", [b"J\xfcrg", b"bell\x07", "a\u202eb".encode()])
    def test_an_identity_that_a_server_would_never_take_is_refused(
        self, tmp_path: Path, identity: bytes
    ) -> None:
        """A client may need it, for a server that is not Culvert's."""
        path, line = tmp_path / "secrets", identity + b":" + HEX.encode()
        assert refused(path, line).message == f"{path}:1: a server takes identities of printable UTF-8 text"
        assert loaded(path, line, client=True).client_key() == (identity, bytes.fromhex(HEX))

    def test_no_key_is_said(self, tmp_path: Path) -> None:
        for line in (f"a {HEX}", f"first:{HEX[:-2]}", f"first:{HEX * 9}{HEX}x"):
            finding = refused(tmp_path / "secrets", f"first:{OTHER}\n{line}\n")
            assert HEX[:12] not in str(finding)

    @pytest.mark.parametrize("content", ["", "\n\n", " \r\n"])
    def test_a_file_without_a_key_is_refused(self, tmp_path: Path, content: str) -> None:
        path = tmp_path / "secrets"
        assert refused(path, content).message == (
            f"{path} has no pre-shared key: lines IDENTITY:KEY are expected"
        )

    def test_a_file_that_cannot_be_read_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(UnusableFileError, match="No such file"):
            psk.load(configured(tmp_path / "nowhere"))
        refused(tmp_path / "large", bytes(FILE_LIMIT + 1))

    def test_a_client_shows_the_first_identity_or_the_one_it_is_told(self, secrets: Path) -> None:
        for options, identity in (
            ((), b"alice"),
            (("PSKidentity = alice",), b"alice"),
            (("PSKidentity = bob",), b"bob"),
        ):
            found = psk.load(configured(secrets, *options, client=True))
            assert found is not None
            assert found.client_key()[0] == identity

    def test_an_identity_that_the_file_has_not_is_refused_by_its_line(self, secrets: Path) -> None:
        finding = refused(secrets, secrets.read_bytes(), "PSKidentity = mallory", client=True)
        assert finding.message == f"{secrets} has no key for the identity of 'PSKidentity'"
        assert finding.location is not None
        assert finding.location.text == "PSKidentity = mallory"

    @pytest.mark.parametrize(("mode", "open_to_others"), [(0o600, False), (0o400, False), (0o640, True)])
    def test_a_file_that_others_can_read_is_warned_about(
        self, secrets: Path, mode: int, open_to_others: bool
    ) -> None:
        secrets.chmod(mode)
        warning = psk.openness(configured(secrets))
        assert (warning is not None) is open_to_others
        assert warning is None or f"{mode:04o}" in warning

    def test_there_is_nothing_to_warn_of_without_a_file(self, tmp_path: Path) -> None:
        assert psk.openness(service(client=True)) is None
        assert psk.openness(configured(tmp_path / "nowhere")) is None


LINES = st.one_of(
    st.binary(max_size=60),
    st.sampled_from([b"a", b"alice:", b":", HEX.encode(), b"\r", b"\n", b"alice:" + HEX.encode()]),
)


@given(content=st.lists(LINES, max_size=6).map(b"\n".join), client=st.booleans())
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_keys_within_limits_or_one_kind_of_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, client: bool
) -> None:
    path = tmp_path_factory.getbasetemp() / "any"
    try:
        found = loaded(path, content, client=client)
    except UnusableFileError:
        return
    identity, key = found.client_key()
    assert 0 < len(identity) <= IDENTITY_LIMIT
    assert KEY_MIN <= len(key) <= KEY_LIMIT
    assert found.server_key(identity) == (key, True)


@given(st.dictionaries(st.text("abcé. @/", min_size=1, max_size=20), st.binary(min_size=16, max_size=256)))
@settings(max_examples=100, deadline=None)
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, keys: dict[str, bytes]) -> None:
    path = tmp_path_factory.getbasetemp() / "written"
    lines = [f"{identity}:{key.hex()}" for identity, key in keys.items()]
    if not lines:
        return
    found = loaded(path, "\n".join(lines))
    assert {name: found.server_key(name.encode()) for name in keys} == {
        name: (key, True) for name, key in keys.items()
    }
    assert found.client_key()[0].decode() == next(iter(keys))


class TestDecoy:
    """What a server does with an identity that it does not know."""

    def test_its_key_is_nobodys_and_always_the_same(self, secrets: Path) -> None:
        found, other = psk.load(configured(secrets)), psk.load(configured(secrets))
        assert found is not None
        assert other is not None
        key, known = found.server_key(b"mallory")
        assert not known
        assert found.server_key(b"mallory") == (key, False)
        assert len({key, found.server_key(b"mallorz")[0], other.server_key(b"mallory")[0]}) == 3
        assert len(key) >= KEY_MIN

    def test_it_costs_what_a_known_one_costs(self, secrets: Path) -> None:
        """Medians of many turns, in turn: an early return would be several times as fast."""
        found = psk.load(configured(secrets))
        assert found is not None
        spent: dict[bytes, list[int]] = {b"alice": [], b"mallo": []}
        for _ in range(2000):
            for identity, times in spent.items():
                started = time.perf_counter_ns()
                found.server_key(identity)
                times.append(time.perf_counter_ns() - started)
        known, unknown = (statistics.median(times) for times in spent.values())
        assert 0.5 < known / unknown < 2


def pair(
    tmp_path: Path, version: str, client: list[str], server: list[str], client_key: str = f"alice:{HEX}"
) -> Pair:
    """A handshake of a client that has one key with a server that has alice's and bob's."""
    ours = write(tmp_path / "client", f"{client_key}\n".encode())
    theirs = write(tmp_path / "server", f"alice:{HEX}\nbob:{TEXT}\n".encode())
    return Pair(
        context(version, f"PSKsecrets = {ours}", *client, client=True),
        context(version, f"PSKsecrets = {theirs}", *server),
    ).shake_hands()


def findings(end: End) -> list[str]:
    return [finding.text for finding in end.findings]


@VERSIONS
class TestHandshake:
    """Both ends."""

    @pytest.mark.parametrize("known", [f"alice:{HEX}", f"bob:{TEXT}"])
    def test_who_has_the_key_passes_and_is_named(self, tmp_path: Path, version: str, known: str) -> None:
        done = pair(tmp_path, version, [], [], known)
        assert done.accepted, (done.client.failure, done.server.failure)
        assert psk.proven(done.client.engine)
        assert psk.proven(done.server.engine)
        identity = known.partition(":")[0]
        assert findings(done.server) == findings(done.client) == [f"PSK identity: {identity}"]
        assert done.carry(done.client, done.server, b"question") == b"question"
        assert done.carry(done.server, done.client, b"answer") == b"answer"

    @pytest.mark.parametrize("length", [KEY_MIN, 32, 64, KEY_LIMIT])
    def test_keys_of_every_length(self, tmp_path: Path, version: str, length: int) -> None:
        path = write(tmp_path / "secrets", f"{'i' * IDENTITY_LIMIT}:{'7f' * length}".encode())
        option = f"PSKsecrets = {path}"
        assert Pair(context(version, option, client=True), context(version, option)).shake_hands().accepted

    def test_a_wrong_key_and_an_unknown_identity_end_alike(self, tmp_path: Path, version: str) -> None:
        failures = []
        for known in (f"alice:{OTHER}", f"mallory:{OTHER}", f"mallory:{HEX}"):
            done = pair(tmp_path, version, [], [], known)
            assert not done.accepted
            assert not findings(done.server)
            failures.append((str(done.client.failure), str(done.server.failure)))
        assert len(set(failures)) == 1

    def test_a_certificate_does_not_stand_for_the_key(
        self, authority: Authority, secrets: Path, version: str
    ) -> None:
        """A client that verifies no certificate would take anybody's."""
        client = context(version, f"PSKsecrets = {secrets}", client=True)
        done = Pair(client, context(version, authority.server_cert)).shake_hands()
        assert not done.accepted
        assert not done.server.finished or done.client.failure is not None

    def test_a_certificate_that_is_verified_does(
        self, authority: Authority, secrets: Path, version: str
    ) -> None:
        options = (f"PSKsecrets = {secrets}", authority.trust, "verifyChain = yes")
        client = context(version, *options, client=True)
        assert Pair(client, context(version, authority.server_cert)).shake_hands().accepted

    def test_a_client_without_keys_does_not_pass_where_there_are_only_keys(
        self, secrets: Path, version: str
    ) -> None:
        server = context(version, f"PSKsecrets = {secrets}")
        assert not Pair(context(version, client=True), server).shake_hands().accepted

    def test_rules_know_the_identity(self, tmp_path: Path, version: str) -> None:
        allowed = ["allowPSK = alice"]
        passes = pair(tmp_path, version, [], allowed)
        assert passes.accepted
        assert findings(passes.server) == ["Identity accepted by allowPSK: PSK:alice"]
        stays = pair(tmp_path, version, [], allowed, f"bob:{TEXT}")
        assert str(stays.server.failure) == "no allow rule lets the pre-shared key identity bob pass"

    def test_a_certificate_passes_no_rule_for_keys(
        self, authority: Authority, tmp_path: Path, version: str
    ) -> None:
        secrets = write(tmp_path / "secrets", f"alice:{HEX}".encode())
        server = context(version, f"PSKsecrets = {secrets}", authority.server_cert, "allowPSK = alice")
        for shown in ((), (authority.client_cert,)):
            done = Pair(context(version, *shown, client=True), server).shake_hands()
            assert done.server.failure is not None
            assert not done.accepted

    def test_keys_and_verified_certificates_stand_side_by_side(
        self, authority: Authority, secrets: Path, version: str
    ) -> None:
        both = (authority.server_cert, authority.trust, "verifyChain = yes", f"PSKsecrets = {secrets}")
        server = context(version, *both)
        for shown, passes in ((f"PSKsecrets = {secrets}", True), (authority.client_cert, True), ("", False)):
            done = Pair(context(version, shown, client=True), server).shake_hands()
            assert done.accepted is passes, (shown, done.server.failure)
            assert not passes or psk.proven(done.server.engine) is shown.startswith("PSK")

    def test_an_identity_that_is_no_text_has_no_key(self, tmp_path: Path, version: str) -> None:
        path = write(tmp_path / "client", b"\xff\xfe:" + HEX.encode())
        server = context(version, f"PSKsecrets = {write(tmp_path / 'server', f'alice:{HEX}'.encode())}")
        client = context(version, f"PSKsecrets = {path}", client=True)
        done = Pair(client, server).shake_hands()
        assert not done.accepted
        assert done.server.failure is not None
