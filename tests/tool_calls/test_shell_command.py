"""Classes of shell commands, and clues to their duration."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.tool_calls.shell_command import ArgumentClues, argument_class, argument_clues
from holdfast.tool_calls.syntax import ToolCall


def bash(command: object, **more: object) -> ToolCall:
    return ToolCall("Bash", json.dumps({"command": command, **more}))


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("git status", "git status"),
        ("git -C /repo --no-pager log -3", "git log"),
        ("npm test -- --watch", "npm test"),
        ("docker build -t x .", "docker build"),
        ("pytest -q tests", "pytest"),
        ("python -m pytest -q", "pytest"),
        ("/usr/bin/python3.11 run.py", "python3"),
        ("uv run pytest", "pytest"),
        ("npx tsc --noEmit", "tsc"),
        ("sleep 30", "sleep"),
        ("cd /a && make -j4", "make"),
        ("cd /a; sudo -u bob apt-get install x", "apt-get install"),
        ('FOO="a && b" BAR=1 cargo test', "cargo test"),
        ("export A=1\ngo build ./...", "go build"),
        ("timeout 60 ./gradlew test", "gradlew test"),
        ("# why\nls -la | head", "ls"),
        ("(cd x; ls)", "ls"),
        ("if true; then rm x; fi", "rm"),
        ('bash -lc "git diff"', "git diff"),
        ("grep -rn 'unclosed", "grep"),
        ("cd /a", "cd"),
        ("echo hello", "echo"),
        ("$TOOL x", ""),
        ("", ""),
    ],
)
def test_command_is_classed_by_its_head(command: str, expected: str) -> None:
    assert argument_class(bash(command)) == expected


def test_argument_vector_is_read_through_its_shell() -> None:
    call = ToolCall("shell", '{"command": ["bash", "-lc", "cd x && git status"]}')
    assert argument_class(call) == "git status"


@pytest.mark.parametrize(
    "arguments",
    ['{"command": "git diff --st', '{"cmd":["bash","-lc","git diff --st', '{"a": "git diff --st'],
)
def test_command_is_read_from_incomplete_arguments(arguments: str) -> None:
    expected = "" if '"a"' in arguments else "git diff"
    assert argument_class(ToolCall("Bash", arguments)) == expected


def test_background_command_has_its_own_class() -> None:
    assert argument_class(bash("npm run dev", run_in_background=True)) == "npm run &"


def test_other_tools_have_no_argument_class() -> None:
    assert argument_class(ToolCall("Read", '{"command": "git status"}')) == ""


@pytest.mark.parametrize(
    ("call", "clues"),
    [
        (bash("sleep 5m && x"), ArgumentClues(sleep_s=300.0)),
        (bash("timeout -k 5 90 make"), ArgumentClues(timeout_s=90.0)),
        (bash("make", timeout=120_000), ArgumentClues(timeout_s=120.0)),
        (bash("make", timeout=120), ArgumentClues(timeout_s=120.0)),
        (bash("make", timeout_ms=500), ArgumentClues(timeout_s=0.5)),
        (bash("x", run_in_background="true"), ArgumentClues(background=True)),
        (ToolCall("Task", "{}"), ArgumentClues()),
    ],
)
def test_arguments_give_clues_to_duration(call: ToolCall, clues: ArgumentClues) -> None:
    assert argument_clues(call) == clues


@settings(deadline=None)
@given(st.text(max_size=200) | st.text(alphabet="\"'\\&|;() \ncdx{[:,", max_size=200))
def test_any_arguments_are_read_without_error(text: str) -> None:
    for call in (ToolCall("Bash", text), bash(text), bash([text, "-c", text]), bash({"a": text})):
        name = argument_class(call)
        assert len(name) <= 128
        assert name.isprintable()
        argument_clues(call)
