"""The files of the status page: all there, packed, and of a kind that their own policy lets in."""

from __future__ import annotations

import fnmatch
import re
import tomllib
from html.parser import HTMLParser
from pathlib import Path

from culvert.admin.static import PAGE

ROOT = Path(__file__).parents[3]
PACKAGE = ROOT / "src" / "culvert"


class Found(HTMLParser):
    """What a page refers to, and what a strict policy would refuse in it."""

    def __init__(self) -> None:
        super().__init__()
        self.references: list[str] = []
        self.inline: list[str] = []
        self._tag = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._tag = tag
        for name, value in attrs:
            if name in ("src", "href") and not (value or "").startswith("#"):
                self.references.append(value or "")
            if name == "style" or name.startswith("on"):
                self.inline.append(name)

    def handle_data(self, data: str) -> None:
        if self._tag in ("script", "style") and data.strip():
            self.inline.append(data)


def test_the_page_refers_to_its_own_files_alone() -> None:
    found = Found()
    found.feed(PAGE["/"].body.decode())
    assert sorted(found.references) == ["icon.svg", "metrics", "status", "status.css", "status.js"]
    assert found.inline == []


def test_no_file_names_another_machine() -> None:
    for path, response in PAGE.items():
        addresses = set(re.findall(r"https?://[^\s\"'<>]+", response.body.decode()))
        assert addresses <= {"http://www.w3.org/2000/svg"}, path  # it names a kind of markup


def test_each_file_has_its_type_and_the_policy() -> None:
    for response in PAGE.values():
        headers = dict(response.headers)
        policy = headers["Content-Security-Policy"].split("; ")
        assert policy[0] == "default-src 'none'"
        assert {"frame-ancestors 'none'", "base-uri 'none'", "form-action 'none'"} < set(policy)
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert headers["Referrer-Policy"] == "no-referrer"
    assert PAGE["/status.js"].content_type.startswith("text/javascript")


def test_the_script_sets_no_markup() -> None:
    script = PAGE["/status.js"].body.decode()
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|Function\(", script
    )


def test_every_file_is_packed() -> None:
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    files = [str(path.relative_to(PACKAGE)) for path in (PACKAGE / "admin" / "page").iterdir()]
    assert len(files) == len(PAGE)
    assert all(any(fnmatch.fnmatch(file, one) for one in patterns["culvert"]) for file in files)
