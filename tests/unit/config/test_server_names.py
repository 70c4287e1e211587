"""`sni` lines: which patterns are one, which services can be named, and what is left to the primary."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from culvert import config
from culvert.address import HostPort
from culvert.config import Configuration
from culvert.config.model import ServerName, Transparent
from culvert.errors import ConfigurationError

from .reading import PATH, errors, findings, service

PRIMARY = "[main]\naccept = 1\nconnect = 2\ncert = main.pem\n"
"""Four lines; what follows begins with the fifth."""


def secondary(*patterns: str, more: str = "", name: str = "other") -> str:
    return f"[{name}]\ncert = {name}.pem\n{more}" + "".join(f"sni = {pattern}\n" for pattern in patterns)


def loaded(text: str) -> Configuration:
    return config.loads(text, PATH)


@pytest.mark.parametrize(
    ("written", "pattern"),
    [
        ("a.example", "a.example"),
        ("A.Example", "a.example"),
        ("a.example.", "a.example"),
        ("*.example", "*.example"),
        ("*.a-b.example", "*.a-b.example"),
        ("localhost", "localhost"),
        ("_sip.example", "_sip.example"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("192.0.2.1", "192.0.2.1"),
    ],
)
def test_patterns(written: str, pattern: str) -> None:
    _, other = loaded(PRIMARY + secondary(f"main:{written}")).services
    assert other.server_names == (ServerName("main", pattern),)
    assert other.sni is None


@pytest.mark.parametrize(
    "written",
    [
        "",
        "main",
        "main:",
        ":a.example",
        ":",
        "main:*",
        "main:*.",
        "main:**.example",
        "main:*.*.example",
        "main:a.*.example",
        "main:*a.example",
        "main:a..example",
        "main:.example",
        "main:-a.example",
        "main:a-.example",
        "main:a b.example",
        "main:a.example:443",
        "main:bücher.example",
        "main:a.example/",
    ],
)
def test_what_is_no_pattern(written: str) -> None:
    (error,) = errors(PRIMARY + secondary(written))
    assert error.startswith('7: "sni" takes ')
    assert f'SERVICE:PATTERN in server mode, not "{written}"' in error


def test_a_service_may_take_several_names_of_several_services() -> None:
    second = PRIMARY.replace("main", "second").replace("accept = 1", "accept = 3")
    patterns = ("main:a.example", "main:*.b.example", "second:a.example")
    *_, other = loaded(PRIMARY + second + secondary(*patterns)).services
    assert [f"{name.primary}:{name.pattern}" for name in other.server_names] == list(patterns)


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (secondary("nobody:a.example"), 'there is no service [nobody] for "sni" to take clients from'),
        (secondary("Main:a.example"), 'there is no service [Main] for "sni" to take clients from'),
        (
            secondary("other:a.example", more="accept = 3\nconnect = 4\n"),
            '"sni" names the service itself',
        ),
        (
            secondary("far:a.example") + "[far]\nclient = yes\naccept = 3\nconnect = 4\n",
            'service [far], which "sni" names, is no TLS server with an "accept"',
        ),
        (
            secondary("third:a.example") + secondary("main:b.example", name="third"),
            'service [third], which "sni" names, is no TLS server with an "accept"',
        ),
        (
            secondary("main:a.example") + secondary("main:A.EXAMPLE.", name="third"),
            "service [other] has this pattern already",
        ),
    ],
)
def test_what_cannot_hand_its_clients_on(lines: str, reason: str) -> None:
    found = errors(PRIMARY + lines)
    assert len(found) == 1
    assert found[0].endswith(f": {reason}")


def test_one_pattern_may_stand_at_two_primaries() -> None:
    second = PRIMARY.replace("main", "second").replace("accept = 1", "accept = 3")
    text = PRIMARY + second + secondary("main:a.example") + secondary("second:a.example", name="third")
    assert len(loaded(text).services) == 4


def test_a_faulty_accept_of_the_primary_has_its_own_error_alone() -> None:
    text = PRIMARY.replace("accept = 1", "accept = 99999") + secondary("main:a.example")
    assert errors(text) == ['2: "accept" takes a port from 0 to 65535, not "99999"']


def test_a_service_without_a_target_has_its_primarys() -> None:
    main, other = loaded(PRIMARY + secondary("main:a.example")).services
    assert other.accept is None
    assert other.connect == main.connect == (HostPort(None, 2),)
    assert (other.cert, main.cert) == ("other.pem", "main.pem")


def test_a_service_with_a_target_keeps_it() -> None:
    _, other = loaded(PRIMARY + secondary("main:a.example", more="connect = 3\n")).services
    assert other.connect == (HostPort(None, 3),)
    _, other = loaded(PRIMARY + secondary("main:a.example", more="exec = /bin/cat\n")).services
    assert (other.connect, other.exec, other.exec_args) == ((), "/bin/cat", ("/bin/cat",))


def test_a_program_is_handed_down_with_all_that_belongs_to_it() -> None:
    program = "exec = /bin/cat\nexecArgs = cat -u\npty = yes"
    main, other = loaded(PRIMARY.replace("connect = 2", program) + secondary("main:a.example")).services
    assert (other.exec, other.exec_args, other.pty) == (main.exec, main.exec_args, main.pty)
    assert (other.exec_args, other.pty) == (("cat", "-u"), True)


def test_the_primary_may_stand_below() -> None:
    other, main = loaded(secondary("main:a.example") + PRIMARY).services
    assert other.connect == main.connect


def test_a_client_asks_for_a_name() -> None:
    client = "client = yes\naccept = 1\nconnect = 2\n"
    assert service(f"{client}sni = a.example").sni == "a.example"
    assert service(f"{client}sni =").sni == ""
    assert errors(f"[c]\n{client}sni = main:a.example") == [
        '5: "sni" takes a host name or nothing in client mode, not "main:a.example"'
    ]
    assert findings(f"[c]\n{client}CAfile = a\nverifyPeer = yes\nsni = a.example") == []


@given(st.text(max_size=30).filter(lambda text: "\n" not in text))
@settings(max_examples=300, deadline=None)
def test_any_text_is_a_pattern_or_an_error(text: str) -> None:
    try:
        _, other = loaded(PRIMARY + secondary(f"main:{text}")).services
    except ConfigurationError:
        return
    (name,) = other.server_names
    assert name.pattern.isascii()
    assert name.pattern == name.pattern.lower() != ""


@pytest.mark.parametrize(
    "end", ["connect = 2\nproxyProtocol = v1", "exec = /bin/cat", "transparent = destination"]
)
def test_a_socks_proxy_takes_no_end_of_its_primary(end: str) -> None:
    """Its clients would get the program, or their targets a PROXY header."""
    primary = f"[main]\naccept = 1\ncert = main.pem\n{end}\n"
    _, proxy = loaded(primary + secondary("main:a.example", more="protocol = socks\n")).services
    assert (proxy.connect, proxy.exec, proxy.proxy.send) == ((), None, None)
    assert proxy.transparent is Transparent.NONE


def test_a_protocol_comes_from_the_primary_with_what_it_offers_by_alpn() -> None:
    """A psql that begins with TLS takes no server that does not choose its protocol."""
    primary = PRIMARY + "protocol = pgsql\n"
    _, other, own = loaded(
        primary + secondary("main:a.example") + secondary("main:b.example", more="alpn = h2\n", name="own")
    ).services
    assert (other.alpn, own.alpn) == (("postgresql",), ("h2",))


@pytest.mark.parametrize("way", ["source", "destination"])
def test_how_a_target_is_reached_cannot_be_changed_once_it_is(way: str) -> None:
    text = PRIMARY + "protocol = smtp\n" + secondary("main:a.example", more=f"transparent = {way}\n")
    (found,) = errors(text)
    assert '"transparent" cannot go with "sni" here' in found
