"""`config = COMMAND:VALUE`: each command is a line of the option that it stands for."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from culvert.config import TlsVersion
from culvert.config.commands import COMMAND, COMMANDS, Command
from culvert.config.tls_options import TLS_OPTIONS, TlsOption
from culvert.config.values import BadValue

from .reading import CLIENT, SERVER, errors, findings, service

NO_TICKET = TLS_OPTIONS["NO_TICKET"]
NO_SSLV3 = TLS_OPTIONS["NO_SSLv3"]


@pytest.mark.parametrize(
    ("written", "field", "value"),
    [
        ("CipherString:HIGH:!aNULL", "ciphers", "HIGH:!aNULL"),
        ("Ciphersuites:TLS_AES_128_GCM_SHA256", "ciphersuites", "TLS_AES_128_GCM_SHA256"),
        ("Curves:P-256:X25519", "curves", "P-256:X25519"),
        ("Groups:P-256", "curves", "P-256"),
        ("SignatureAlgorithms:ECDSA+SHA256", "signature_algorithms", "ECDSA+SHA256"),
        ("MinProtocol:TLSv1.3", "version_min", TlsVersion.TLS1_3),
        ("MaxProtocol:TLSv1.2", "version_max", TlsVersion.TLS1_2),
        ("MaxProtocol:none", "version_max", TlsVersion.TLS1_3),
        ("minprotocol:tlsv1.3", "version_min", TlsVersion.TLS1_3),
        ("  GROUPS :  P-256  ", "curves", "P-256"),
    ],
)
def test_what_a_command_sets(written: str, field: str, value: object) -> None:
    assert getattr(service(f"{CLIENT}config = {written}"), field) == value


def test_no_oldest_version_is_the_oldest_that_openssl_speaks() -> None:
    assert service(f"{CLIENT}config = MinProtocol:None").version_min == TlsVersion.TLS1


@pytest.mark.parametrize(
    ("option", "command", "field", "by_option", "by_command"),
    [
        ("ciphers = A", "CipherString:B", "ciphers", "A", "B"),
        ("ciphersuites = A", "Ciphersuites:B", "ciphersuites", "A", "B"),
        ("curves = A", "Groups:B", "curves", "A", "B"),
        (
            "sslVersionMax = TLSv1.3",
            "MaxProtocol:TLSv1.2",
            "version_max",
            TlsVersion.TLS1_3,
            TlsVersion.TLS1_2,
        ),
        ("sslVersion = TLSv1.2", "MinProtocol:TLSv1.1", "version_min", TlsVersion.TLS1_2, TlsVersion.TLS1_1),
    ],
)
def test_the_later_line_counts(
    *, option: str, command: str, field: str, by_option: object, by_command: object
) -> None:
    assert getattr(service(f"{CLIENT}{option}\nconfig = {command}"), field) == by_command
    assert getattr(service(f"{CLIENT}config = {command}\n{option}"), field) == by_option
    assert getattr(service(f"{CLIENT}config = {command}\nconfig = {command}"), field) == by_command


@pytest.mark.parametrize(
    ("written", "bits_set", "bits_clear"),
    [
        ("Options:SessionTicket", NO_SSLV3, NO_TICKET),
        ("Options:-SessionTicket", NO_SSLV3 | NO_TICKET, 0),
        ("Options:+SessionTicket", NO_SSLV3, NO_TICKET),
        ("options: -sessionticket , PrioritizeChaCha", None, 0),
        ("Options:NoRenegotiation", NO_SSLV3 | TLS_OPTIONS["NO_RENEGOTIATION"], 0),
        ("Options:-NoRenegotiation", NO_SSLV3, TLS_OPTIONS["NO_RENEGOTIATION"]),
        ("Options:SessionTicket,-SessionTicket", NO_SSLV3 | NO_TICKET, 0),
    ],
)
def test_switches(written: str, bits_set: int | None, bits_clear: int) -> None:
    """Those that OpenSSL's files name by what is allowed stand for the absence of a bit."""
    found = service(f"{CLIENT}config = {written}")
    both = NO_SSLV3 | NO_TICKET | TLS_OPTIONS["PRIORITIZE_CHACHA"]
    assert (found.options_set, found.options_clear) == (both if bits_set is None else bits_set, bits_clear)


def test_switches_and_options_are_one_sequence() -> None:
    assert service(f"{CLIENT}options = NO_TICKET\nconfig = Options:SessionTicket").options_clear == NO_TICKET
    assert service(f"{CLIENT}config = Options:SessionTicket\noptions = NO_TICKET").options_clear == 0


BINDING = "takes a command that the OpenSSL binding in use can carry out"


@pytest.mark.parametrize(
    ("written", "complaint", "hint"),
    [
        ("", BINDING, None),
        (":", BINDING, None),
        ("Certificate:/tmp/a.pem", BINDING, None),
        ("-CipherString:HIGH", BINDING, "CipherString"),
        ("CipherStrings:HIGH", BINDING, "CipherString"),
        ("CipherString", 'takes "CipherString:VALUE"', None),
        ("CipherString: ", 'takes "CipherString:VALUE"', None),
        ("MinProtocol:TLSv9", 'takes after "MinProtocol:" one of TLSv1, TLSv1.1, TLSv1.2, TLSv1.3', None),
        ("MinProtocol:all", 'takes after "MinProtocol:" one of', None),
        ("MaxProtocol:TLS1.2", 'takes after "MaxProtocol:" one of', "TLSv1.2"),
        ("Options:", 'takes "Options:VALUE"', None),
        ("Options:SessionTickets", 'takes after "Options:" names such as', "SessionTicket"),
        ("Options:SessionTicket,", 'takes after "Options:" names such as', None),
        ("Options:--SessionTicket", 'takes after "Options:" names such as', "SessionTicket"),
        ("Options:+-SessionTicket", 'takes after "Options:" names such as', "SessionTicket"),
        ("Options:NO_TICKET", 'takes after "Options:" names such as', None),
    ],
)
def test_what_is_no_command(written: str, complaint: str, hint: str | None) -> None:
    (error,) = errors(f"[test]\n{CLIENT}config = {written}")
    assert error.startswith(f'5: "config" {complaint}')
    assert hint is None or error.endswith(f'(did you mean "{hint}"?)')


def test_a_refused_command_spoils_no_rule_on_versions() -> None:
    assert len(errors(f"[test]\n{CLIENT}sslVersionMax = TLSv1.2\nconfig = MinProtocol:nonsense")) == 1


def test_versions_that_contradict_each_other_are_an_error() -> None:
    (error,) = errors(f"[test]\n{CLIENT}config = MaxProtocol:TLSv1.2\nconfig = MinProtocol:TLSv1.3")
    assert "TLSv1.3 (sslVersionMin), is newer than the newest, TLSv1.2" in error


def test_an_unsafe_switch_is_warned_about_as_its_option_is() -> None:
    told = "unsafe renegotiation lets an attacker put data in front of a client's (CVE-2009-3555)"
    lines = f"[test]\n{SERVER}"
    assert findings(f"{lines}options = ALLOW_UNSAFE_LEGACY_RENEGOTIATION") == [f"5: {told}"]
    assert findings(f"{lines}config = Options:SessionTicket,UnsafeLegacyRenegotiation") == [f"5: {told}"]
    assert findings(f"{lines}config = Options:-UnsafeLegacyRenegotiation") == []


def test_an_old_version_is_warned_about_as_its_option_is() -> None:
    (warning,) = findings(f"[test]\n{SERVER}config = MinProtocol:TLSv1.1")
    assert warning.startswith("5: TLSv1.1 is insecure")


def test_commands_above_the_sections_are_every_services() -> None:
    text = f"config = Groups:P-256\n[test]\n{SERVER}"
    assert findings(text) == []


WORDS = st.one_of(
    st.sampled_from([*COMMANDS, ":", ",", "-", "+", "TLSv1.2", "None", "SessionTicket", "AntiReplay", " "]),
    st.text(max_size=10),
)


@given(st.lists(WORDS, max_size=8).map("".join))
@settings(max_examples=500, deadline=None)
def test_any_text_is_a_command_or_one_kind_of_error(text: str) -> None:
    try:
        command = COMMAND.parse(text)
    except BadValue:
        return
    assert isinstance(command, Command)
    assert command.setting in COMMANDS.values()
    match command.value:
        case str(value):
            assert value == value.strip() != ""
        case tuple(options):
            assert options
            assert all(isinstance(option, TlsOption) for option in options)
        case other:
            assert other is None or isinstance(other, TlsVersion)
