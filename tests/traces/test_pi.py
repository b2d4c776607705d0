"""Reader of pi's and OpenClaw's sessions."""

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


HEAD = {"type": "session", "version": 3, "id": "s", "timestamp": at(0), "cwd": "/repo"}


def entry(name: str, parent: str | None, second: float, kind: str, **fields: Any) -> dict[str, Any]:
    return {"type": kind, "id": name, "parentId": parent, "timestamp": at(second)} | fields


def message(
    name: str, parent: str | None, second: float, role: str, content: Any, **fields: Any
) -> dict[str, Any]:
    said = {"role": role, "content": content, "timestamp": 1776679201000} | fields
    return entry(name, parent, second, "message", message=said)


def user(name: str, parent: str | None, second: float, text: str = "hello") -> dict[str, Any]:
    return message(name, parent, second, "user", [{"type": "text", "text": text}])


def answer(
    name: str, parent: str | None, second: float, prompt: int, *content: Any, **fields: Any
) -> dict[str, Any]:
    usage = {"input": prompt - prompt // 2, "cacheRead": prompt // 2, "cacheWrite": 0, "output": 9}
    told = {"provider": "p", "model": "m", "usage": usage, "stopReason": "stop"} | fields
    text = [{"type": "text", "text": f"answer {name}"}]
    return message(name, parent, second, "assistant", list(content) or text, **told)


def call(name: str) -> dict[str, Any]:
    return {"type": "toolCall", "id": name, "name": "bash", "arguments": {"command": "git log"}}


def result(name: str, parent: str, second: float, tool: str, **fields: Any) -> dict[str, Any]:
    told = {"toolCallId": tool, "toolName": "bash", "isError": False} | fields
    return message(name, parent, second, "toolResult", [{"type": "text", "text": "a"}], **told)


def write(path: Path, *entries: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(map(json.dumps, entries)))
    return path


def read(tmp_path: Path, *entries: Any, reports: Any = None) -> Session:
    path = write(tmp_path / "a.jsonl", *entries)
    (session,) = read_sessions(path, on_file=None if reports is None else reports.append)
    return session


def test_lengths_gaps_and_tools(tmp_path: Path) -> None:
    session = read(
        tmp_path,
        HEAD,
        entry("m", None, 0, "model_change", provider="p", modelId="m"),
        user("1", "m", 1),
        answer("2", "1", 5, 1000, call("c"), call("d"), stopReason="toolUse"),
        result("3", "2", 6, "c"),
        result("4", "3", 9, "d", isError=True),
        answer("5", "4", 12, 1200),
    )
    first, second = session.turns
    assert (first.prompt_tokens, first.cached_tokens, first.output_tokens) == (1000, 500, 9)
    assert (first.ended_by, first.tool_name, first.tool_command) == ("tool", "bash", "git log")
    assert [(one.end_s, one.is_error) for one in first.tools] == [(1, False), (4, True)]
    assert (first.latency_s, second.gap_s, second.trigger) == (4, 4, "tool_result")
    assert (second.ended_by, second.model, session.agent) == ("human", "m", "main")


def test_failed_requests_are_neither_turns_nor_in_prompts(tmp_path: Path) -> None:
    failed = {"usage": {"input": 0, "output": 0}, "stopReason": "error", "errorMessage": "busy"}
    session = read(
        tmp_path,
        HEAD,
        user("1", None, 1),
        message("2", "1", 2, "assistant", [], **failed),
        message("3", "2", 3, "assistant", [{"type": "text", "text": "I be"}], **failed),
        answer("4", "3", 9, 1000),
    )
    assert [turn.prompt_tokens for turn in session.turns] == [1000]
    assert (session.turns[0].latency_s, session.events) == (8, ())


def test_aborted_answer_is_a_turn_but_in_no_prompt(tmp_path: Path) -> None:
    session = read(
        tmp_path,
        HEAD,
        user("1", None, 1, "a" * 2000),
        answer("2", "1", 5, 1000, call("c"), stopReason="aborted"),
        user("3", "2", 8, "b" * 400),
        answer("4", "3", 12, 1100),
    )
    first, second = session.turns
    assert (first.ended_by, first.tools, second.trigger) == ("unknown", (), "user")
    assert second.block_ids[: len(first.block_ids)] == first.block_ids


def test_a_branch_is_a_fork(tmp_path: Path) -> None:
    session = read(
        tmp_path,
        HEAD,
        user("1", None, 1, "a" * 4000),
        answer("2", "1", 2, 2000),
        user("3", "2", 3, "b" * 4000),
        answer("4", "3", 4, 3000),
        entry("5", "2", 5, "branch_summary", fromId="4", summary="s" * 4000),
        user("6", "5", 6),
        answer("7", "6", 7, 3100),
    )
    assert [(event.kind, event.turn_index) for event in session.events] == [("fork", 2)]
    first, second, third = (turn.block_ids for turn in session.turns)
    assert second[:31] == third[:31] == first
    assert not set(second[32:]) & set(third[32:])


def test_compaction_keeps_summary_and_kept_entries(
    tmp_path: Path, assert_prefix_identity: Any
) -> None:
    session = read(
        tmp_path,
        HEAD,
        user("1", None, 1, "a" * 8000),
        answer("2", "1", 2, 3000),
        user("3", "2", 3, "b" * 8000),
        answer("4", "3", 4, 5000),
        entry("5", "4", 5, "compaction", summary="x" * 400, firstKeptEntryId="3", tokensBefore=1),
        user("6", "5", 6),
        answer("7", "6", 7, 3200),
        entry("8", "7", 8, "compaction", summary="y" * 400, firstKeptEntryId="3", tokensBefore=1),
        user("9", "8", 9),
        answer("10", "9", 10, 3300),
    )
    assert [(event.kind, event.turn_index, event.after_s) for event in session.events] == [
        ("compaction", 2, 1),
        ("compaction", 3, 1),
    ]
    assert [turn.prompt_tokens for turn in session.turns] == [3000, 5000, 3200, 3300]
    assert_prefix_identity([session])


def test_user_commands_and_extensions_are_in_the_prompt(tmp_path: Path) -> None:
    def lengths(**fields: Any) -> int:
        shell = {"role": "bashExecution", "command": "ls", "output": "o" * 4000} | fields
        session = read(
            tmp_path,
            HEAD,
            entry("1", None, 1, "message", message=shell),
            entry("2", "1", 2, "custom_message", customType="x", content="c", display=True),
            entry("3", "2", 2, "custom", customType="x", data={"big": "d" * 4000}),
            entry("4", "3", 2, "label", targetId="1", label="l"),
            user("5", "4", 3),
            answer("6", "5", 4, 100, usage=None),
        )
        return session.turns[0].prompt_tokens

    assert 1000 < lengths() < 1100
    assert lengths(excludeFromContext=True) < 100


def test_files_of_the_first_version_have_no_ids(tmp_path: Path) -> None:
    def bare(one: dict[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in one.items() if key not in ("id", "parentId")}

    head = {key: value for key, value in HEAD.items() if key != "version"} | {"provider": "p"}
    compaction = {"type": "compaction", "timestamp": at(5), "summary": "x", "tokensBefore": 9}
    session = read(
        tmp_path,
        head,
        bare(user("", None, 1)),
        bare(answer("2", None, 2, 1000)),
        bare(user("", None, 3, "b" * 8000)),
        compaction | {"firstKeptEntryIndex": 3},
        bare(answer("5", None, 7, 2300)),
    )
    assert [turn.prompt_tokens for turn in session.turns] == [1000, 2300]
    assert [event.kind for event in session.events] == ["compaction"]


def test_branched_session_drops_copied_turns(tmp_path: Path) -> None:
    said = [user("1", None, 1, "a" * 4000), answer("2", "1", 2, 2000)]
    write(tmp_path / "1_old.jsonl", HEAD, *said, user("3", "2", 3), answer("4", "3", 4, 2100))
    head = HEAD | {"id": "t", "parentSession": "C:\\pi\\sessions\\1_old.jsonl"}
    new = [user("5", "2", 5), answer("6", "5", 6, 2200)]
    branched = write(tmp_path / "2_new.jsonl", head, *said, *new)
    reports: list[FileReport] = []
    old, branch = read_sessions(tmp_path, on_file=reports.append)
    assert [turn.prompt_tokens for turn in branch.turns] == [2200]
    assert [event.kind for event in branch.events] == ["fork"]
    assert branch.turns[0].block_ids[:31] == old.turns[0].block_ids
    (alone,) = read_sessions(branched, on_file=reports.append)
    assert [turn.prompt_tokens for turn in alone.turns] == [2000, 2200]
    assert [report.num_orphans for report in reports] == [0, 0, 1]


def test_sessions_with_circular_origins_keep_their_turns(tmp_path: Path) -> None:
    said = [user("1", None, 1), answer("2", "1", 2, 2000)]
    for name, other in (("a", "b"), ("b", "a")):
        write(tmp_path / f"{name}.jsonl", HEAD | {"id": name, "parentSession": other}, *said)
    (session,) = read_sessions(tmp_path)
    assert [turn.prompt_tokens for turn in session.turns] == [2000]


def test_openclaws_own_messages_are_ignored(tmp_path: Path) -> None:
    sessions = tmp_path / "agents" / "main" / "sessions"
    mirror = {"provider": "openclaw", "model": "delivery-mirror", "usage": {"input": 0}}
    write(
        sessions / "s.jsonl",
        HEAD,
        entry("0", None, 0, "custom", customType="model-snapshot", data={}),
        user("1", "0", 1),
        answer("2", "1", 2, 1000),
        answer("3", "2", 3, 0, **mirror),
        user("4", "3", 4),
        answer("5", "4", 5, 1100),
    )
    (sessions / "sessions.json").write_text('{"agent:main:main": {"sessionId": "s"}}')
    (session,) = read_sessions(tmp_path)
    assert [turn.prompt_tokens for turn in session.turns] == [1000, 1100]


def test_openclaws_tool_calls_are_read(tmp_path: Path) -> None:
    made = {"type": "toolUse", "id": "c", "name": "exec", "input": {"command": "git log"}}
    session = read(
        tmp_path, HEAD, user("1", None, 1), answer("2", "1", 2, 1000, made, stopReason="toolUse")
    )
    turn = session.turns[0]
    assert (turn.tool_name, turn.tool_command, turn.ended_by) == ("exec", "git log", "tool")


@pytest.mark.parametrize("parent", ["3", "4", "5"])
def test_entries_with_circular_parents_are_read(tmp_path: Path, parent: str) -> None:
    compacted = {"summary": "x", "firstKeptEntryId": "0", "tokensBefore": 9}
    session = read(
        tmp_path,
        HEAD,
        user("3", parent, 1),
        answer("4", "3", 2, 1000),
        entry("5", "4", 3, "compaction", **compacted),
        answer("6", "5", 4, 900),
    )
    assert [turn.prompt_tokens for turn in session.turns] == [1000, 900]


def test_a_damaged_message_stays_in_the_tree(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.jsonl",
        HEAD,
        user("1", None, 1),
        answer("2", "1", 2, 1000),
        message("3", "2", 3, "user", 7),
        answer("4", "3", 4, 1100),
        entry("5", "gone", 5, "message", message={"role": "user", "content": "x"}),
        answer("6", "5", 6, 1200),
    )
    with pytest.raises(TraceError, match=r"line 4, message\.content"):
        list(read_sessions(path))
    problems: list[TraceError] = []
    (session,) = read_sessions(path, on_skipped=problems.append)
    assert [turn.prompt_tokens for turn in session.turns] == [1000, 1100, 1200]
    assert (len(problems), session.events) == (1, ())


def test_nulls_in_optional_fields(tmp_path: Path) -> None:
    usage = {"input": 900, "output": None, "cacheRead": None, "cacheWrite": None}
    session = read(
        tmp_path,
        HEAD | {"parentSession": None},
        user("1", None, 1),
        answer("2", "1", 2, 0, usage=usage, stopReason=None, model=None, provider=None),
    )
    assert (session.turns[0].prompt_tokens, session.turns[0].cached_tokens) == (900, None)
