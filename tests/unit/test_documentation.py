"""What README and docs/ show can be used as it stands: configurations load, links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from culvert import config

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
EXAMPLES = [
    pytest.param(block, id=f"{page.name}-{number}")
    for page in PAGES
    for number, block in enumerate(re.findall(r"^```ini\n(.*?)^```$", page.read_text(), re.M | re.S), 1)
]
LINKS = [
    pytest.param(page.parent / target, id=f"{page.name}-{target}")
    for page in PAGES
    for target in sorted(set(re.findall(r"\]\(([^)#:]+)\)", page.read_text())))
]


ANCHORS = [
    pytest.param(page.parent / (target or page.name), anchor, id=f"{page.name}-{target}#{anchor}")
    for page in PAGES
    for target, anchor in sorted(set(re.findall(r"\]\(([^)#:]*)#([^)]+)\)", page.read_text())))
]


def anchors(page: Path) -> set[str]:
    """What a link can name of a page: its headings, as GitHub and GitLab make anchors of them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.M)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_has_neither_errors_nor_warnings(example: str) -> None:
    assert config.loads(example, "example.conf").findings == ()


@pytest.mark.parametrize("target", LINKS)
def test_a_link_leads_to_a_file(target: Path) -> None:
    assert target.is_file()


@pytest.mark.parametrize(("page", "anchor"), ANCHORS)
def test_a_link_into_a_page_leads_to_a_heading(page: Path, anchor: str) -> None:
    assert anchor in anchors(page)


def test_the_readme_names_every_page() -> None:
    text = PAGES[0].read_text()
    assert [page.name for page in PAGES[1:] if f"docs/{page.name}" not in text] == []
