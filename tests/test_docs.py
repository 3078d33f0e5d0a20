"""Everything that the documentation names exists, and the documentation has every setting and metric."""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path

import pytest

from service.runtime import Runtime
from service.settings import Settings

ROOT = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")
PAGES = [*map(Path, ROOT), *sorted(Path("docs").glob("*.md"))]
OPERATIONS = Path("docs/operations.md").read_text(encoding="utf-8")
SCHEDULING = Path("docs/scheduling.md").read_text(encoding="utf-8")


def prose(page: Path) -> str:
    """Return a page without its code."""
    text = re.sub(r"^ {4}.*$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return re.sub(r"`[^`\n]*`", lambda code: code[0].replace("[", "").replace("]", ""), text)


@functools.cache
def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives a page's headings."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def defined(file: Path) -> set[str]:
    """Return the names of all functions, methods and classes in a module."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    kinds = ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef
    return {node.name for node in ast.walk(tree) if isinstance(node, kinds)}


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_every_link_points_to_something(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if link.startswith(("http://", "https://")):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_every_page_is_linked_in_the_readme() -> None:
    linked = set(re.findall(r"\]\((docs/\w+\.md)\)", Path("README.md").read_text(encoding="utf-8")))
    assert linked == {str(page) for page in PAGES if page.parent.name == "docs"}


def test_every_setting_is_listed_with_its_default() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*?) \| ", OPERATIONS, re.MULTILINE))
    for name, field in Settings.model_fields.items():
        assert name in rows
        if field.default_factory is None:
            assert rows[name] == ("none" if field.default is None else f"{field.default}")


def test_every_metric_is_listed() -> None:
    exposed = {family.name for family in Runtime(Settings()).metrics.registry.collect()}
    assert {name for name in exposed if f"`{name}" not in OPERATIONS} == set()


def test_every_promise_names_a_test_that_exists() -> None:
    named = re.findall(r"`(tests/[^`]*)`", Path("SECURITY.md").read_text(encoding="utf-8"))
    assert named
    assert [path for path in named if not Path(path).exists()] == []


def test_every_alert_is_listed() -> None:
    alerts = re.findall(r"alert: (\w+)", Path("docker/prometheus-rules.yml").read_text(encoding="utf-8"))
    assert {alert for alert in alerts if f"`{alert}`" not in OPERATIONS} == set()


def test_what_scheduling_names_exists() -> None:
    named = re.findall(r"`([\w.-]+(?:/[\w.-]+)+)(?:: (\w+))?`", SCHEDULING)
    assert named
    for path, function in named:
        assert Path(path).exists(), path
        assert not function or function in defined(Path(path)), f"{path}: {function}"
