"""`culvert ca` as its user meets it: what is said, the exit statuses, and what is left behind."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from culvert.cli.dispatch import dispatch
from culvert.cli.faults import guard


@dataclass(frozen=True)
class Said:
    """What one run wrote."""

    output: str
    errors: str


class Ca:
    """Runs `culvert ca` in this process, up to the exit status."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def run(self, words: str, *more: str, status: int = 0) -> Said:
        argv = ["culvert", "ca", *words.split(), *more]
        assert guard(lambda: dispatch(argv)) == status
        return Said(*self._capsys.readouterr())


@pytest.fixture
def ca(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Ca:
    """Runs `culvert ca` in a folder that has no CA yet."""
    monkeypatch.chdir(tmp_path)
    return Ca(capsys)


@pytest.fixture
def house(ca: Ca) -> Ca:
    """The same with a CA of 30 days in `ca`, and a certificate."""
    ca.run("init --days 30", "--name", "House CA")
    ca.run("issue db.example 10.0.0.1 --server --days 20")
    return ca


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("init", "ca is not empty, and is left as it is (name another folder by --dir)"),
        ("init --dir other --permit .example", "cannot be permitted: expected a domain"),
        (f"init --dir other --name {'x' * 65}", "--name takes 1 to 64 printable characters"),
        ("issue db.example", "db.example.pem exists already, and is left as it is (--replace"),
        ("issue a.example --days 31", "would outlive its CA, which expires on"),
        ("issue a.example --out none", "none is not a folder that is there"),
        ("issue a.example --out ca", "ca is the CA's own folder"),
        ("issue a.example ../b", '"../b" cannot be the name in a certificate: expected a DNS name'),
        ("issue a.example --dir none", "There is no CA in none (make one with `culvert ca init`"),
        ("revoke a.example", 'No certificate has the name or serial number "a.example"'),
        ("revoke 10.0.0.1", "it is a further name of db.example ("),
        ("crl --dir none", "There is no CA in none"),
        ("show a.example", 'No certificate has the name or serial number "a.example"'),
    ],
)
def test_what_cannot_be_done_is_told_in_one_line(house: Ca, arguments: str, words: str) -> None:
    before = sorted(Path().rglob("*"))
    said = house.run(arguments, status=1)
    assert said.output == ""
    (line,) = said.errors.splitlines()
    assert line.startswith("[!] ")
    assert words in line
    assert sorted(Path().rglob("*")) == before


@pytest.mark.parametrize(
    "arguments",
    [
        "issue",
        "issue a --days 0",
        "issue a --days 36501",
        "issue a --key dsa",
        "revoke a --reason bored",
        "crl 3",
    ],
)
def test_wrong_use_has_the_status_of_wrong_use(house: Ca, arguments: str) -> None:
    assert house.run(arguments, status=2).output == ""


def test_a_certificate_without_a_given_life_ends_with_its_ca(house: Ca) -> None:
    house.run("issue short.example")
    shown = json.loads(house.run("show short.example --format json").output)
    assert shown["certificates"][0]["end"] == shown["ca"]["end"]


def test_what_was_issued_but_could_not_be_written_can_be_revoked(house: Ca) -> None:
    Path("b.example.key").mkdir()
    first, second = house.run("issue b.example --replace", status=1).errors.splitlines()
    assert first == "[!] Cannot write b.example.key: Is a directory"
    command = second.partition("`culvert ca ")[2].partition("`")[0]
    assert house.run(command).output.startswith("revoked: b.example, ")


def test_show_tells_of_the_ca_and_of_each_certificate(house: Ca) -> None:
    house.run("issue old.example --client")
    house.run("revoke old.example --reason superseded")
    listed = house.run("show").output
    assert "  CA          House CA\n" in listed
    assert "29 days left" in listed
    lines = {line.split()[-1]: line.split() for line in listed.splitlines() if line}
    assert lines["10.0.0.1"][:4:3] == ["valid", "server"]
    assert lines["old.example"][:4:3] == ["revoked", "client"]
    assert " (superseded)\n" in house.run("show", lines["old.example"][4]).output
    tree = json.loads(house.run("show --format json").output)
    assert [c["reason"] for c in tree["certificates"] if c["names"] == ["old.example"]] == ["superseded"]


def test_a_renewal_takes_the_place_of_the_files_and_tells_of_the_earlier(ca: Ca) -> None:
    ca.run("init")
    ca.run("issue db.example")
    before = [Path(f"db.example.{suffix}").read_bytes() for suffix in ("pem", "key")]
    done = ca.run("issue db.example --replace")
    after = [Path(f"db.example.{suffix}").read_bytes() for suffix in ("pem", "key")]
    assert all(old != new for old, new in zip(before, after, strict=True))
    assert done.errors.startswith("[.] An earlier certificate of that name, ")
    assert len(ca.run("revoke db.example").output.splitlines()) == 3
