"""What a program asks `culvert.connect` for, as a service."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from culvert.address import HostPort
from culvert.client import trust
from culvert.client.arguments import Arguments
from culvert.errors import ConfigurationError

PLAIN = Arguments("db.example", 5433, "/ca.pem", None, None, (), None, True, {})


def test_the_server_is_verified_by_its_name() -> None:
    service = PLAIN.service()
    assert (service.client, service.verify.chain, service.check_host) == (True, True, ("db.example",))
    assert (service.connect, service.accept, service.delay) == ((HostPort("db.example", 5433),), None, True)


def test_an_address_is_looked_for_as_one() -> None:
    service = replace(PLAIN, host="2001:db8::1").service()
    assert (service.check_ip, service.check_host) == (("2001:db8::1",), ())
    assert service.connect == (HostPort("2001:db8::1", 5433),)


def test_another_name_is_sent_and_looked_for() -> None:
    service = replace(PLAIN, host="10.0.0.1", server_name="db.example").service()
    assert (service.sni, service.check_host, service.check_ip) == ("db.example", ("db.example",), ())


def test_a_check_of_the_program_s_own_takes_its_place() -> None:
    service = replace(PLAIN, options={"checkHost": ["a.example", "b.example"]}).service()
    assert service.check_host == ("a.example", "b.example")


def test_without_verification_nothing_is_looked_for() -> None:
    service = replace(PLAIN, verify=False, cafile=None).service()
    assert (service.verify.chain, service.check_host, service.ca_file) == (False, (), None)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"options": {"exec": "/bin/sh"}}, 'no option "exec" for a connection without a tunnel'),
        ({"options": {"TIMEOUTidle": "3"}}, 'no option "TIMEOUTidle"'),
        ({"options": {"protocol": "pgsql"}}, '"protocol" takes one of'),
        ({"options": {"protocol": "connect"}}, "the host is a proxy"),
        ({"options": {"ciphers": "x\nexec = /bin/sh"}}, '"ciphers" holds a control character'),
        ({"options": {"sslVersion": "TLSv9"}}, '"sslVersion" takes'),
        ({"cafile": "/ca\n[x]"}, '"CAfile" holds a control character'),
        ({"host": ""}, "the host is a name or an address"),
        ({"host": "a b"}, "the host is a name or an address"),
        ({"verify": False, "options": {"checkHost": "a"}}, '"checkHost" needs'),
    ],
)
def test_what_cannot_be_used_is_said(changes: dict[str, object], reason: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        replace(PLAIN, **changes).service()  # type: ignore[arg-type]
    assert reason in str(raised.value)


@given(
    st.text(max_size=40),
    st.text(max_size=40),
    st.sampled_from(["ciphers", "checkHost", "sni", "protocolHost"]),
)
def test_no_text_makes_another_service_of_it(host: str, value: str, option: str) -> None:
    try:
        service = replace(PLAIN, host=host, options={option: value}).service()
    except ConfigurationError:
        return
    assert (service.exec, service.ca_file, service.verify.chain) == (None, "/ca.pem", True)
    assert service.connect == (HostPort(host, 5433),)


def test_the_environment_names_whom_to_trust(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(trust.FILE_VARIABLE, "")
    monkeypatch.setenv(trust.FOLDER_VARIABLE, str(tmp_path))
    assert trust.trusted() == ("CApath", str(tmp_path))
    monkeypatch.setenv(trust.FILE_VARIABLE, "/some/ca.pem")
    assert trust.trusted() == ("CAfile", "/some/ca.pem")
