"""What rules on identity need in the rest of their service."""

from __future__ import annotations

import pytest

from culvert import config
from culvert.config import VerifyPolicy

from .reading import CLIENT, SERVER, errors, findings, service

TRUST = "CAfile = ca.pem\n"
PIN = f"allowSPKI = {'ab' * 32}\n"
NAMES = {
    "allowCN": "a",
    "allowOU": "a",
    "allowDNS": "a.example",
    "allowURI": "spiffe://a.example/a",
    "allowEmail": "a@a.example",
    "allowIP": "192.0.2.1",
}


@pytest.mark.parametrize("option", NAMES)
def test_a_name_needs_somebody_who_vouches_for_it(option: str) -> None:
    rule = f"{option} = {NAMES[option]}"
    complaint = f'"{option}" needs "verifyChain = yes" or "verifyPeer = yes"'
    for settings in ("", "verify = 0\n", "requireCert = yes\n", PIN):
        lines = f"[a]\n{SERVER}{TRUST}{settings}{rule}"
        assert errors(lines) == [f"{lines.count(chr(10)) + 1}: {complaint}"]
    for settings in ("verifyChain = yes\n", "verifyPeer = yes\n", "verify = 2\n", "verify = 4\n"):
        assert findings(f"[a]\n{SERVER}{TRUST}{settings}{rule}") == []


@pytest.mark.parametrize("role", [SERVER, CLIENT])
def test_a_pin_needs_no_authority_and_asks_for_a_certificate(role: str) -> None:
    assert findings(f"[a]\n{role}{PIN}") == []
    assert service(role + PIN).verify == VerifyPolicy(request=True, require=True, chain=False, peer=False)


@pytest.mark.parametrize("option", NAMES)
def test_a_rule_names_the_server_of_a_client(option: str) -> None:
    assert findings(f"[a]\n{CLIENT}{TRUST}verifyChain = yes\n{option} = {NAMES[option]}") == []


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ("verifyChain = yes\nrequireCert = no\n", '7: "requireCert = no"'),
        ("requireCert = no\n", '6: "requireCert = no"'),
        ("verify = 1\n", '6: "verify = 1"'),
    ],
)
def test_nobody_may_come_without_a_certificate(settings: str, named: str) -> None:
    (error,) = errors(f"[a]\n{SERVER}{TRUST}{settings}{PIN}")
    assert error.startswith(f"{named} admits a peer without a certificate")


def test_verify_1_that_requires_a_certificate() -> None:
    assert findings(f"[a]\n{SERVER}{TRUST}verify = 1\nrequireCert = yes\nallowCN = a") == []


def test_a_pre_shared_key_must_be_there() -> None:
    assert errors(f"[a]\n{SERVER}{PIN}allowPSK = a") == ['6: "allowPSK" needs "PSKsecrets"']


def test_the_same_rule_twice() -> None:
    verified = f"{SERVER}{TRUST}verifyChain = yes\n"
    assert errors(f"[a]\n{verified}allowDNS = a.example\nallowDNS = A.Example") == [
        '8: "allowDNS" has this value already at test.conf:7'
    ]
    assert errors(f"allowCN = a\n[a]\n{verified}allowCN = a") == [
        '8: "allowCN" has this value already at test.conf:1'
    ]
    assert findings(f"[a]\n{verified}allowCN = a\nallowOU = a") == []


def test_rules_above_the_sections_are_every_services() -> None:
    other = CLIENT.replace("accept = 1", "accept = 3")
    text = f"{TRUST}verifyChain = yes\nallowCN = a\n[one]\n{SERVER}allowCN = b\n[two]\n{other}"
    one, two = config.loads(text, "test.conf").services
    assert [str(rule) for rule in one.allow] == ["allowCN = a", "allowCN = b"]
    assert [str(rule) for rule in two.allow] == ["allowCN = a"]


def test_a_faulty_rule_has_its_own_error_alone() -> None:
    assert len(errors(f"[a]\n{SERVER}allowIP = nowhere")) == 1
