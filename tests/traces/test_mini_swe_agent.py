"""Reader of mini-swe-agent's trajectories."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from holdfast.errors import TraceError
from holdfast.traces.io import FileReport, read_sessions
from holdfast.traces.record import Session

_SYSTEM = {"role": "system", "content": "You are an agent."}
_TASK = {"role": "user", "content": "Fix it."}


def run(tmp_path: Path, *messages: Any, reports: Any = None, **fields: Any) -> Session:
    path = tmp_path / "repo__repo-1" / "repo__repo-1.traj.json"
    path.parent.mkdir(exist_ok=True)
    info = {"mini_version": "2.0.0", "config": {"model": {"model_name": "m"}}}
    document = {"info": info, "messages": messages, "trajectory_format": "mini-swe-agent-1.1"}
    path.write_text(json.dumps(document | fields))
    (session,) = read_sessions(tmp_path, on_file=None if reports is None else reports.append)
    return session


def response(prompt: int, cached: int = 0) -> dict[str, Any]:
    usage = {"prompt_tokens": prompt, "completion_tokens": 7}
    return {"model": "m-1", "usage": usage | {"prompt_tokens_details": {"cached_tokens": cached}}}


def acting(second: float, *ids: str, **extra: Any) -> dict[str, Any]:
    calls = [{"id": one, "function": {"name": "bash", "arguments": "{}"}} for one in ids]
    actions = [{"command": "git log", "tool_call_id": one} for one in ids]
    told = {"actions": actions, "timestamp": 1000.0 + second} | extra
    return {"role": "assistant", "content": None, "tool_calls": calls, "extra": told}


def observed(second: float, name: str, code: int = 0) -> dict[str, Any]:
    told = {"returncode": code, "timestamp": 1000.0 + second}
    return {"role": "tool", "tool_call_id": name, "content": "ok", "extra": told}


def test_commands_in_text_with_estimated_lengths(tmp_path: Path) -> None:
    reports: list[FileReport] = []
    session = run(
        tmp_path,
        _SYSTEM,
        _TASK,
        {"role": "assistant", "content": "THOUGHT: x\n```bash\ngit log -5\n```"},
        {"role": "user", "content": "<returncode>0</returncode>"},
        {"role": "assistant", "content": "Two?\n```bash\nls\n```\n```bash\npwd\n```"},
        {"role": "user", "content": "Please give one command."},
        {"role": "assistant", "content": "```mswea_bash_command\necho DONE\n```"},
        {"role": "user", "content": ""},
        reports=reports,
        trajectory_format="mini-swe-agent-1",
        info={"exit_status": "Submitted"},
    )
    assert session.session_id == f"{tmp_path.name}/repo__repo-1"
    assert [turn.ended_by for turn in session.turns] == ["tool", "unknown", "tool"]
    assert [turn.trigger for turn in session.turns] == ["user", "tool_result", "user"]
    assert (session.turns[0].tool_name, session.turns[0].tool_command) == ("bash", "git log")
    lengths = [turn.prompt_tokens for turn in session.turns]
    assert lengths == sorted(set(lengths))
    assert reports[0].num_estimated_lengths == 6


def test_recorded_responses_and_times(tmp_path: Path) -> None:
    reports: list[FileReport] = []
    session = run(
        tmp_path,
        _SYSTEM,
        _TASK,
        acting(5, "a", "b", response=response(900)),
        observed(7, "a"),
        observed(9, "b", code=1),
        acting(12, "c", response=response(1000, cached=832)),
        {"role": "exit", "content": "", "extra": {"exit_status": "Submitted"}},
        reports=reports,
    )
    first, second = session.turns
    assert (first.prompt_tokens, first.output_tokens, first.model) == (900, 7, "m-1")
    assert [(one.end_s, one.is_error) for one in first.tools] == [(2, False), (4, True)]
    assert (second.gap_s, second.latency_s, second.cached_tokens) == (4, 3, 832)
    assert reports[0].num_estimated_lengths == 0


def test_unusable_answer_is_a_turn(tmp_path: Path) -> None:
    complaint = {"role": "user", "content": "No tool call found."}
    extra = {"interrupt_type": "FormatError", "response": response(950), "timestamp": 1006.0}
    session = run(
        tmp_path,
        _SYSTEM,
        _TASK,
        complaint | {"extra": extra},
        acting(9, "a", response="ModelResponse(usage=…)"),
    )
    assert [turn.ended_by for turn in session.turns] == ["unknown", "tool"]
    assert session.turns[0].prompt_tokens == 950
    assert session.events == ()


def test_answers_of_the_responses_api(tmp_path: Path) -> None:
    item = {"type": "function_call", "call_id": "a", "name": "bash", "arguments": "{}"}
    usage = {"input_tokens": 900, "output_tokens": 7, "input_tokens_details": {"cached_tokens": 64}}
    extra = {"actions": [{"command": "ls", "tool_call_id": "a"}], "timestamp": 1005.0}
    answer = {"object": "response", "model": "m-2", "output": [item], "usage": usage}
    session = run(
        tmp_path,
        _SYSTEM,
        _TASK,
        answer | {"extra": extra},
        {"type": "function_call_output", "call_id": "a", "output": "x", "extra": {"returncode": 0}},
        answer | {"extra": extra | {"timestamp": 1009.0}},
    )
    first, second = session.turns
    assert (first.prompt_tokens, first.cached_tokens, first.output_tokens) == (900, 64, 7)
    assert (first.tool_name, second.trigger, first.model) == ("bash", "tool_result", "m-2")


def test_patches_of_a_batch_are_not_a_run(tmp_path: Path) -> None:
    (tmp_path / "preds.json").write_text('{"repo__repo-1": {"model_patch": ""}}')
    assert len(run(tmp_path, _SYSTEM, _TASK, acting(5, "a")).turns) == 1


def test_runs_of_one_instance_share_the_system_message(tmp_path: Path) -> None:
    system = {"role": "system", "content": "s" * 4000}
    for batch, task in (("one", "Fix it."), ("other", "Mend it.")):
        (tmp_path / batch).mkdir()
        run(tmp_path / batch, system, {"role": "user", "content": task}, acting(5, "a"))
    one, other = read_sessions(tmp_path)
    assert (one.session_id, other.session_id) == ("one/repo__repo-1", "other/repo__repo-1")
    assert one.turns[0].block_ids[:15] == other.turns[0].block_ids[:15]


def test_damage_names_the_message(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match=r"messages\[1\]\.role"):
        run(tmp_path, _SYSTEM, {"role": 7}, acting(5, "a"))
