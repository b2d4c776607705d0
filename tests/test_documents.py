"""Documents name files, links and commands that exist, on lines of bounded length."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from readme_tables import with_tables

ROOT = Path(__file__).parents[1]
SOURCES = ROOT / "src" / "holdfast"
ROOTS = (
    *(ROOT, SOURCES, SOURCES / "traces"),
    *(ROOT / "benchmarks", ROOT / "benchmarks" / "results", ROOT / "examples"),
)
DOCUMENTS = sorted(
    [
        *(ROOT / "docs").glob("*.md"),
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        ROOT / "benchmarks" / "README.md",
    ]
)
MODULE = re.compile(r"`([a-z0-9_/]+\.py)")
LINK = re.compile(r"\]\((?!https?://)([^)#\s]*)(?:#([^)\s]+))?\)")
MAX_LENGTH = 120
EXAMPLES = {"two_strikes.py"}
"""Files that a reader makes."""


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _anchors(path: Path) -> set[str]:
    """Anchors of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in headings}


@pytest.mark.parametrize("path", DOCUMENTS, ids=_name)
def test_every_named_module_exists(path: Path) -> None:
    named = set(MODULE.findall(path.read_text())) - EXAMPLES
    assert [name for name in sorted(named) if not any((r / name).is_file() for r in ROOTS)] == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=_name)
def test_every_link_leads_somewhere(path: Path) -> None:
    for target, anchor in LINK.findall(path.read_text()):
        linked = path.parent / target if target else path
        assert linked.exists(), target
        if anchor and linked.suffix == ".md":
            assert anchor in _anchors(linked), f"{target}#{anchor}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=_name)
def test_lines_outside_of_tables_fit(path: Path) -> None:
    lines = path.read_text().splitlines()
    long = [n for n, line in enumerate(lines, 1) if len(line) > MAX_LENGTH and line[0] != "|"]
    assert long == []


def test_tables_of_benchmarks_are_those_of_the_results() -> None:
    text = (ROOT / "benchmarks" / "README.md").read_text()
    assert with_tables(text) == text


def test_rows_of_the_results_page_are_in_result_files() -> None:
    known = {
        line.strip()
        for path in sorted((ROOT / "benchmarks" / "results").glob("*.md"))
        for line in path.read_text().splitlines()
    }
    known |= set((ROOT / "benchmarks" / "README.md").read_text().splitlines())
    assert [row for row in rows_of("docs/results.md") if row not in known] == []


def test_readme_quotes_only_rows_of_the_results_page() -> None:
    text = (ROOT / "README.md").read_text()
    quoted = text[text.index("<!-- results -->") : text.index("<!-- end -->")]
    known = set(rows_of("docs/results.md"))
    assert [row for row in quoted.splitlines() if is_row(row) and row not in known] == []


def rows_of(document: str) -> list[str]:
    return [line for line in (ROOT / document).read_text().splitlines() if is_row(line)]


def is_row(line: str) -> bool:
    """Whether a line is a row of a table with figures, not its heading or its rule."""
    return line.startswith("|") and any(c.isdigit() for c in line.split("|", 2)[2])
