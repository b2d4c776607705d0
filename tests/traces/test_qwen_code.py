"""Reader of Qwen Code's sessions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from holdfast.errors import TraceError
from holdfast.traces.io import FileReport, read_sessions
from holdfast.traces.record import Session


def at(second: float) -> str:
    return f"2026-04-20T10:00:{second:06.3f}Z"


def record(
    name: str, parent: str | None, second: float, kind: str, *parts: Any, **fields: Any
) -> dict[str, Any]:
    base = {"uuid": name, "parentUuid": parent, "sessionId": "s", "timestamp": at(second)}
    base |= {"type": kind, "cwd": "/repo", "version": "0.21.13", "gitBranch": "main"}
    role = "model" if kind == "assistant" else "user"
    said = {} if kind == "system" else {"message": {"role": role, "parts": list(parts)}}
    return base | said | fields


def user(name: str, parent: str | None, second: float, text: str = "hello") -> dict[str, Any]:
    return record(name, parent, second, "user", {"text": text})


def used(prompt: int, **fields: Any) -> dict[str, Any]:
    counts = {"promptTokenCount": prompt, "candidatesTokenCount": 40, "thoughtsTokenCount": 0}
    counts |= {"cachedContentTokenCount": prompt // 2, "totalTokenCount": prompt + 40}
    return counts | fields


def answer(
    name: str, parent: str | None, second: float, prompt: int, *parts: Any, **fields: Any
) -> dict[str, Any]:
    said = parts or ({"text": f"answer {name}"},)
    told = {"model": "q", "usageMetadata": used(prompt)} | fields
    return record(name, parent, second, "assistant", *said, **told)


def call(name: str, tool: str = "run_shell_command") -> dict[str, Any]:
    return {"functionCall": {"id": name, "name": tool, "args": {"command": "git log"}}}


def result(name: str, parent: str, second: float, tool: str, **fields: Any) -> dict[str, Any]:
    response = {"functionResponse": {"id": tool, "name": "x", "response": {"output": "a"}}}
    return record(name, parent, second, "tool_result", response, **fields)


def system(
    name: str, parent: str | None, second: float, subtype: str, **payload: Any
) -> dict[str, Any]:
    return record(name, parent, second, "system", subtype=subtype, systemPayload=payload)


def write(path: Path, *records: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(map(json.dumps, records)))
    return path


def read(tmp_path: Path, *records: Any, reports: Any = None) -> Session:
    path = write(tmp_path / "s.jsonl", *records)
    (session,) = read_sessions(path, on_file=None if reports is None else reports.append)
    return session


def test_lengths_gaps_and_tools(tmp_path: Path) -> None:
    reports: list[FileReport] = []
    session = read(
        tmp_path,
        user("1", None, 0),
        answer("2", "1", 4, 12000, {"text": "hm", "thought": True}, call("c"), call("d")),
        system("3", "2", 4, "ui_telemetry", uiEvent={}),
        result("4", "3", 5, "c", toolCallResult={"callId": "c", "status": "success"}),
        result("5", "4", 8, "d", toolCallResult={"callId": "d", "status": "error"}),
        answer("6", "5", 9, 12100),
        reports=reports,
    )
    assert reports[0].format_name == "Qwen Code"
    first, second = session.turns
    assert (first.prompt_tokens, first.cached_tokens, first.output_tokens) == (12000, 6000, 40)
    assert [(one.name, one.end_s, one.is_error) for one in first.tools] == [
        ("run_shell_command", 1, False),
        ("run_shell_command", 4, True),
    ]
    assert (first.ended_by, first.tool_command, first.latency_s) == ("tool", "git log", 4)
    assert (second.gap_s, second.trigger, second.ended_by) == (4, "tool_result", "human")


@pytest.mark.parametrize(("total", "output"), [(1045, 40 + 5), (1040, 40), (None, 45)])
def test_thoughts_count_if_the_total_includes_them(
    tmp_path: Path, total: int | None, output: int
) -> None:
    counts = used(1000, thoughtsTokenCount=5, totalTokenCount=total)
    session = read(tmp_path, user("1", None, 0), answer("2", "1", 4, 0, usageMetadata=counts))
    assert session.turns[0].output_tokens == output


def test_system_record_may_come_first(tmp_path: Path) -> None:
    reports: list[FileReport] = []
    session = read(
        tmp_path,
        system("0", None, 0, "session_model", modelId="q"),
        user("1", "0", 0),
        answer("2", "1", 4, 1000),
        reports=reports,
    )
    assert (reports[0].format_name, len(session.turns)) == ("Qwen Code", 1)


def test_a_rewind_is_a_fork(tmp_path: Path) -> None:
    session = read(
        tmp_path,
        user("1", None, 1, "a" * 4000),
        answer("2", "1", 2, 2000),
        user("3", "2", 3, "b" * 4000),
        answer("4", "3", 4, 3000),
        system("5", "2", 5, "rewind", truncatedCount=2),
        user("6", "5", 6, "c" * 4000),
        answer("7", "6", 7, 3100),
    )
    assert [(event.kind, event.turn_index) for event in session.events] == [("fork", 2)]
    first, second, third = (turn.block_ids for turn in session.turns)
    assert second[:31] == third[:31] == first
    assert not set(second[33:]) & set(third[33:])


def test_compression_keeps_its_recorded_history(tmp_path: Path) -> None:
    kept = [
        {"role": "user", "parts": [{"text": "summary"}]},
        {"role": "model", "parts": [{"text": "Got it."}]},
    ]
    session = read(
        tmp_path,
        user("1", None, 1, "a" * 9000),
        answer("2", "1", 2, 5000),
        system("3", "2", 3, "chat_compression", info={}, compressedHistory=kept),
        user("4", "3", 6),
        answer("5", "4", 7, 2800),
    )
    assert [(event.kind, event.turn_index, event.after_s) for event in session.events] == [
        ("compaction", 1, 1)
    ]
    assert session.turns[1].gap_s == 4


def test_a_compression_that_failed_changes_nothing(tmp_path: Path) -> None:
    session = read(
        tmp_path,
        user("1", None, 1, "a" * 9000),
        answer("2", "1", 2, 5000),
        system("3", "2", 3, "chat_compression", info={"compressionStatus": 2}),
        user("4", "3", 6),
        answer("5", "4", 7, 5100),
    )
    assert session.events == ()
    assert session.turns[1].block_ids[:78] == session.turns[0].block_ids


def test_failed_request_adds_nothing(tmp_path: Path) -> None:
    session = read(
        tmp_path,
        user("1", None, 1),
        record("2", "1", 2, "assistant"),
        user("3", "2", 3),
        answer("4", "3", 4, 1000, usageMetadata=None),
    )
    assert [turn.output_tokens for turn in session.turns] == [2]
    assert session.turns[0].latency_s == 1


def sub_agent(name: str, *records: Any) -> list[dict[str, Any]]:
    own = {"agentId": name, "agentName": "Explore", "isSidechain": True, "sessionId": "s"}
    return [one | own for one in records]


def test_sub_agent_is_identified_by_its_directory(tmp_path: Path) -> None:
    project = tmp_path / ".qwen" / "projects" / "-repo"
    write(
        project / "chats" / "s.jsonl",
        user("1", None, 0),
        answer("2", "1", 4, 12000, call("c", "agent")),
        result("3", "2", 20, "c"),
        answer("4", "3", 22, 12500),
    )
    agent = sub_agent(
        "x",
        user("u", None, 5, "look"),
        record("a", "u", 7, "assistant", {"text": "I look"}, usageMetadata=used(3000)),
        record("b", "a", 7, "assistant", call("e")),
        record("c", "b", 8, "assistant", call("f")),
        result("d", "c", 9, "e"),
        result("e", "d", 10, "f"),
        record("f", "e", 15, "assistant", {"text": "Found"}, usageMetadata=used(3300)),
    )
    directory = project / "subagents" / "s"
    write(directory / "agent-x.jsonl", *agent)
    about = {"agentId": "x", "toolUseId": "c", "parentSessionId": "s", "parentAgentId": None}
    (directory / "agent-x.meta.json").write_text(json.dumps(about))
    (project / "chats" / "s.runtime.json").write_text("{}")
    (tmp_path / ".qwen" / "settings.json").write_text("{}")
    reports: list[FileReport] = []
    main, child = read_sessions(tmp_path / ".qwen", on_file=reports.append)
    assert [report.num_sessions for report in reports] == [2, 0]
    assert (child.parent_id, child.parent_turn, child.join_turn) == ("s", 0, 1)
    assert child.agent == "Explore"
    assert main.turns[0].tools[0].session_id == child.session_id == "s/x"
    assert [len(turn.tools) for turn in child.turns] == [2, 0]
    assert [turn.prompt_tokens for turn in child.turns] == [3000, 3300]
    (directory / "agent-x.meta.json").write_text("{")
    main, child = read_sessions(tmp_path / ".qwen")
    assert (child.parent_id, child.parent_turn) == ("s", None)


def test_branched_session_drops_copied_turns(tmp_path: Path) -> None:
    said = [user("1", None, 1, "a" * 4000), answer("2", "1", 2, 2000)]
    write(tmp_path / "s.jsonl", *said, user("3", "2", 3), answer("4", "3", 4, 2100))
    copied = [
        one | {"sessionId": "t", "forkedFrom": {"sessionId": "s", "messageUuid": one["uuid"]}}
        for one in said
    ]
    new = [user("5", "2", 5) | {"sessionId": "t"}, answer("6", "5", 6, 2200) | {"sessionId": "t"}]
    write(tmp_path / "a.jsonl", *copied, *new)
    old, branch = read_sessions(tmp_path)
    assert [turn.prompt_tokens for turn in branch.turns] == [2200]
    assert branch.turns[0].block_ids[:31] == old.turns[0].block_ids


def test_session_started_by_another_has_it_as_parent(tmp_path: Path) -> None:
    write(tmp_path / "s.jsonl", user("1", None, 1), answer("2", "1", 2, 2000))
    started = [
        system("0", None, 3, "parent_session", parentSessionId="s"),
        user("1", "0", 4),
        answer("2", "1", 5, 1000),
    ]
    write(tmp_path / "a.jsonl", *(one | {"sessionId": "t"} for one in started))
    _, child = read_sessions(tmp_path)
    assert (child.session_id, child.parent_id) == ("t", "s")


def test_a_damaged_message_stays_in_the_tree(tmp_path: Path) -> None:
    path = write(
        tmp_path / "s.jsonl",
        user("1", None, 1),
        answer("2", "1", 2, 1000),
        user("3", "2", 3) | {"message": {"parts": 7}},
        answer("4", "3", 4, 1100),
    )
    with pytest.raises(TraceError, match=r"line 3, message\.parts"):
        list(read_sessions(path))
    problems: list[TraceError] = []
    (session,) = read_sessions(path, on_skipped=problems.append)
    assert [turn.prompt_tokens for turn in session.turns] == [1000, 1100]
    assert (len(problems), session.events) == (1, ())
