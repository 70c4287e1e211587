"""What a CA that permits some names permits, and that it permits nothing else."""

from __future__ import annotations

import pytest

from culvert.cli.ca.constraints import constrain, parse_permit, permits, permitted_by
from culvert.cli.ca.names import parse
from culvert.errors import ConfigurationError


@pytest.mark.parametrize(
    ("subtree", "good", "bad"),
    [
        (
            "example.com",
            ["example.com", "a.b.example.com", "*.example.com"],
            ["anexample.com", "*.example.net"],
        ),
        ("10.0.0.0/8", ["10.1.2.3"], ["11.0.0.1", "::ffff:10.0.0.1"]),
        ("2001:db8::/32", ["2001:db8::1"], ["2001:db9::1", "10.0.0.1"]),
        ("10.0.0.5", ["10.0.0.5"], ["10.0.0.6"]),
        ("@example.com", ["a@example.com"], ["a@b.example.com", "a@other.com"]),
        ("@.example.com", ["a@b.example.com"], ["a@example.com"]),
        ("a@example.com", ["a@example.com"], ["b@example.com", "A@example.com"]),
        ("//example.com", ["spiffe://example.com/a", "https://example.com:1/"], ["spiffe://b.example.com"]),
        ("//.example.com", ["spiffe://b.example.com"], ["spiffe://example.com", "urn:a:b"]),
    ],
)
def test_a_subtree_permits_what_is_in_it_alone(subtree: str, good: list[str], bad: list[str]) -> None:
    constraints = constrain([parse_permit(subtree)])
    assert [name for name in good if not permits(constraints, parse(name))] == []
    assert [name for name in bad if permits(constraints, parse(name))] == []
    assert permitted_by(constraints) == ["10.0.0.5/32" if subtree == "10.0.0.5" else subtree]


@pytest.mark.parametrize("subtree", ["example.com", "10.0.0.0/8", "@example.com", "//example.com"])
def test_a_kind_that_was_not_mentioned_is_closed(subtree: str) -> None:
    constraints = constrain([parse_permit(subtree)])
    elsewhere = ["elsewhere.net", "192.0.2.1", "2001:db8::1", "a@elsewhere.net", "spiffe://elsewhere.net/a"]
    assert [name for name in elsewhere if permits(constraints, parse(name))] == []


def test_subtrees_add_up() -> None:
    constraints = constrain(parse_permit(text) for text in ("example.com", "example.net", "10.0.0.0/8"))
    assert all(permits(constraints, parse(name)) for name in ("a.example.com", "example.net", "10.0.0.1"))


@pytest.mark.parametrize(
    "text", ["", ".example.com", "*.example.com", "10.0.0.1/8", "@", "//", "a b", "spiffe://a"]
)
def test_what_is_no_subtree_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot be permitted: expected a domain"):
        parse_permit(text)
