"""Tool kinds, from the names of tools."""

from __future__ import annotations

import pytest

from holdfast.tool_calls.tool_kind import tool_kind


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("Read", "read"),
        ("read_file", "read"),
        ("Grep", "search"),
        ("list_dir", "search"),
        ("apply_patch", "edit"),
        ("MultiEdit", "edit"),
        ("TodoWrite", "plan"),
        ("update_plan", "plan"),
        ("Bash", "shell"),
        ("exec_command", "shell"),
        ("run_shell_command", "shell"),
        ("Task", "sub_agent"),
        ("WebFetch", "web"),
        ("AskUserQuestion", "ask_user"),
        ("functions.shell", "shell"),
        ("mcp__filesystem__read_file", "read"),
        ("mcp__linear__create_issue", "other"),
        ("frobnicate", "other"),
        ("", "other"),
    ],
)
def test_name_gives_the_kind_across_agents(name: str, kind: str) -> None:
    assert tool_kind(name) == kind
