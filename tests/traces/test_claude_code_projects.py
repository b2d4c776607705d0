"""Directories of Claude Code's sessions: tools' times, sub-agents, skipped parts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.traces.claude_code import answered, result, said, usage

from holdfast.errors import TraceError
from holdfast.traces.io import FileReport, read_sessions, trace_files
from holdfast.traces.record import Session, ToolSpan

SIDE: dict[str, Any] = {"isSidechain": True, "agentId": "x"}
TASK = {"prompt": "look around", "subagent_type": "Explore"}


def write(path: Path, *lines: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\n".join(map(msgspec.json.encode, lines)))
    return path


def session_with_sub_agent(directory: Path) -> Path:
    task = ("t", "Task", TASK)
    returned = {"agentId": "x", "status": "completed"}
    write(
        directory / "s" / "subagents" / "agent-x.jsonl",
        said("v1", None, 5, "look around", **SIDE),
        answered("b1", "v1", 9, usage(320), **SIDE),
    )
    return write(
        directory / "s.jsonl",
        said("u1", None, 0),
        answered("a1", "u1", 4, usage(640, 600), tool=task),
        result("r", "a1", 30, "t", toolUseResult=returned),
        answered("a2", "r", 33, usage(800, 640)),
    )


def test_models_latencies_and_cache_reads_are_those_of_each_turn(tmp_path: Path) -> None:
    main, _ = read_sessions(session_with_sub_agent(tmp_path))
    assert [turn.model for turn in main.turns] == ["opus", "opus"]
    assert [turn.latency_s for turn in main.turns] == [4.0, 3.0]
    assert [turn.cached_tokens for turn in main.turns] == [600, 640]


def test_tools_are_timed_from_their_call_to_their_result(tmp_path: Path) -> None:
    command = {"command": "cd /x; npm test"}
    background = command | {"run_in_background": True}
    failed = result("r2", "a2", 40, "t2")
    failed["message"]["content"][0]["is_error"] = True
    path = write(
        tmp_path / "s.jsonl",
        said("u1", None, 0),
        answered("a1", "u1", 4, usage(640), message_id="m", tool=("t1", "Bash", command)),
        answered("a2", "a1", 10, usage(640), message_id="m", tool=("t2", "Read", {})),
        answered("a3", "a2", 10, usage(640), message_id="m", tool=("t3", "Bash", background)),
        result("r1", "a1", 25, "t1"),
        failed,
        answered("a4", "r2", 44, None),
    )
    (session,) = read_sessions(path)
    assert session.turns[0].tools == (
        ToolSpan("Bash", "npm test", 0.0, 15.0, is_error=False),
        ToolSpan("Read", None, 0.0, 30.0, is_error=True),
        ToolSpan("Bash", "npm test &", 0.0, None, is_background=True),
    )
    assert (session.turns[1].tools, session.turns[1].cached_tokens) == ((), None)


def test_the_call_that_started_a_sub_agent_names_its_session(tmp_path: Path) -> None:
    main, explorer = read_sessions(session_with_sub_agent(tmp_path))
    (tool,) = main.turns[0].tools
    assert (tool.name, tool.session_id, tool.end_s) == ("Task", explorer.session_id, 26.0)


def test_sub_agent_files_are_read_once_with_their_session(tmp_path: Path) -> None:
    path = session_with_sub_agent(tmp_path / "project")
    (tmp_path / "project" / "sessions-index.json").write_text("{}")
    (tmp_path / "project" / "s" / "subagents" / "agent-x.meta.json").write_text("{}")
    write(tmp_path / "project" / "s" / "tool-results" / "toolu_1.json", {"a": 1})
    assert trace_files(tmp_path) == (path,)
    reports: list[FileReport] = []
    sessions = list(read_sessions(tmp_path, on_file=reports.append))
    assert [session.session_id for session in sessions] == ["s", "s/x"]
    assert [(report.path.name, report.num_sessions) for report in reports] == [
        ("s.jsonl", 2),
        ("agent-x.jsonl", 0),
    ]


def test_sub_agents_without_their_session_are_read_alone(tmp_path: Path) -> None:
    session_with_sub_agent(tmp_path).unlink()
    (orphan,) = read_sessions(tmp_path)
    assert (orphan.session_id, orphan.parent_id) == ("s/x", None)


@pytest.mark.parametrize(
    "lines",
    [
        [said("u1", None, 0)],
        [{"type": "summary", "summary": "earlier", "leafUuid": "z"}],
        [{"type": "file-history-snapshot", "messageId": "m", "snapshot": {}}],
        [
            {"type": "queue-operation", "operation": "enqueue", "sessionId": "s"}
            | {"timestamp": "2026-01-05T10:00:00Z"}
        ],
    ],
    ids=["unanswered", "summary", "snapshot", "queue"],
)
def test_sessions_without_an_answer_are_dropped_and_counted(
    tmp_path: Path, lines: list[Any]
) -> None:
    write(tmp_path / "empty.jsonl", *lines)
    session_with_sub_agent(tmp_path)
    reports: list[FileReport] = []
    sessions = list(read_sessions(tmp_path, on_file=reports.append))
    assert [session.session_id for session in sessions] == ["s", "s/x"]
    assert {report.path.name: report.num_unanswered for report in reports} == {
        "empty.jsonl": 1,
        "s.jsonl": 0,
        "agent-x.jsonl": 0,
    }


def lenient(path: Path) -> tuple[list[Session], list[str]]:
    errors: list[TraceError] = []
    sessions = list(read_sessions(path, on_skipped=errors.append))
    return sessions, [str(error) for error in errors]


def test_lenient_no_answered_request_is_no_error(tmp_path: Path) -> None:
    assert lenient(write(tmp_path / "s.jsonl", said("u1", None, 0))) == ([], [])


def test_entry_with_a_bad_message_stays_in_the_tree(tmp_path: Path) -> None:
    lines = [
        said("u1", None, 0),
        answered("a1", "u1", 4, usage(6400)),
        said("u2", "a1", 10) | {"message": 5},
        answered("a2", "u2", 14, usage(6500)),
    ]
    (session,), errors = lenient(write(tmp_path / "s.jsonl", *lines))
    assert len(errors) == 1
    assert "s.jsonl: line 3, message: Expected `object`, got `int`" in errors[0]
    one, two = session.turns
    assert two.block_ids[:100] == one.block_ids


def test_bad_sub_agent_line_is_skipped_in_its_own_file_only(tmp_path: Path) -> None:
    path = session_with_sub_agent(tmp_path)
    sub_agent = tmp_path / "s" / "subagents" / "agent-x.jsonl"
    sub_agent.write_bytes(b"{]\n" + sub_agent.read_bytes())
    sessions, errors = lenient(path)
    assert [len(session.turns) for session in sessions] == [2, 1]
    assert len(errors) == 1
    assert "agent-x.jsonl: line 1" in errors[0]


def test_limited_number_of_unknown_lines_may_come_first(tmp_path: Path) -> None:
    title = {"type": "custom-title", "customTitle": "x"}
    lines = [said("u1", None, 0), answered("a1", "u1", 4, usage(640))]
    (session,) = read_sessions(write(tmp_path / "s.jsonl", *[title] * 63, *lines))
    assert len(session.turns) == 1
    with pytest.raises(TraceError, match="unknown layout with the fields customTitle, type"):
        list(read_sessions(write(tmp_path / "s.jsonl", *[title] * 64, *lines)))
