"""What an OCSP answer proves: nothing, unless all of it holds."""

from __future__ import annotations

import datetime
from collections.abc import Callable

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509 import ocsp as rfc6960
from cryptography.x509.oid import AuthorityInformationAccessOID
from hypothesis import given, settings
from hypothesis import strategies as st

from culvert.tls import ocsp
from culvert.tls.ocsp import Answer, Doubt, Inquiry, OcspError, SignerRules

from ..identities import NOW, Identity, issue
from .certificates import SERVER_ONLY, certify, common_name
from .ocsp_answers import FOR_OCSP, HOUR, answer

CA = issue("ca")
OTHER_CA = issue("other ca")
NAMESAKE = issue("ca")
LEAF = certify(common_name("leaf"), issuer=CA)
OTHER_LEAF = certify(common_name("other leaf"), issuer=CA)
DELEGATE = certify(common_name("responder"), FOR_OCSP, issuer=CA)
RULES = SignerRules()
INQUIRY = Inquiry(LEAF.certificate, CA.certificate)
REVOKED = rfc6960.OCSPCertStatus.REVOKED
UNKNOWN = rfc6960.OCSPCertStatus.UNKNOWN


def judge(der: bytes, rules: SignerRules = RULES, nonce: bytes | None = None) -> Answer:
    return INQUIRY.judge(der, NOW, rules, nonce)


def doubt(der: bytes, rules: SignerRules = RULES, nonce: bytes | None = None) -> Doubt:
    with pytest.raises(OcspError) as caught:
        judge(der, rules, nonce)
    return caught.value.doubt


@pytest.mark.parametrize("by_key", [False, True])
@pytest.mark.parametrize("signer", [CA, DELEGATE], ids=["issuer", "delegate"])
def test_good(signer: Identity, by_key: bool) -> None:
    assert judge(answer(LEAF, CA, signer=signer, by_key=by_key)) == Answer(False, NOW + HOUR)


@pytest.mark.parametrize("algorithm", [hashes.SHA1(), hashes.SHA256(), hashes.SHA384(), hashes.SHA512()])
def test_the_certificate_is_found_by_any_hash(algorithm: hashes.HashAlgorithm) -> None:
    assert not judge(answer(LEAF, CA, algorithm=algorithm)).revoked


def test_revoked_with_time_and_reason() -> None:
    found = judge(answer(LEAF, CA, status=REVOKED))
    assert found == Answer(True, NOW + HOUR, NOW - 24 * HOUR, "keyCompromise")


def test_unknown() -> None:
    assert doubt(answer(LEAF, CA, status=UNKNOWN)) is Doubt.UNKNOWN


def test_another_certificate_of_the_same_issuer() -> None:
    assert doubt(answer(OTHER_LEAF, CA)) is Doubt.OTHER_CERTIFICATE


def test_the_same_serial_number_of_another_issuer() -> None:
    other = Inquiry(LEAF.certificate, NAMESAKE.certificate)
    with pytest.raises(OcspError) as caught:
        other.judge(answer(LEAF, CA), NOW, RULES)
    assert caught.value.doubt is Doubt.OTHER_CERTIFICATE


@pytest.mark.parametrize("by_key", [False, True])
def test_a_bad_signature_is_no_success(by_key: bool) -> None:
    der = answer(LEAF, CA, by_key=by_key)
    assert doubt(der[:-1] + bytes([der[-1] ^ 1])) is Doubt.SIGNATURE


def test_a_signature_in_the_issuers_name() -> None:
    assert doubt(answer(LEAF, CA, signer=NAMESAKE)) is Doubt.SIGNATURE


def test_a_signature_in_a_delegates_name() -> None:
    impostor = certify(common_name("responder"), FOR_OCSP)
    assert doubt(answer(LEAF, CA, signer=impostor, embed=DELEGATE)) is Doubt.SIGNATURE


def test_changing_any_part_of_an_answer_makes_it_worthless() -> None:
    der = answer(LEAF, CA, status=REVOKED)
    for position in range(0, len(der), 3):
        changed = der[:position] + bytes([der[position] ^ 0x01]) + der[position + 1 :]
        try:
            assert judge(changed).revoked  # what is not signed may change, the verdict may not
        except OcspError:
            continue


def unauthorised() -> dict[str, Callable[[], Identity]]:
    return {
        "no usage": lambda: certify(common_name("responder"), issuer=CA),
        "another usage": lambda: certify(common_name("responder"), SERVER_ONLY, issuer=CA),
        "another CA": lambda: certify(common_name("responder"), FOR_OCSP, issuer=OTHER_CA),
        "a CA of the same name": lambda: certify(common_name("responder"), FOR_OCSP, issuer=NAMESAKE),
        "self-signed": lambda: certify(common_name("responder"), FOR_OCSP),
        "expired": lambda: certify(common_name("responder"), FOR_OCSP, issuer=CA, ends_in=-1),
        "not valid yet": lambda: certify(common_name("responder"), FOR_OCSP, issuer=CA, starts_in=1),
        "certified by the leaf": lambda: certify(common_name("responder"), FOR_OCSP, issuer=LEAF),
        "the leaf itself": lambda: LEAF,
        "another CA itself": lambda: OTHER_CA,
    }


@pytest.mark.parametrize("case", unauthorised())
def test_who_may_not_answer(case: str) -> None:
    assert doubt(answer(LEAF, CA, signer=unauthorised()[case]())) is Doubt.SIGNER


def test_a_delegate_that_the_answer_does_not_bring() -> None:
    assert doubt(answer(LEAF, CA, signer=DELEGATE, embed=OTHER_LEAF)) is Doubt.SIGNER


def test_a_signature_algorithm_that_is_not_on_the_list() -> None:
    assert doubt(answer(LEAF, CA, digest=hashes.SHA3_256())) is Doubt.SIGNATURE


@pytest.mark.parametrize(
    ("this_update", "next_update", "holds"),
    [
        (NOW + HOUR / 20, NOW + HOUR, True),
        (NOW + HOUR / 6, NOW + HOUR, False),
        (NOW - 2 * HOUR, NOW - HOUR / 20, True),
        (NOW - 2 * HOUR, NOW - HOUR / 6, False),
        (NOW - HOUR / 20, None, True),
        (NOW - 23 * HOUR, None, True),
        (NOW - 25 * HOUR, None, False),
    ],
)
def test_times(this_update: datetime.datetime, next_update: datetime.datetime | None, holds: bool) -> None:
    der = answer(LEAF, CA, this_update=this_update, next_update=next_update)
    if holds:
        assert not judge(der).revoked
    else:
        assert doubt(der) is Doubt.TIME


def test_nonce() -> None:
    assert not judge(answer(LEAF, CA, nonce=b"n" * 32), nonce=b"n" * 32).revoked
    assert doubt(answer(LEAF, CA, nonce=b"m" * 32), nonce=b"n" * 32) is Doubt.NONCE
    assert doubt(answer(LEAF, CA), nonce=b"n" * 32) is Doubt.NONCE
    assert doubt(answer(LEAF, CA, status=REVOKED), nonce=b"n" * 32) is Doubt.NONCE


def test_the_request_names_the_certificate_and_the_nonce() -> None:
    request = rfc6960.load_der_ocsp_request(INQUIRY.request(b"n" * 32))
    assert request.serial_number == LEAF.certificate.serial_number
    assert request.extensions.get_extension_for_class(x509.OCSPNonce).value.nonce == b"n" * 32
    assert not list(rfc6960.load_der_ocsp_request(INQUIRY.request()).extensions)


@pytest.mark.parametrize(
    "status", [s for s in rfc6960.OCSPResponseStatus if s is not rfc6960.OCSPResponseStatus.SUCCESSFUL]
)
def test_a_responder_that_refuses(status: rfc6960.OCSPResponseStatus) -> None:
    der = bytes([0x30, 3, 0x0A, 1, status.value])
    assert doubt(der) is Doubt.REFUSED


class TestFlags:
    """What OCSPflag changes."""

    def of(self, *flags: str) -> SignerRules:
        return SignerRules.of(flags, (DELEGATE_OF_NOBODY.certificate,))

    @pytest.mark.parametrize("flag", ["NOINTERN", "NODELEGATED"])
    def test_no_delegates(self, flag: str) -> None:
        assert doubt(answer(LEAF, CA, signer=DELEGATE), self.of(flag)) is Doubt.SIGNER
        assert not judge(answer(LEAF, CA), self.of(flag)).revoked

    def test_not_the_issuer(self) -> None:
        assert doubt(answer(LEAF, CA), self.of("NOCASIGN")) is Doubt.SIGNER
        assert not judge(answer(LEAF, CA, signer=DELEGATE), self.of("NOCASIGN")).revoked

    def test_a_trusted_signer(self) -> None:
        der = answer(LEAF, CA, signer=DELEGATE_OF_NOBODY)
        assert doubt(der, self.of()) is Doubt.SIGNER
        assert not judge(der, self.of("TRUSTOTHER")).revoked

    def test_a_bad_signature_in_a_trusted_signers_name(self) -> None:
        der = answer(LEAF, CA, signer=certify(common_name("own responder")))
        assert doubt(der, self.of("TRUSTOTHER")) is Doubt.SIGNATURE


DELEGATE_OF_NOBODY = certify(common_name("own responder"))


def test_an_answer_too_large_is_not_looked_at() -> None:
    assert doubt(b"\x30" * (ocsp.ANSWER_LIMIT + 1)) is Doubt.MALFORMED


VALID = answer(LEAF, CA, signer=DELEGATE, nonce=b"n" * 32)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_one_kind_of_error(data: bytes) -> None:
    assert doubt(data) is not Doubt.SIGNATURE


@settings(max_examples=500, deadline=None)
@given(
    st.integers(0, len(VALID) - 1),
    st.integers(0, 40),
    st.binary(max_size=20),
)
def test_an_answer_with_a_part_replaced_is_good_or_one_kind_of_error(
    start: int, length: int, replacement: bytes
) -> None:
    try:
        found = judge(VALID[:start] + replacement + VALID[start + length :])
    except OcspError:
        return
    assert found == Answer(False, NOW + HOUR)


def access(*urls: str) -> x509.AuthorityInformationAccess:
    return x509.AuthorityInformationAccess(
        [
            x509.AccessDescription(
                AuthorityInformationAccessOID.CA_ISSUERS, x509.UniformResourceIdentifier("http://ca/")
            ),
            *(
                x509.AccessDescription(
                    AuthorityInformationAccessOID.OCSP, x509.UniformResourceIdentifier(url)
                )
                for url in urls
            ),
        ]
    )


def test_the_responders_of_a_certificate_are_bounded_and_each_there_once() -> None:
    named = certify(common_name("leaf"), access("http://a/", "http://a/", "ldap://b/", *"cdefgh"), issuer=CA)
    assert ocsp.responders(named.certificate) == ["http://a/", "ldap://b/", "c"]
    assert ocsp.responders(LEAF.certificate) == []


@pytest.mark.parametrize(
    "next_update", [datetime.datetime(9999, 12, 31, 23, 59, 59, tzinfo=datetime.UTC), None]
)
def test_the_end_of_time(next_update: datetime.datetime | None) -> None:
    last = datetime.datetime(9999, 12, 31, 23, 59, 59, tzinfo=datetime.UTC)
    der = answer(LEAF, CA, this_update=last, next_update=next_update)
    assert doubt(der) in (Doubt.TIME, Doubt.MALFORMED)
