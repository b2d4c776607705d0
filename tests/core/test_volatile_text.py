"""What changes by itself is recognised in a text, and nothing else."""

from __future__ import annotations

import pytest

from holdfast.core.volatile_text import VOLATILE, VolatileKind, volatile_lines, without

GIT = """\
Current branch: main

Main branch (you will usually use this for PRs): main

Status:
M README.md
 M src/app.py

Recent commits:
d17cb50 start
0a1b2c3 more"""
PREFIXED = "\n".join(f"git: {line}" for line in GIT.splitlines() if line)


@pytest.mark.parametrize(
    "date",
    [
        *(
            "2026-11-28",
            "2026-11-28T09:30:00Z",
            "2026-11-28 09:30:15.123",
            "28/11/2026",
            "28.11.2026",
        ),
        *("November 28, 2026", "Nov 28 2026", "28 November 2026", "November 2026", "Saturday"),
        *("9:30", "09:30:15", "9:30 PM", "2026-11-28T09:30:00+01:00"),
    ],
)
def test_dates_and_times_are_recognised(date: str) -> None:
    assert without(f"It is {date} now", "date") == "It is  now"


@pytest.mark.parametrize(
    "text",
    [
        *("version 2.1.332", "a 12-34 b", "x2026-11-28", "May 5", "Sat down", "10:1", "ratio 3/4"),
        *("claude-20251101", "port 8000", "::1", "sha 1:2:3:4"),
    ],
)
def test_other_figures_are_no_dates(text: str) -> None:
    assert without(text, "date") == text


@pytest.mark.parametrize("block", [GIT, PREFIXED])
def test_repository_state_is_one_block(block: str) -> None:
    text = f"Rules.\n\n{block}\n\nMore rules: d17cb50 stays."
    assert without(text, "git") == "Rules.\n\n\n\nMore rules: d17cb50 stays."


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("billing", "x-anthropic-billing-header: cc_version=2.1; cch=1;\n"),
        ("id", "3f2504e0-4f89-11d3-9a0c-0305e82c3301"),
        ("id", "toolu_01AbCdEfGh"),
        ("id", "af6fd33f6df09024"),
        ("reminder", "<system-reminder>\nTodo: none\n</system-reminder>\n"),
        ("reminder", "<environment_details>open files</environment_details>"),
    ],
)
def test_each_kind_is_taken_out(kind: VolatileKind, text: str) -> None:
    assert without(text, kind) == ""
    assert without(f"words\n{text}", kind) == "words\n"


@pytest.mark.parametrize("kind", VOLATILE)
def test_prose_is_left_alone(kind: VolatileKind) -> None:
    text = "You are an agent.\nMay you call tools: Read, Grep.\nCurrent branch of thought: none.\n"
    assert without(text, kind) == text


def test_whole_lines_are_found_once() -> None:
    text = "a\nToday is Monday, 2026-11-28.\nb 9:30"
    lines = [text[start:end] for start, end in volatile_lines(text, "date")]
    assert lines == ["Today is Monday, 2026-11-28.", "b 9:30"]
