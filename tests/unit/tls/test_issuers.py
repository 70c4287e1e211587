"""Which certificate issued another one: by name and signature, from what is trusted, and remembered."""

from __future__ import annotations

from culvert.tls import issuers
from culvert.tls.issuers import Issuers

from ..identities import issue
from .certificates import certify, common_name

CA = issue("ca").certificate
ROOT = issue("root")
LEAF = certify(common_name("leaf"), issuer=ROOT).certificate


def test_a_trusted_issuer_is_found() -> None:
    assert Issuers([CA, ROOT.certificate]).find(LEAF) == ROOT.certificate


def test_the_name_alone_does_not_make_an_issuer() -> None:
    assert Issuers([issue("root").certificate]).find(LEAF) is None


def test_an_issuer_from_a_chain_is_remembered() -> None:
    known = Issuers([CA])
    assert known.find(LEAF) is None
    assert known.find(LEAF, [CA, ROOT.certificate]) == ROOT.certificate
    assert known.find(LEAF) == ROOT.certificate


def test_what_is_remembered_is_bounded() -> None:
    known = Issuers([])
    for number in range(issuers.REMEMBERED + 5):
        own = issue(f"ca {number}").certificate
        assert known.find(own, [own]) == own
    assert known.find(LEAF, [ROOT.certificate]) == ROOT.certificate
    assert len(known._remembered) == issuers.REMEMBERED
