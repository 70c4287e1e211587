"""URLs of OCSP responders, which a peer's certificate may name: parsed strictly."""

from __future__ import annotations

import pytest

from culvert.address import URL_LENGTH_LIMIT, HttpUrl


@pytest.mark.parametrize(
    ("text", "url", "shown"),
    [
        ("http://ocsp.example.com", HttpUrl("ocsp.example.com", 80, "/"), "http://ocsp.example.com/"),
        ("HTTP://a/B?c=d", HttpUrl("a", 80, "/B?c=d"), "http://a/B?c=d"),
        ("http://127.0.0.1:8080/ocsp/", HttpUrl("127.0.0.1", 8080, "/ocsp/"), "http://127.0.0.1:8080/ocsp/"),
        ("http://[::1]:65535/", HttpUrl("::1", 65535, "/"), "http://[::1]:65535/"),
    ],
)
def test_good(text: str, url: HttpUrl, shown: str) -> None:
    assert HttpUrl.parse(text) == url
    assert str(url) == shown
    assert HttpUrl.parse(shown) == url


@pytest.mark.parametrize(
    "text",
    [
        "",
        "http://",
        "https://a/",
        "ldap://a/",
        "http:///path",
        "http://user@a/",
        "http://a:b@c/",
        "http://a:0/",
        "http://a:65536/",
        "http://a:/",
        "http://a:80a/",
        "http://a b/",
        "http://a/ b",
        "http://a/\r\nX: y",
        "http://a/\n",
        "http://a/#b",
        "http://a?b",
        "http://\u0430/",
        "http://a/\u00e4",
        "http://::1/",
        "http://[::1",
        " http://a/",
        "file:///etc/passwd",
        "http://a/" + "b" * URL_LENGTH_LIMIT,
    ],
)
def test_bad(text: str) -> None:
    with pytest.raises(ValueError, match=r"http://HOST"):
        HttpUrl.parse(text)
