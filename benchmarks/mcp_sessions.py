"""Calls of a git server's tools, from transcripts of Claude Code."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

MAX_PAUSE_S = 0.5
AFTER_EDIT_S = 1.1


@dataclass(frozen=True, slots=True)
class Step:
    """A call, or an edit beside the server where `tool` is empty, and the pause before it (s)."""

    tool: str
    arguments: dict[str, Any]
    pause_s: float


def recorded(folder: Path) -> Iterator[list[Step]]:
    """Sessions of transcripts by their first call's time; checkpoints of one session are joined."""
    sessions: dict[str, dict[str, tuple[float, str, dict[str, Any]]]] = {}
    for path in sorted(folder.rglob("*.jsonl")):
        for session, number, time_s, tool, arguments in tool_uses(path):
            sessions.setdefault(session, {}).setdefault(number, (time_s, tool, arguments))
    in_order = sorted(sorted(calls.values(), key=lambda c: c[0]) for calls in sessions.values())
    for calls in sorted(in_order, key=lambda calls: calls[0][0]):
        yield list(steps_of(calls))


def tool_uses(path: Path) -> Iterator[tuple[str, str, float, str, dict[str, Any]]]:
    for line in path.read_text(errors="replace").splitlines():
        try:
            record = json.loads(line)
            content = record["message"]["content"]
            time_s = datetime.fromisoformat(record["timestamp"]).timestamp()
        except (ValueError, KeyError, TypeError):
            continue
        for item in content if isinstance(content, list) else ():
            if isinstance(item, dict) and item.get("type") == "tool_use":
                yield record["sessionId"], item["id"], time_s, item["name"], item["input"]


def steps_of(calls: Iterable[tuple[float, str, dict[str, Any]]]) -> Iterator[Step]:
    last_s = 0.0
    was_edit = False
    for time_s, tool, arguments in calls:
        pause_s = min(max(time_s - last_s, 0.0), AFTER_EDIT_S if was_edit else MAX_PAUSE_S)
        if tool in ("Edit", "Write"):
            if not was_edit:
                yield Step("", {}, pause_s)
            was_edit, last_s = True, time_s
        for name, given in git_calls(str(arguments.get("command", ""))) if tool == "Bash" else ():
            yield Step(name, given, pause_s)
            pause_s, was_edit, last_s = 0.0, False, time_s


def git_calls(command: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Calls of the server's tools that do what a shell command does."""
    for part in re.split(r"&&|;|\n", command):
        try:
            words = [w for w in shlex.split(part.partition("|")[0]) if not w.startswith("2>")]
        except ValueError:
            continue
        if words[:2] == ["git", "-C"]:
            words = ["git", *words[3:]]
        if len(words) >= 2 and words[0] == "git":
            call = git_call(words[1], words[2:])
            if call is not None:
                yield call


def git_call(verb: str, words: Sequence[str]) -> tuple[str, dict[str, Any]] | None:
    names = [word for word in words if not word.startswith("-")]
    counts = [word.lstrip("-n") for word in words if re.fullmatch(r"-n?\d+", word)]
    diff: tuple[str, dict[str, Any]] = "git_diff_unstaged", {}
    if {"--staged", "--cached"} & set(words):
        diff = "git_diff_staged", {}
    elif names:
        diff = "git_diff", {"target": f"revision {names[0]}"}
    calls: dict[str, tuple[str, dict[str, Any]]] = {
        "status": ("git_status", {}),
        "diff": diff,
        "log": ("git_log", {"max_count": int(counts[0]) if counts else 10}),
        "show": ("git_show", {"revision": f"revision {names[0] if names else 'HEAD'}"}),
        "branch": ("git_branch", {"branch_type": "all" if "-a" in words else "local"}),
        "add": ("git_add", {"files": ["."]}),
        "commit": ("git_commit", {"message": "change"}),
    }
    if verb in ("checkout", "switch") and names:
        return "git_checkout", {"branch_name": f"branch {names[-1]}"}
    return calls.get(verb)
