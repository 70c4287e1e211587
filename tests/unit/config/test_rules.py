"""What a configuration is told although each of its lines is right."""

from __future__ import annotations

import pytest

from .reading import CLIENT, SERVER, errors, findings

MITM = "1: Service [a] needs authentication to prevent MITM attacks"
TRUST = "CAfile = ca.pem\n"


def of_client(settings: str) -> list[str]:
    """Findings on a client whose server is verified as it should be; its settings start in line 8."""
    return findings(f"[a]\n{CLIENT}{TRUST}verifyChain = yes\ncheckHost = example.com\n{settings}")


def of_server(settings: str) -> list[str]:
    """Findings on a server; its settings start in line 6."""
    return findings(f"[a]\n{SERVER}{TRUST}{settings}")


def test_good_services_are_told_nothing() -> None:
    assert of_client("") == []
    assert of_server("") == []
    assert of_server("verifyChain = yes") == []
    assert of_server("verify = 3") == []


@pytest.mark.parametrize("settings", ["", "verify = 0", "verifyChain = no", "requireCert = yes"])
def test_client_that_verifies_nothing(settings: str) -> None:
    assert findings(f"[a]\n{CLIENT}{settings}") == [MITM]


@pytest.mark.parametrize("settings", ["verify = 1", "verify = 2", "verifyChain = yes"])
def test_client_that_takes_any_server_of_a_ca(settings: str) -> None:
    assert findings(f"[a]\n{CLIENT}{TRUST}{settings}") == [
        "6: Service [a] accepts whatever server its CAs have signed for: "
        'name the right one by "checkHost" or "checkIP"'
    ]


@pytest.mark.parametrize("settings", ["verify = 3", "verify = 4", "verifyPeer = yes"])
def test_client_that_knows_its_server(settings: str) -> None:
    assert findings(f"[a]\n{CLIENT}{TRUST}{settings}") == []


@pytest.mark.parametrize("settings", ["verify = 1", "verifyChain = yes\nrequireCert = no"])
def test_server_that_lets_in_clients_without_certificate(settings: str) -> None:
    (warning,) = of_server(settings)
    assert warning.endswith(": Service [a] lets in clients that show no certificate")


@pytest.mark.parametrize("settings", ["verify = 0", "requireCert = yes"])
def test_server_that_verifies_nothing_it_asks_for(settings: str) -> None:
    assert of_server(settings) == ["6: Service [a] asks its clients for a certificate and verifies none"]


@pytest.mark.parametrize(
    ("settings", "finding"),
    [
        ("sslVersionMin = TLSv1.1", 'TLSv1.1 is insecure, and OpenSSL speaks it at "securityLevel = 0" only'),
        ("sslVersion = TLSv1", 'TLSv1 is insecure, and OpenSSL speaks it at "securityLevel = 0" only'),
        ("securityLevel = 0", '"securityLevel = 0" permits broken algorithms and short keys'),
        (
            "options = ALLOW_UNSAFE_LEGACY_RENEGOTIATION",
            "unsafe renegotiation lets an attacker put data in front of a client's (CVE-2009-3555)",
        ),
        ("delay = yes\nfailover = rr", '"delay = yes" makes it "failover = prio"'),
        ("delay = yes\nfailover = leastconn", '"delay = yes" makes it "failover = prio"'),
        ("pty = yes", '"pty" has no effect without "exec"'),
        ("execArgs = a", '"execArgs" has no effect without "exec"'),
        ("retry = yes", '"retry" has no effect but on a service with "exec" and "connect"'),
        ("key = a.pem", '"key" has no effect without "cert"'),
        (
            "verify = 2",
            '"verify" is the old form of "verifyChain" and "verifyPeer", which count where both are set',
        ),
        ("delay = yes\ndelay = no", '"delay" is set at test.conf:8 already; this line counts'),
        ("OCSPflag = NOTIME", 'the flag "NOTIME" is for responders and does nothing here'),
        ("options = NO_SSLv2", 'OpenSSL knows the option "NO_SSLv2" and no longer heeds it'),
    ],
)
def test_finding_on_its_line(settings: str, finding: str) -> None:
    line = 8 + settings.count("\n")
    assert of_client(settings) == [f"{line}: {finding}"]


@pytest.mark.parametrize("setting", ["failover = rr", "healthCheck = 5"])
def test_what_is_about_targets_needs_one(setting: str) -> None:
    option = setting.partition(" ")[0]
    found = findings(f"[a]\naccept = 1\nexec = /bin/cat\ncert = a.pem\n{setting}")
    assert found == [f'5: "{option}" has no effect without "connect"']


def test_defaults_that_a_service_has_no_use_for_are_not_its_fault() -> None:
    assert findings("pty = yes\nretry = yes\nkey = a.pem\n[a]\n" + CLIENT + TRUST + "verifyPeer = yes") == []


@pytest.mark.parametrize("option", ["OCSP = http://ocsp.example.com", "OCSPaia = yes"])
def test_nothing_is_asked_about_a_certificate_that_nobody_verifies(option: str) -> None:
    name = option.partition(" ")[0]
    assert errors(f"[a]\n{CLIENT}{option}") == [
        f'5: "{name}" needs "verifyChain = yes" or "verifyPeer = yes"'
    ]


def test_a_server_may_ask_a_responder_about_itself_alone() -> None:
    (remark,) = of_server("OCSP = http://ocsp.example.com")
    assert "this server's own certificate alone" in remark


def test_faulty_line_does_not_make_others_faulty() -> None:
    assert errors("[a]\naccept = 99999\nconnect = 1\ncert =\nverifyChain = perhaps\ncheckHost = a") == [
        '2: "accept" takes a port from 0 to 65535, not "99999"',
        '4: "cert" takes the path of a file, not an empty value',
        '5: "verifyChain" takes yes or no, not "perhaps"',
    ]
    assert errors("[a]\naccept = 1\nconnect = 1\nclient = perhaps\nsni = a:b") == [
        '4: "client" takes yes or no, not "perhaps"'
    ]


def test_ends() -> None:
    for ends in ("accept = 1\nconnect = 1", "accept = 1\nexec = a", "connect = 1\nexec = a"):
        findings(f"[a]\ncert = a.pem\n{ends}")
    assert errors("[a]\nclient = yes\naccept = 1") == [
        '1: a service has two ends: "accept" with "connect" or "exec", or "exec" with "connect"; '
        'this one has only "accept"'
    ]


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        ("healthCheck = 5\nconnect = 2", '"healthCheck" has no effect without a [service] section'),
        ("failover = rr\nconnect = 2", '"failover = rr" has no effect without a [service] section'),
        ("retry = yes\nexec = /bin/cat", '"retry" has no effect without a [service] section'),
        ("[s]\naccept = 1\ntransparent = destination\nhealthCheck = 5", '"healthCheck" has no effect'),
        ("[s]\naccept = 1\nprotocol = socks\nfailover = rr", '"failover" has no effect'),
    ],
)
def test_what_watches_over_targets_has_no_effect_where_there_are_none(text: str, warning: str) -> None:
    assert any(warning in found for found in findings(f"{text}\ncert = server.pem\n"))


def test_what_a_client_is_redirected_to_can_be_watched_over() -> None:
    program = "[s]\naccept = 1\nexec = /bin/cat\ncert = server.pem\nverifyChain = yes\n"
    assert findings(f"{program}{TRUST}redirect = 3\nhealthCheck = 5\n") == []


def test_a_client_has_no_address_for_a_unix_socket_that_it_is_redirected_to() -> None:
    text = f"[s]\n{SERVER}{TRUST}verifyChain = yes\nredirect = /run/elsewhere\ntransparent = source\n"
    (found,) = errors(text)
    assert "a Unix socket has none" in found


@pytest.mark.parametrize("option", ["setuid", "setgid"])
def test_an_owner_is_for_a_unix_socket(option: str) -> None:
    (finding,) = findings(f"[a]\n{SERVER}{option} = daemon\n")
    assert finding.startswith(f'5: "{option}" has no effect here')
    assert findings(f"{option} = daemon\n[a]\n{SERVER}") == []
    assert findings(f"[a]\n{SERVER.replace('accept = 1', 'accept = /run/a')}{option} = daemon\n") == []


def test_what_services_share_is_said_once() -> None:
    second = SERVER.replace("accept = 1", "accept = 3")
    (finding,) = findings(f"sslVersionMin = TLSv1.1\n[a]\n{SERVER}[b]\n{second}")
    assert finding.startswith("1: TLSv1.1 is insecure")
