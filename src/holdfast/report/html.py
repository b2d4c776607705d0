"""Reports as self-contained HTML pages; needs the [plots] extra."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from holdfast.report.page import render_page, require_plots, write_whole
from holdfast.report.tables import ReportTable

__all__ = ["Page", "PageSection", "render_html", "write_html"]


@dataclass(frozen=True, slots=True)
class PageSection:
    """A part of a page; what is empty is left out.

    Attributes:
        heading: Stands above it.
        text: A paragraph.
        tables: Tables below each other.
        svg: A figure.
        lines: A list.
        is_folded: Whether the tables open with a click.
    """

    heading: str = ""
    text: str = ""
    tables: tuple[ReportTable, ...] = ()
    svg: str | None = None
    lines: tuple[str, ...] = ()
    is_folded: bool = False

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing below the heading and the text."""
        return not (self.tables or self.svg or self.lines)


@dataclass(frozen=True, slots=True)
class Page:
    """A page: its title, a paragraph that explains the figures, and sections."""

    title: str
    text: str
    sections: tuple[PageSection, ...]


def render_html(page: Page, manifest: Mapping[str, Any]) -> str:
    """A page with the manifest at its end, which loads nothing from elsewhere; pure.

    Raises:
        HoldfastError: jinja2 or matplotlib is not installed.
    """
    require_plots()
    return render_page(
        "report",
        page=page,
        sections=[section for section in page.sections if not section.is_empty],
        manifest=json.dumps(manifest, indent=2, sort_keys=True),
    )


def write_html(path: Path, page: Page, manifest: Mapping[str, Any]) -> None:
    """Write `render_html` to `path`, replacing the file in one step.

    Raises:
        HoldfastError: The file cannot be written, or jinja2 or matplotlib is not installed.
    """
    write_whole(path, render_html(page, manifest).encode())
