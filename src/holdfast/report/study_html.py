"""A workload study as one self-contained HTML page; needs the [plots] extra."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import Final

from holdfast.report.page import render_page, require_plots, write_whole
from holdfast.report.study_figures import FIGURES, study_svg
from holdfast.report.study_findings import (
    FINDINGS,
    format_gib,
    format_seconds,
    format_share,
    format_tokens,
)
from holdfast.workload.study.workload import Study

__all__ = ["TITLES", "render_study_html", "write_study_html"]

TITLES: Final[dict[str, str]] = {
    "shape": "Sessions, prompts and answers",
    "prefixes": "What prompts repeat",
    "waits": "How long sessions are away, and who owns the idle KV",
    "tools": "How long tools take",
    "holding": "How long KV must be held",
    "working_set": "What live sessions hold",
    "cache": "How large the cache must be",
    "mutations": "Prompts that are rewritten",
    "fan_out": "Sub-agents",
}
"""Headings of the sections, in order."""

_MAX_ROWS = 25


def render_study_html(study: Study) -> str:
    """Findings, figures, tables and manifest as one self-contained page; pure.

    Raises:
        HoldfastError: jinja2 or matplotlib is not installed.
    """
    require_plots()
    sections = [name for name in TITLES if name != "tools" or study.tools_by_kind]
    return render_page(
        "study",
        study=study,
        sections=sections,
        titles=TITLES,
        findings={name: FINDINGS[name](study) for name in sections},
        figures={name: study_svg(study, name) for name in sections if name in FIGURES},
        wait_rows=list(islice(study.waits.by_name.items(), _MAX_ROWS)),
        tool_rows=list(islice(study.tools_by_name.items(), _MAX_ROWS)),
        head_rows=study.prefixes.heads[:10],
        manifest=json.dumps(study.manifest, indent=2, sort_keys=True),
        format_gib=format_gib,
        format_seconds=format_seconds,
        format_share=format_share,
        format_tokens=format_tokens,
    )


def write_study_html(path: Path, study: Study) -> None:
    """Write `render_study_html` to `path`, replacing the file in one step.

    Raises:
        HoldfastError: The file cannot be written, or jinja2 or matplotlib is not installed.
    """
    write_whole(path, render_study_html(study).encode())
