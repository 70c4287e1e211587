"""Certificates and keys from files: every form that works, every fault by option, line and path."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa, x25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from culvert.errors import ConfigurationError, Diagnostic
from culvert.tls.credentials import FILE_LIMIT, Credentials, PassPhrases, load

from ..identities import Identity, issue, write
from .ends import nobody_knows, service

ROOT = issue("root")
LEAF = issue("leaf", ROOT)


class Operator:
    """Answers questions for a pass phrase in order, and remembers which file they were about."""

    def __init__(self, *answers: bytes) -> None:
        self._answers = list(answers)
        self.asked: list[str] = []

    def __call__(self, path: str) -> bytes:
        self.asked.append(path)
        return self._answers.pop(0)


def loaded(*options: str, phrases: PassPhrases | None = None) -> Credentials:
    found = load(service(*options), phrases or PassPhrases(nobody_knows))
    assert found is not None
    return found


def refused(*options: str, phrases: PassPhrases | None = None) -> Diagnostic:
    with pytest.raises(ConfigurationError) as failure:
        loaded(*options, phrases=phrases)
    (finding,) = failure.value.diagnostics
    assert finding.location is not None
    assert "Traceback" not in str(finding)
    return finding


def is_leaf(found: Credentials, *above: Identity) -> bool:
    chain = (LEAF.certificate, *(identity.certificate for identity in above))
    return found.chain == chain and found.key.private_numbers() == LEAF.key.private_numbers()  # type: ignore[union-attr]


def test_a_client_needs_none() -> None:
    assert load(service(client=True), PassPhrases(nobody_knows)) is None


def test_one_file_holds_the_chain_and_the_key(tmp_path: Path) -> None:
    for content in (
        LEAF.cert_pem + ROOT.cert_pem + LEAF.key_pem(),
        LEAF.key_pem() + LEAF.cert_pem + ROOT.cert_pem,
        b"a comment\n" + LEAF.cert_pem + b"between\n" + LEAF.key_pem() + ROOT.cert_pem,
        (LEAF.cert_pem + LEAF.key_pem() + ROOT.cert_pem).replace(b"\n", b"\r\n"),
    ):
        path = write(tmp_path / "leaf.pem", content)
        assert is_leaf(loaded(f"cert = {path}"), ROOT)


def test_the_key_may_stand_in_a_file_of_its_own(tmp_path: Path) -> None:
    cert = write(tmp_path / "leaf.crt", LEAF.cert_pem)
    key = write(tmp_path / "leaf.key", LEAF.key_pem())
    assert is_leaf(loaded(f"cert = {cert}", f"key = {key}"))


def test_a_key_in_the_older_form_is_read(tmp_path: Path) -> None:
    older = LEAF.key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    parameters = b"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
    path = write(tmp_path / "leaf.pem", LEAF.cert_pem + parameters + older)
    assert is_leaf(loaded(f"cert = {path}"))


@pytest.mark.parametrize("form", [PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL])
def test_an_encrypted_key_asks_once_for_its_file(tmp_path: Path, form: PrivateFormat) -> None:
    locked = LEAF.key.private_bytes(Encoding.PEM, form, BestAvailableEncryption(b"open sesame"))
    path = write(tmp_path / "leaf.pem", LEAF.cert_pem + locked)
    operator = Operator(b"open sesame")
    phrases = PassPhrases(operator)
    for _ in range(3):
        assert is_leaf(loaded(f"cert = {path}", phrases=phrases))
    assert operator.asked == [str(path)]


@pytest.mark.parametrize("first", [b"wrong", b"", b"\xff\xfe", b"x" * 5000])
def test_a_wrong_pass_phrase_is_asked_for_again(tmp_path: Path, first: bytes) -> None:
    path = write(tmp_path / "leaf.pem", LEAF.cert_pem + LEAF.key_pem("right"))
    operator = Operator(first, b"right")
    assert is_leaf(loaded(f"cert = {path}", phrases=PassPhrases(operator)))
    assert len(operator.asked) == 2


def test_a_pass_phrase_that_stays_wrong_is_a_fault(tmp_path: Path) -> None:
    path = write(tmp_path / "leaf.pem", LEAF.cert_pem + LEAF.key_pem("right"))
    finding = refused(f"cert = {path}", phrases=PassPhrases(Operator(b"a", b"b", b"c")))
    assert "wrong pass phrase" in finding.message
    assert "right" not in finding.message.replace("wrong", "")


def test_a_pass_phrase_that_nobody_can_give_is_a_fault(tmp_path: Path) -> None:
    path = write(tmp_path / "leaf.pem", LEAF.cert_pem + LEAF.key_pem("right"))
    assert "stays locked" in refused(f"cert = {path}").message


@pytest.mark.parametrize("password", [None, "", "secret"])
def test_a_pkcs12_file_is_read(tmp_path: Path, password: str | None) -> None:
    path = write(tmp_path / "leaf.p12", LEAF.pkcs12(password) if password else LEAF.pkcs12())
    operator = Operator(*([password.encode()] if password else []))
    assert is_leaf(loaded(f"cert = {path}", phrases=PassPhrases(operator)))


def test_a_pkcs12_file_asks_again(tmp_path: Path) -> None:
    path = write(tmp_path / "leaf.p12", LEAF.pkcs12("secret"))
    operator = Operator(b"wrong", b"secret")
    phrases = PassPhrases(operator)
    for _ in range(2):
        assert is_leaf(loaded(f"cert = {path}", phrases=phrases))
    assert operator.asked == [str(path)] * 2


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "neither"),
        (b"nothing of the kind", "neither"),
        (b"\x30\x82\xff\xff", "neither"),
        (LEAF.certificate.public_bytes(Encoding.DER), "neither"),
        (LEAF.cert_pem, "no private key"),
        (LEAF.key_pem(), "neither"),
        (LEAF.cert_pem[:100] + LEAF.cert_pem[200:] + LEAF.key_pem(), "no certificate that can be read"),
        (LEAF.cert_pem + LEAF.key_pem()[:100] + LEAF.key_pem()[140:], "private key"),
        (LEAF.cert_pem + ROOT.key_pem(), "does not belong"),
        (ROOT.cert_pem + LEAF.cert_pem + LEAF.key_pem(), "wrong order"),
        (LEAF.cert_pem + LEAF.cert_pem + LEAF.key_pem(), "wrong order"),
    ],
)
def test_what_a_file_lacks_is_said_with_its_path(tmp_path: Path, content: bytes, words: str) -> None:
    path = write(tmp_path / "leaf.pem", content)
    finding = refused(f"cert = {path}")
    assert words in finding.message
    assert str(path) in finding.message
    assert finding.location is not None
    assert finding.location.text == f"cert = {path}"


def test_a_key_file_is_named_by_its_own_line(tmp_path: Path) -> None:
    cert = write(tmp_path / "leaf.crt", LEAF.cert_pem)
    key = write(tmp_path / "leaf.key", b"no key")
    finding = refused(f"cert = {cert}", f"key = {key}")
    assert finding.location is not None
    assert finding.location.text == f"key = {key}"
    assert str(key) in finding.message


@pytest.mark.parametrize("option", ["cert", "key"])
def test_a_file_that_cannot_be_read_is_said(tmp_path: Path, option: str) -> None:
    good = write(tmp_path / "leaf.pem", LEAF.cert_pem + LEAF.key_pem())
    lines = [f"cert = {good}"] if option == "key" else []
    finding = refused(*lines, f"{option} = {tmp_path / 'none'}")
    assert "No such file or directory" in finding.message
    assert finding.location is not None
    assert finding.location.text == f"{option} = {tmp_path / 'none'}"
    assert "Is a directory" in refused(*lines, f"{option} = {tmp_path}").message


def test_a_file_without_an_end_is_not_read_to_it(tmp_path: Path) -> None:
    assert str(FILE_LIMIT) in refused("cert = /dev/zero").message


def test_a_key_of_another_kind_is_refused(tmp_path: Path) -> None:
    key = x25519.X25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path = write(tmp_path / "leaf.pem", LEAF.cert_pem + key)
    assert "not use" in refused(f"cert = {path}").message


@pytest.mark.parametrize("key", [rsa.generate_private_key(65537, 2048), ed25519.Ed25519PrivateKey.generate()])
def test_a_key_of_another_algorithm_than_the_certificates_does_not_belong(
    tmp_path: Path, key: rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
) -> None:
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path = write(tmp_path / "leaf.pem", LEAF.cert_pem + pem)
    assert "does not belong" in refused(f"cert = {path}").message


def test_a_relative_path_that_leads_to_nothing_is_told_from_where() -> None:
    fault = refused("cert = missing.pem")
    assert fault.hint is not None
    assert str(Path.cwd()) in fault.hint
