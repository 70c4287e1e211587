"""Each kind of value: what it takes, what it gives, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest

from culvert.address import HttpUrl
from culvert.config import values
from culvert.config.model import Debug, Foreground, TlsVersion
from culvert.config.values import BadValue, Form

FOREGROUND = values.enumeration(Foreground)
LEVEL = values.whole(0, 5, "a level")


@pytest.mark.parametrize(
    ("form", "text", "value"),
    [
        (values.YES_NO, "yes", True),
        (values.YES_NO, "NO", False),
        (FOREGROUND, "Quiet", Foreground.QUIET),
        (LEVEL, "0", 0),
        (LEVEL, "5", 5),
        (values.SECONDS, "0", 0.0),
        (values.SECONDS, "0.25", 0.25),
        (values.SECONDS, "43200", 43200.0),
        (values.RETRY, "no", None),
        (values.RETRY, "yes", 1.0),
        (values.RETRY, "1500", 1.5),
        (values.WORKERS, "auto", None),
        (values.WORKERS, "0", 0),
        (values.WORKERS, "1024", 1024),
        (values.DEBUG, "7", Debug(7, 3)),
        (values.DEBUG, "emerg", Debug(0, 3)),
        (values.DEBUG, "LOCAL7.Notice", Debug(5, 23)),
        (values.DEBUG, "kern.0", Debug(0, 0)),
        (values.VERSION, "all", None),
        (values.VERSION, "tlsv1.2", TlsVersion.TLS1_2),
        (values.VERSION, "SSLv3", TlsVersion.SSL3),
        (values.WORDS, "sh  -c\ttrue", ("sh", "-c", "true")),
        (values.ASSIGNMENT, "A=b=c", ("A", "b=c")),
        (values.ASSIGNMENT, "A=", ("A", "")),
        (values.IDENTITY, "nobody", "nobody"),
        (values.IDENTITY, "0", 0),
        (values.IDENTITY, "4294967294", 4294967294),
        (values.PATH_OR_NONE, "", None),
        (values.URL, "http://ocsp.example.com", HttpUrl("ocsp.example.com", 80, "/")),
        (values.OCSP_FLAG, "trustother", "TRUSTOTHER"),
        (values.HEX_KEY, "00:01:02:03:04:05:06:07:08:09:0a:0b:0c:0d:0e:0F", bytes(range(16))),
        (values.SNI, "", ""),
    ],
)
def test_accepted(form: Form, text: str, value: Any) -> None:
    assert form.parse(text) == value


@pytest.mark.parametrize(
    ("form", "text"),
    [
        (values.YES_NO, "1"),
        (values.YES_NO, ""),
        (FOREGROUND, "perhaps"),
        (LEVEL, "6"),
        (LEVEL, "-1"),
        (LEVEL, "+1"),
        (LEVEL, "٣"),
        (LEVEL, "1.0"),
        (values.SECONDS, "1e3"),
        (values.SECONDS, "-1"),
        (values.SECONDS, "nan"),
        (values.SECONDS, "2147483648"),
        (values.RETRY, "0"),
        (values.RETRY, "maybe"),
        (values.WORKERS, "1025"),
        (values.DEBUG, "8"),
        (values.DEBUG, "55"),
        (values.DEBUG, "daemon."),
        (values.DEBUG, ".info"),
        (values.DEBUG, "nowhere.info"),
        (values.VERSION, "SSLv2"),
        (values.WORDS, ""),
        (values.ASSIGNMENT, "A"),
        (values.ASSIGNMENT, "=b"),
        (values.ASSIGNMENT, "A B=c"),
        (values.IDENTITY, "4294967295"),
        (values.IDENTITY, "a:b"),
        (values.PATH, ""),
        (values.KEY_SOURCE, "pkcs11:object=x"),
        (values.EMAIL, "nobody"),
        (values.URL, "ldap://x"),
        (values.URL, "https://ocsp.example.com"),
        (values.OCSP_FLAG, "NOSIGS"),
        (values.OCSP_FLAG, "TRUSTME"),
        (values.HEX_KEY, "00"),
        (values.SNI, "a b"),
    ],
)
def test_refused(form: Form, text: str) -> None:
    with pytest.raises(BadValue):
        form.parse(text)


@pytest.mark.parametrize(
    ("form", "text", "hint"),
    [
        (values.YES_NO, "yess", 'did you mean "yes"?'),
        (values.DEBUG, "inf", 'did you mean "info"?'),
        (values.DEBUG, "deamon.info", 'did you mean "daemon"?'),
        (values.VERSION, "TLS1.3", 'did you mean "TLSv1.3"?'),
        (FOREGROUND, "xxxxxxx", None),
    ],
)
def test_hint(form: Form, text: str, hint: str | None) -> None:
    with pytest.raises(BadValue) as caught:
        form.parse(text)
    assert caught.value.hint == hint


@pytest.mark.parametrize(
    ("words", "sentence"), [(["a"], "a"), (["a", "b"], "a or b"), (["a", "b", "c"], "a, b or c")]
)
def test_listed(words: list[str], sentence: str) -> None:
    assert values.listed(words) == sentence
