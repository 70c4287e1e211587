"""Which kind of name a text is, which is none, and what its files are called."""

from __future__ import annotations

from pathlib import PurePath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from culvert.cli.ca.names import describe, file_stem, parse
from culvert.errors import ConfigurationError


@pytest.mark.parametrize(
    ("text", "described"),
    [
        ("db.example.com", "DNS:db.example.com"),
        ("DB.Example.COM", "DNS:db.example.com"),
        ("*.example.com", "DNS:*.example.com"),
        ("localhost", "DNS:localhost"),
        ("client_1", "DNS:client_1"),
        ("bücher.example", "DNS:xn--bcher-kva.example"),
        ("10.0.0.1", "IP:10.0.0.1"),
        ("2001:db8:0::1", "IP:2001:db8::1"),
        ("o'neil+tunnel@Example.com", "email:o'neil+tunnel@example.com"),
        ("spiffe://example.com", "URI:spiffe://example.com"),
        ("spiffe://example.com/ns/prod/sa/db", "URI:spiffe://example.com/ns/prod/sa/db"),
        ("https://example.com:8443/a?b#c", "URI:https://example.com:8443/a?b#c"),
        (
            "urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6",
            "URI:urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6",
        ),
    ],
)
def test_a_name_is_of_the_kind_that_its_form_says(text: str, described: str) -> None:
    assert describe(parse(text)) == described


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "expected a DNS name"),
        ("two words", "expected a DNS name"),
        ("a\nb", "expected a DNS name"),
        ("-a.example.com", "expected a DNS name"),
        ("a..example.com", "expected a DNS name"),
        ("example.com.", "expected a DNS name"),
        ("a" * 64, "expected a DNS name"),
        (".".join(["a" * 60] * 5), "expected a DNS name"),
        ("host:443", "expected a DNS name"),
        ("../../etc/passwd", "expected a DNS name"),
        ("10.0.0.0/8", "expected a DNS name"),
        ("10.0.0.300", "looks like an IP address"),
        ("fe80::1%eth0", "zone"),
        ("*", "expected a DNS name"),
        ("*.com", "top-level domain"),
        ("a.*.example.com", "expected a DNS name"),
        ("w*.example.com", "expected a DNS name"),
        ("@example.com", "expected a DNS name"),
        ("alice@", "expected a DNS name"),
        ("alice@*.example.com", "expected a DNS name"),
        ("alice..b@example.com", "expected a DNS name"),
        ("http://[::1", "expected a DNS name"),
        ("http://example.com:99999/", "expected a DNS name"),
        ("http://exa mple.com/", "expected a DNS name"),
        ("http:///path", "expected a DNS name"),
        ("http://example.com/" + "a" * 2048, "expected a DNS name"),
        ("spiffe://Example.com/a", "SPIFFE"),
        ("spiffe://example.com:1/a", "SPIFFE"),
        ("spiffe://example.com/a/", "SPIFFE"),
        ("spiffe://example.com/a/../b", "SPIFFE"),
        ("spiffe://example.com/a?b", "SPIFFE"),
    ],
)
def test_what_is_no_name_is_refused_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse(text)
    assert str(caught.value).startswith(f'"{text}" cannot be the name in a certificate: ')
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    ("text", "stem"),
    [
        ("db.example.com", "db.example.com"),
        ("*.example.com", "_wildcard.example.com"),
        ("2001:db8::1", "2001_db8_1"),
        ("spiffe://example.com/a/b", "spiffe_example.com_a_b"),
        ("-rf@example.com", "_rf@example.com"),
        ("a/b@example.com", "a_b@example.com"),
        ("x://h/../../b", "x_h_.._.._b"),
    ],
)
def test_files_are_named_after_the_name(text: str, stem: str) -> None:
    assert file_stem(parse(text)) == stem


def test_long_names_that_begin_alike_have_files_of_their_own() -> None:
    stems = {file_stem(parse(f"spiffe://example.com/{'a' * 300}/{last}")) for last in "xy"}
    assert len(stems) == 2
    assert all(len(stem) < 150 for stem in stems)


@given(
    st.one_of(st.text(max_size=80), st.from_regex(r"[a-z./*@~:%\-]{1,40}|x://[!-~]{1,300}", fullmatch=True))
)
def test_any_text_is_refused_or_names_one_file_in_its_folder(text: str) -> None:
    try:
        name = parse(text)
    except ConfigurationError:
        return
    stem = file_stem(name)
    assert PurePath(stem).name == stem
    assert stem[0] not in "-."
    assert parse(str(name.value)) == name
