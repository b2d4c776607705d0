"""Reader of Gemini CLI's chats."""

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


def user(name: str, second: float, content: Any = "hello") -> dict[str, Any]:
    return {"id": name, "timestamp": at(second), "type": "user", "content": content}


def answer(name: str, second: float, prompt: int = 0, **fields: Any) -> dict[str, Any]:
    message = {"id": name, "timestamp": at(second), "type": "gemini", "content": "", "model": "g"}
    tokens = {"input": prompt, "output": 10, "cached": prompt // 2, "thoughts": 5, "tool": 0}
    tokens["total"] = prompt + 15
    return message | ({"tokens": tokens} if prompt else {}) | fields


def tool(name: str, second: float, output: str = "a", **fields: Any) -> dict[str, Any]:
    call = {"id": name, "name": "run_shell_command", "args": {"command": "git log -5"}}
    response = {"id": name, "name": "run_shell_command", "response": {"output": output}}
    result = [{"functionResponse": response}]
    return call | {"result": result, "status": "success", "timestamp": at(second)} | fields


HEAD = {"sessionId": "s", "projectHash": "p", "startTime": at(0), "lastUpdated": at(59)}


def read_document(tmp_path: Path, *messages: Any, reports: Any = None) -> list[Session]:
    path = tmp_path / "session-1.json"
    path.write_text(json.dumps(HEAD | {"messages": messages}))
    return list(read_sessions(path, on_file=None if reports is None else reports.append))


def read_lines(tmp_path: Path, *records: Any, reports: Any = None) -> list[Session]:
    path = tmp_path / "session-1.jsonl"
    path.write_text("\n".join(map(json.dumps, [HEAD | {"kind": "main"}, *records])))
    return list(read_sessions(path, on_file=None if reports is None else reports.append))


READ = pytest.mark.parametrize("read", [read_document, read_lines])


@READ
def test_lengths_gaps_and_tools(tmp_path: Path, read: Any) -> None:
    calls = [tool("c1", 9), tool("c2", 11, status="error")]
    (session,) = read(
        tmp_path, user("0", 0), answer("1", 7, 1400, toolCalls=calls), answer("2", 15, 1650)
    )
    first, second = session.turns
    assert (first.prompt_tokens, first.cached_tokens, first.output_tokens) == (1400, 700, 15)
    assert (first.ended_by, first.tool_name, first.tool_command) == (
        "tool",
        "run_shell_command",
        "git log",
    )
    assert [(one.end_s, one.is_error) for one in first.tools] == [(2, False), (4, True)]
    assert (first.latency_s, second.latency_s, second.gap_s) == (7, 4, 4)
    assert (second.trigger, second.ended_by, second.model) == ("tool_result", "human", "g")
    assert second.block_ids[:21] == first.block_ids


@READ
def test_result_recorded_with_call_and_message_counts_once(tmp_path: Path, read: Any) -> None:
    said = [{"functionResponse": {"id": "c", "name": "x", "response": {"output": "a" * 9000}}}]
    calls = [tool("c", 9, "a" * 9000)]
    messages = [user("0", 0), answer("1", 7, toolCalls=calls)]
    (once,) = read(tmp_path, *messages, answer("2", 15))
    (twice,) = read(tmp_path, *messages, user("r", 9.5, said), answer("2", 15))
    assert twice.turns[1].prompt_tokens == once.turns[1].prompt_tokens
    assert (twice.turns[1].trigger, twice.turns[1].gap_s) == ("tool_result", 2.5)


@READ
def test_result_recorded_only_as_message_ends_its_tool(tmp_path: Path, read: Any) -> None:
    call = [{"functionCall": {"id": "c", "name": "read_file", "args": {}}}]
    said = [{"functionResponse": {"id": "c", "name": "read_file", "response": {}}}]
    (session,) = read(
        tmp_path,
        user("0", 0),
        answer("1", 7, 900, content=call),
        user("r", 10, said),
        answer("2", 15, 950),
    )
    (one,) = session.turns[0].tools
    assert (one.name, one.end_s, session.turns[1].trigger) == ("read_file", 3, "tool_result")


@READ
def test_program_messages_are_not_turns(tmp_path: Path, read: Any) -> None:
    shown = {"id": "i", "timestamp": at(1), "type": "error", "content": "API error"}
    made = {"id": "m", "timestamp": at(2), "type": "gemini", "content": "Binary received."}
    (session,) = read(tmp_path, user("0", 0), shown, made, user("1", 3), answer("2", 9, 500))
    assert [turn.prompt_tokens for turn in session.turns] == [500]
    assert session.turns[0].latency_s == 6


@READ
def test_a_session_without_an_answer_is_unanswered(tmp_path: Path, read: Any) -> None:
    with pytest.raises(TraceError, match="holds no answered request"):
        read(tmp_path, user("0", 0), {"id": "e", "type": "error", "content": "quota"})


@READ
def test_nulls_and_missing_usage(tmp_path: Path, read: Any) -> None:
    reports: list[FileReport] = []
    fields: dict[str, Any] = dict.fromkeys(("toolCalls", "thoughts", "tokens", "timestamp"))
    tokens = {"input": 800, "output": None, "cached": None, "thoughts": None, "total": None}
    (session,) = read(
        tmp_path,
        user("0", 0, None),
        answer("1", 1, content="x" * 400, **fields),
        answer("2", 2, tokens=tokens),
        reports=reports,
    )
    assert [turn.output_tokens for turn in session.turns] == [100, 0]
    assert session.turns[1].cached_tokens is None
    assert reports[0].num_estimated_lengths == 3
    assert reports[0].num_estimated_gaps == 1


@READ
def test_answer_written_with_results_ends_with_its_thoughts(tmp_path: Path, read: Any) -> None:
    reports: list[FileReport] = []
    thoughts = [{"subject": "x", "description": "y", "timestamp": at(4)}]
    calls = [tool("c", 9)]
    (session,) = read(
        tmp_path,
        user("0", 0),
        answer("1", 9, 900, toolCalls=calls, thoughts=thoughts),
        answer("2", 15, 950),
        reports=reports,
    )
    assert (session.turns[0].latency_s, session.turns[1].gap_s) == (4, 5)
    assert reports[0].num_estimated_gaps == 1


@READ
def test_times_that_go_backward(tmp_path: Path, read: Any) -> None:
    (session,) = read(
        tmp_path, user("0", 30), answer("1", 7, 900), user("2", 5), answer("3", 2, 950)
    )
    assert [(turn.gap_s, turn.latency_s) for turn in session.turns] == [(0, None), (0, None)]


def test_changed_message_is_one_turn(tmp_path: Path) -> None:
    (session,) = read_lines(
        tmp_path,
        user("0", 0),
        answer("1", 7, content="I look."),
        answer("1", 7, 1400, content="I look."),
        {"$set": {"lastUpdated": at(8)}},
        answer("1", 7, 1400, content="I look.", toolCalls=[tool("c", 9)]),
        answer("2", 15, 1650),
    )
    assert [turn.prompt_tokens for turn in session.turns] == [1400, 1650]
    assert session.turns[0].ended_by == "tool"
    assert session.events == ()


def test_a_rewind_is_a_fork(tmp_path: Path) -> None:
    (session,) = read_lines(
        tmp_path,
        user("0", 0, "a" * 4000),
        answer("1", 1, 2000),
        user("2", 2, "b" * 4000),
        answer("3", 3, 3000),
        {"$rewindTo": "2"},
        user("4", 5, "c" * 4000),
        answer("5", 6, 3100),
        {"$rewindTo": "unknown"},
        user("6", 7, "d" * 4000),
        answer("7", 8, 2100),
    )
    assert [(event.kind, event.turn_index) for event in session.events] == [
        ("fork", 2),
        ("fork", 3),
    ]
    first, second, third, fourth = (turn.block_ids for turn in session.turns)
    assert second[:31] == third[:31] == first
    assert not set(second[33:]) & set(third[33:])
    assert not set(first[20:]) & set(fourth[20:])


def test_removed_messages_are_a_compaction(tmp_path: Path) -> None:
    kept = [user("9", 8, [{"text": "summary"}]), {"id": "8", "type": "gemini", "content": "Got it"}]
    (session,) = read_lines(
        tmp_path,
        user("0", 0, "a" * 9000),
        answer("1", 1, 5000),
        {"$set": {"messages": kept}},
        user("2", 9),
        answer("3", 10, 2900),
    )
    (event,) = session.events
    assert (event.kind, event.turn_index) == ("compaction", 1)
    assert [turn.prompt_tokens for turn in session.turns] == [5000, 2900]


def test_rewritten_content_is_no_compaction(tmp_path: Path) -> None:
    said = [user("0", 0), answer("1", 1, 5000, content="Hi")]
    parts = [said[0] | {"content": [{"text": "hello"}]}, said[1] | {"content": [{"text": "Hi"}]}]
    (session,) = read_lines(
        tmp_path, *said, {"$set": {"messages": parts}}, user("2", 9), answer("3", 10, 5100)
    )
    assert session.events == ()
    assert session.turns[1].block_ids[:78] == session.turns[0].block_ids


def test_session_continued_by_a_later_version(tmp_path: Path) -> None:
    said = [{"functionResponse": {"id": "c", "name": "x", "response": {"output": "a" * 8000}}}]
    call: dict[str, Any] = {"functionCall": {"id": "c", "name": "run_shell_command"}}
    call["functionCall"] |= {"args": {"command": "git log -5"}}
    thought = {"text": "hm", "thought": True, "thoughtSignature": "s"}
    first = [
        user("0", 0, [{"text": "context " * 400}]),
        user("1", 1, [{"text": "hello"}]),
        answer("2", 7, 3000, content="I look."),
        answer("2", 7, 3000, content="I look.", toolCalls=[tool("c", 9, "a" * 8000)]),
        user("3", 9.5, said),
        answer("4", 15, 5200, content="Done."),
    ]
    parts = [{"text": "I "}, {"text": "look.\n"}]
    resumed = [
        *(first[0], first[1], first[3] | {"content": [thought, *parts, call]}, first[4]),
        first[5] | {"content": [{"text": "Done."}]},
    ]
    (session,) = read_lines(
        tmp_path,
        {"$set": {"messages": first[:1], "lastUpdated": at(0)}},
        *first[1:],
        {"$set": {"sessionId": "s"}},
        {"$set": {"messages": resumed, "lastUpdated": at(40)}},
        user("5", 45),
        answer("6", 50, 5400),
    )
    assert (session.session_id, session.events) == ("s", ())
    before, last = session.turns[1:]
    assert before.tool_name is None
    assert last.gap_s == 30
    assert last.block_ids[: len(before.block_ids)] == before.block_ids
    assert [turn.prompt_tokens for turn in session.turns] == [3000, 5200, 5400]


def test_damaged_message_loses_no_other_message(tmp_path: Path) -> None:
    path = tmp_path / "session-1.json"
    messages = [user("0", 0), answer("1", 1, 900), {"id": 7}, answer("2", 2, 950)]
    path.write_text(json.dumps(HEAD | {"messages": messages}))
    with pytest.raises(TraceError, match=r"messages\[2\]\.id"):
        list(read_sessions(path))
    problems: list[TraceError] = []
    (session,) = read_sessions(path, on_skipped=problems.append)
    assert [turn.prompt_tokens for turn in session.turns] == [900, 950]
    assert len(problems) == 1


def test_sub_agent_is_in_the_directory_of_its_parents_id(tmp_path: Path) -> None:
    chats = tmp_path / ".gemini" / "tmp" / "project" / "chats"
    (chats / "s").mkdir(parents=True)
    calls = [tool("c", 9, agentId="x") | {"name": "codebase_investigator"}]
    records = [HEAD, user("0", 0), answer("1", 2, 900, toolCalls=calls), answer("2", 15, 950)]
    (chats / "session-1.jsonl").write_text("\n".join(map(json.dumps, records)))
    sub = [HEAD | {"sessionId": "x", "kind": "subagent"}, user("0", 3), answer("1", 8, 600)]
    (chats / "s" / "x.jsonl").write_text("\n".join(map(json.dumps, sub)))
    main, child = read_sessions(tmp_path / ".gemini" / "tmp")
    assert (child.session_id, child.parent_id, child.parent_turn) == ("x", "s", 0)
    assert (child.agent, child.join_turn) == ("codebase_investigator", 1)
    assert main.turns[0].tools[0].session_id == "x"


def test_other_files_beside_sessions_are_ignored(tmp_path: Path) -> None:
    project = tmp_path / ".gemini" / "tmp" / "project"
    chats = project / "chats"
    chats.mkdir(parents=True)
    document = HEAD | {"messages": [user("0", 0), answer("1", 2, 900)]}
    (chats / "session-1.json").write_text(json.dumps(document))
    # The same session, continued by a version that writes lines.
    records = [HEAD, user("0", 0), answer("1", 2, 900), user("2", 5), answer("3", 9, 950)]
    (chats / "session-1.jsonl").write_text("\n".join(map(json.dumps, records)))
    (project / "logs.json").write_text("[]")
    (project / "checkpoint-x.json").write_text("[]")
    (project.parent.parent / "settings.json").write_text("{}")
    reports: list[FileReport] = []
    (session,) = read_sessions(tmp_path / ".gemini", on_file=reports.append)
    assert len(session.turns) == 2
    assert [report.path.name for report in reports] == ["session-1.jsonl", "session-1.json"]
