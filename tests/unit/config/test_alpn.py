"""Lists of application protocols."""

from __future__ import annotations

import pytest

from .reading import SERVER, errors, service


@pytest.mark.parametrize(
    ("written", "names"),
    [
        ("h2", ("h2",)),
        ("h2,http/1.1", ("h2", "http/1.1")),
        ("h2 ,\thttp/1.1  acme-tls/1", ("h2", "http/1.1", "acme-tls/1")),
        ("a" * 255, ("a" * 255,)),
    ],
)
def test_list(written: str, names: tuple[str, ...]) -> None:
    assert service(f"{SERVER}alpn = {written}").alpn == names


def test_no_list() -> None:
    assert service(SERVER).alpn == ()


NAMES = "takes names of protocols such as h2, http/1.1, separated by commas or white space"


@pytest.mark.parametrize(
    ("written", "complaint"),
    [
        ("", NAMES),
        (",", NAMES),
        ("h2,", NAMES),
        ("h2,,http/1.1", NAMES),
        ("h2 # the newer one", NAMES),
        ('"h2"', NAMES),
        ("hé", NAMES),
        ("a" * 256, NAMES),
        ("h2 http/1.1 h2", "takes each protocol once"),
    ],
)
def test_what_is_no_list(written: str, complaint: str) -> None:
    (error,) = errors(f"[test]\n{SERVER}alpn = {written}")
    assert error.startswith(f'5: "alpn" {complaint}, not ')


def test_a_line_bounds_the_list() -> None:
    names = " ".join(f"{number:0255}" for number in range(60))
    assert len(service(f"{SERVER}alpn = {names}").alpn) == 60
    assert errors(f"[test]\n{SERVER}alpn = {names} {names}")[0].startswith("5: ")
