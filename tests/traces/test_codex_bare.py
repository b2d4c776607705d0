"""Readers of Codex's rollouts before 0.34 and of its TypeScript client."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from holdfast.errors import TraceError
from holdfast.traces.io import FileReport, read_sessions

HEAD = {"id": "s", "timestamp": "2025-08-20T13:20:47.060Z", "instructions": None}
STATE = {"record_type": "state"}


def text(role: str, said: str = "hello", **fields: Any) -> dict[str, Any]:
    return {"type": "message", "role": role, "content": [{"type": "text", "text": said}]} | fields


def call(**fields: Any) -> dict[str, Any]:
    arguments = json.dumps({"command": ["bash", "-lc", "git log"]})
    made = {"type": "function_call", "name": "shell", "call_id": "c", "arguments": arguments}
    return made | fields


def output(**fields: Any) -> dict[str, Any]:
    return {"type": "function_call_output", "call_id": "c", "output": "a"} | fields


def write(path: Path, *lines: Any) -> Path:
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


@pytest.mark.parametrize("head", [HEAD, {"id": "s", "timestamp": HEAD["timestamp"]}])
def test_items_without_an_envelope(tmp_path: Path, head: dict[str, Any]) -> None:
    reasoning = {"type": "reasoning", "id": "r", "summary": [], "encrypted_content": "x"}
    path = write(
        tmp_path / "rollout-1.jsonl",
        *(head, STATE, text("user"), reasoning, call(), output(), STATE, text("assistant")),
    )
    reports: list[FileReport] = []
    (session,) = read_sessions(path, on_file=reports.append)
    assert (session.session_id, session.agent) == ("s", "main")
    assert [turn.ended_by for turn in session.turns] == ["tool", "human"]
    assert session.turns[0].tool_command == "git log"
    assert (reports[0].format_name, reports[0].num_estimated_lengths) == ("Codex", 4)
    assert reports[0].num_estimated_gaps == 1


def test_items_that_have_times(tmp_path: Path) -> None:
    def at(second: int) -> str:
        return f"2025-09-05T17:07:{second:02d}Z"

    path = write(
        tmp_path / "rollout-1.jsonl",
        *(HEAD, text("user", timestamp=at(0)), call(timestamp=at(4)), output(timestamp=at(6))),
        text("assistant", timestamp=at(9)),
    )
    (session,) = read_sessions(path)
    assert [turn.latency_s for turn in session.turns] == [4, 3]
    assert session.turns[1].gap_s == 2


def test_the_document_of_the_client_in_typescript(tmp_path: Path) -> None:
    session = {"id": "s", "timestamp": "2025-04-17T10:00:00.000Z", "instructions": ""}
    path = tmp_path / "rollout-2025-04-17-s.json"
    items = [text("user"), call(), output(), text("assistant")]
    path.write_text(json.dumps({"session": session, "items": items}))
    (one,) = read_sessions(path)
    assert (one.session_id, [turn.ended_by for turn in one.turns]) == ("s", ["tool", "human"])


def test_old_and_new_rollouts_lie_in_one_directory(tmp_path: Path) -> None:
    home = tmp_path / ".codex"
    day = home / "sessions" / "2025" / "08" / "20"
    day.mkdir(parents=True)
    write(day / "rollout-1.jsonl", HEAD, STATE, text("user"), text("assistant"))
    # Opened and closed.
    write(day / "rollout-2.jsonl", HEAD | {"id": "t"}, STATE)
    meta = {"type": "session_meta", "payload": {"id": "u"}, "timestamp": HEAD["timestamp"]}
    for name, parent in (("u", None), ("v", "u")):
        items = [text("user"), text("assistant")]
        wrapped = [{"type": "response_item", "payload": item} for item in items]
        payload = {"id": name, "parent_thread_id": parent}
        write(day / f"rollout-3{name}.jsonl", meta | {"payload": payload}, *wrapped)
    write(home / "history.jsonl", {"session_id": "s", "ts": 1, "text": "hello"})
    (home / "auth.json").write_text("{}")
    reports: list[FileReport] = []
    sessions = list(read_sessions(home, on_file=reports.append))
    assert [(one.session_id, one.parent_id) for one in sessions] == [
        ("s", None),
        ("u", None),
        ("v", "u"),
    ]
    assert sum(report.num_unanswered for report in reports) == 1


def test_damage_names_the_line(tmp_path: Path) -> None:
    path = write(tmp_path / "rollout-1.jsonl", HEAD, text("user"), call(call_id=7), output())
    with pytest.raises(TraceError, match=r"line 3, payload\.call_id"):
        list(read_sessions(path))
