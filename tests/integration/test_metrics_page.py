"""The metrics that the documentation names, and what it asks of them, are those of a real daemon."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from .admin_client import Admin
from .certificates import Certificates
from .harness import Culvert

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
NAMED = [
    (page, name) for page in PAGES for name in sorted(set(re.findall(r"\bculvert_\w+", page.read_text())))
]
EXPRESSIONS = re.findall(r"^        expr: (.*)$", (ROOT / "docs" / "metrics.md").read_text(), re.M)
GROUPED = [expression for expression in EXPRESSIONS if " by (" in expression]


@pytest.fixture(scope="module")
def exposed(
    tmp_path_factory: pytest.TempPathFactory, certificates: Certificates
) -> Iterator[dict[str, set[str]]]:
    """The labels of each sample and family, of a daemon with a server and a target."""
    folder = tmp_path_factory.mktemp("exposed")
    service = (
        f"[s]\naccept = 127.0.0.1:0\nconnect = 127.0.0.1:1\ncert = {certificates.server.bundle}\n"
        f"[c]\naccept = 127.0.0.1:0\nconnect = 127.0.0.1:1\nclient = yes\n"
    )
    with Culvert(folder, service, options=f"admin = {folder / 'admin'}\n"):
        text = Admin(folder / "admin").ask("/metrics").body
    found: dict[str, set[str]] = {}
    for name in re.findall(r"^# TYPE (\S+) ", text, re.M):
        found.setdefault(name, set())
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    yield found


@pytest.mark.parametrize(("page", "name"), NAMED, ids=lambda value: getattr(value, "name", value))
def test_a_metric_that_a_page_names_is_exposed(exposed: dict[str, set[str]], page: Path, name: str) -> None:
    assert name in exposed


def test_the_page_names_every_metric(exposed: dict[str, set[str]]) -> None:
    named = {name for page, name in NAMED if page.name == "metrics.md"}
    parts = re.compile(r"_(?:bucket|count|sum|created)$")
    assert [name for name in exposed if name not in named and not parts.search(name)] == []


@pytest.mark.parametrize("expression", GROUPED)
def test_an_alert_groups_by_labels_that_are_there(exposed: dict[str, set[str]], expression: str) -> None:
    match = re.search(r"by \(([^)]+)\) \(rate\((\w+)\[", expression)
    assert match is not None
    known = {"culvert_connections_refused_total": {"service", "reason"}}.get(match[2], exposed[match[2]])
    assert set(match[1].split(", ")) <= known
