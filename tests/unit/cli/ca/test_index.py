"""What a CA remembers: found by name and number, revoked once, the same after its file."""

from __future__ import annotations

import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from culvert.cli.ca.authority import Purpose, Reason
from culvert.cli.ca.index import Entry, Index, Status, from_json, serial_text, to_json
from culvert.errors import ConfigurationError

NOW = datetime.datetime(2026, 5, 4, 12, 30, 15, tzinfo=datetime.UTC)
DAY = datetime.timedelta(days=1)


def entry(serial: int, *names: str, days: int = 10) -> Entry:
    return Entry(serial, names, Purpose.BOTH, NOW + days * DAY)


def index() -> Index:
    return Index(
        0,
        [
            entry(0xA1B2C3, "db.example.com", "10.0.0.1"),
            entry(0x2, "web.example.com", days=-1),
            entry(0x3, "web.example.com"),
            entry(0x4, "web.example.com"),
        ],
    )


@pytest.mark.parametrize(
    ("wanted", "serials"),
    [
        ("db.example.com", [0xA1B2C3]),
        ("DB.example.com", [0xA1B2C3]),
        ("web.example.com", [2, 3, 4]),
        ("A1B2C3", [0xA1B2C3]),
        ("0xa1b2c3", [0xA1B2C3]),
        ("00:a1:b2:c3", [0xA1B2C3]),
        ("02", [2]),
    ],
)
def test_certificates_are_found_by_name_and_by_number(wanted: str, serials: list[int]) -> None:
    assert [found.serial for found in index().find(wanted)] == serials


@pytest.mark.parametrize("wanted", ["", "mail.example.com", "A1B2C3D4", "../x", "0x", "\x1b[2J"])
def test_what_was_never_issued_is_not_found(wanted: str) -> None:
    with pytest.raises(ConfigurationError, match="No certificate has the name or serial number"):
        index().find(wanted)


def test_a_further_name_leads_to_its_certificate() -> None:
    with pytest.raises(ConfigurationError, match=r"a further name of db\.example\.com \(A1B2C3\)"):
        index().find("10.0.0.1")


def test_a_name_is_revoked_with_all_its_valid_certificates() -> None:
    remembered = index()
    revoked = remembered.revoke("web.example.com", Reason.SUPERSEDED, NOW)
    assert [each.serial for each in revoked] == [3, 4]
    statuses = [each.status(NOW) for each in remembered.entries]
    assert statuses == [Status.VALID, Status.EXPIRED, Status.REVOKED, Status.REVOKED]
    assert [each.serial for each in remembered.revocations()] == [3, 4]


def test_a_revoked_one_stays_on_the_list_when_it_expires() -> None:
    remembered = index()
    remembered.revoke("3", Reason.SUPERSEDED, NOW)
    assert remembered.entries[2].status(NOW + 100 * DAY) is Status.REVOKED
    assert len(list(remembered.revocations())) == 1


def test_nothing_is_revoked_twice() -> None:
    remembered = index()
    remembered.revoke("db.example.com", Reason.UNSPECIFIED, NOW)
    with pytest.raises(ConfigurationError, match=r"db\.example\.com was revoked on 2026-05-04"):
        remembered.revoke("A1B2C3", Reason.UNSPECIFIED, NOW + DAY)
    with pytest.raises(ConfigurationError, match=r"web\.example\.com expired on 2026-05-03"):
        remembered.revoke("02", Reason.UNSPECIFIED, NOW)


def test_the_file_gives_back_what_was_written() -> None:
    remembered = index()
    remembered.crl_number = 7
    remembered.revoke("db.example.com", Reason.KEY_COMPROMISE, NOW)
    assert from_json(to_json(remembered)) == remembered


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        b"\xff",
        b"[" * 100_000,
        b'{"form": 2, "crl_number": 0, "certificates": []}',
        b'{"form": 1, "crl_number": 0, "certificates": [{}]}',
        b'{"form": 1, "crl_number": 0, "certificates": [7]}',
        to_json(index()).replace(b"+00:00", b""),
        to_json(index()).replace(b'"both"', b'"none"'),
        to_json(Index(0, [entry(1)])),
    ],
)
def test_a_damaged_file_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        from_json(data)


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_with_one_error(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        from_json(data)


def test_a_number_is_shown_as_openssl_shows_it() -> None:
    assert [serial_text(number) for number in (1, 0xAB, 0xABC)] == ["01", "AB", "0ABC"]
