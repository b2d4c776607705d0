"""Reader of Cline's sessions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from holdfast.errors import TraceError
from holdfast.traces.io import FileReport, read_sessions


def user(second: float, *blocks: Any) -> dict[str, Any]:
    said = blocks or ({"type": "text", "text": "hello"},)
    return {"id": "u", "role": "user", "content": list(said), "ts": second * 1000}


def answer(second: float, prompt: int, *blocks: Any, **metrics: Any) -> dict[str, Any]:
    said = blocks or ({"type": "text", "text": f"answer {second}"},)
    counts = {"inputTokens": prompt, "outputTokens": 9, "cacheReadTokens": prompt // 2}
    told = {"modelInfo": {"id": "m", "provider": "p"}, "metrics": counts | metrics}
    return {"id": "a", "role": "assistant", "content": list(said), "ts": second * 1000} | told


def call(name: str) -> dict[str, Any]:
    return {
        "type": "tool_use",
        "id": name,
        "name": "run_commands",
        "input": {"commands": ["cd /repo", "git log"]},
    }


def result(name: str, *, is_error: bool = False) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": name, "content": "a", "is_error": is_error}


def write(sessions: Path, name: str, *messages: Any, **fields: Any) -> Path:
    path = sessions / name.partition("__")[0] / f"{name}.messages.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    document = {"version": 1, "agent": "lead", "sessionId": name, "system_prompt": "You are."}
    path.write_text(json.dumps(document | {"messages": messages} | fields))
    return path


def test_lengths_gaps_and_tools(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "1_a",
        user(1),
        answer(5, 1000, call("c"), call("d")),
        user(8, result("c"), result("d", is_error=True)),
        answer(12, 1200),
    )
    (session,) = read_sessions(path)
    first, second = session.turns
    assert (first.prompt_tokens, first.cached_tokens, first.output_tokens) == (1000, 500, 9)
    assert [(one.end_s, one.is_error) for one in first.tools] == [(3, False), (3, True)]
    assert (first.ended_by, first.tool_command, first.latency_s) == ("tool", "git log", 4)
    assert (second.gap_s, second.trigger, second.ended_by) == (3, "tool_result", "human")
    assert (session.session_id, session.agent, second.model) == ("1_a", "main", "m")
    assert second.block_ids[: len(first.block_ids)] == first.block_ids


def test_input_tokens_below_the_cached_ones_exclude_them(tmp_path: Path) -> None:
    counts = {"cacheReadTokens": 900, "cacheWriteTokens": 90}
    path = write(tmp_path, "1_a", user(1), answer(5, 10, **counts))
    (session,) = read_sessions(path)
    assert session.turns[0].prompt_tokens == 1000


def test_an_answer_without_metrics_is_estimated(tmp_path: Path) -> None:
    reports: list[FileReport] = []
    path = write(tmp_path, "1_a", user(1), answer(5, 10) | {"metrics": None, "modelInfo": None})
    (session,) = read_sessions(path, on_file=reports.append)
    assert (len(session.turns), reports[0].num_estimated_lengths) == (1, 2)


def test_other_files_beside_sessions_are_ignored(tmp_path: Path) -> None:
    sessions = tmp_path / ".cline" / "data" / "sessions"
    write(sessions, "1_a", user(1), answer(5, 1000))
    write(sessions, "1_a__scout", user(2), answer(3, 500), agent="subagent", taskType="x")
    for name in ("hooks.jsonl", "1_a.json", "1_a.compaction.json"):
        (sessions / "1_a" / name).write_text("{}")
    (tmp_path / ".cline" / "data" / "settings.json").write_text("{}")
    for given in (tmp_path / ".cline", sessions / "1_a"):
        main, child = read_sessions(given)
        assert (child.session_id, child.parent_id) == ("1_a__scout", "1_a")
        assert (main.agent, child.agent) == ("main", "subagent")


def test_damage_names_the_message(tmp_path: Path) -> None:
    path = write(tmp_path, "1_a", user(1), {"role": 7}, answer(5, 1000))
    with pytest.raises(TraceError, match=r"messages\[1\]\.role"):
        list(read_sessions(path))
    problems: list[TraceError] = []
    (session,) = read_sessions(path, on_skipped=problems.append)
    assert (len(session.turns), len(problems)) == (1, 1)
