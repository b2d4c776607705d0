"""Claude Code's entries in an order other than the conversation's."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from tests.traces.claude_code import answered, entry, result, said, usage

from holdfast.errors import TraceError
from holdfast.traces.io import FileReport, read_sessions
from holdfast.traces.record import Session, ToolSpan


def conversation() -> list[Any]:
    """Build an answer in two parts with a call, and a note after the next answer."""
    return [
        said("u1", None, 0),
        answered("a1", "u1", 5, usage(640), message_id="m", stop=None),
        answered("a2", "a1", 6, usage(640), message_id="m", tool=("t", "Bash", {"command": "ls"})),
        result("r1", "a2", 8, "t"),
        answered("a3", "r1", 12, usage(800, 640)),
        entry("system", "n1", "a3", 12, subtype="turn_duration"),
        said("u2", "n1", 30),
        answered("a4", "u2", 34, usage(1000, 800)),
    ]


@pytest.fixture
def read(write_lines: Any) -> Any:
    def build(lines: list[Any]) -> list[Session]:
        return list(read_sessions(write_lines("s.jsonl", *lines)))

    return build


def test_entries_written_before_their_parent_follow_it(read: Any) -> None:
    first, part, call, outcome, answer, note, *others = conversation()
    (session,) = read([first, part, outcome, call, note, answer, *others])
    assert [turn.prompt_tokens for turn in session.turns] == [640, 800, 1000]
    assert [turn.gap_s for turn in session.turns] == [0.0, 2.0, 18.0]
    assert session.turns[0].tools == (ToolSpan("Bash", "ls", 0.0, 2.0, is_error=False),)
    for before, after in zip(session.turns, session.turns[1:], strict=False):
        assert after.block_ids[: len(before.block_ids)] == before.block_ids


@pytest.mark.parametrize("seed", range(20))
def test_any_order_of_the_lines_is_the_same_conversation(read: Any, seed: int) -> None:
    lines = conversation()
    in_order = read(lines)
    random.Random(seed).shuffle(lines)
    assert read(lines) == in_order


def test_entries_with_a_missing_parent_begin_a_new_history(read: Any) -> None:
    lines = conversation()
    del lines[3]
    (session,) = read(lines)
    assert [turn.prompt_tokens for turn in session.turns] == [640, 800, 1000]
    assert session.turns[0].tools == (ToolSpan("Bash", "ls", 0.0, None),)


def test_entries_with_circular_parents_are_read(read: Any) -> None:
    (session,) = read([said("u1", "a1", 0), answered("a1", "u1", 4, usage(640))])
    assert len(session.turns) == 1


def test_resumed_session_has_the_id_of_its_own_file(tmp_path: Path, write_lines: Any) -> None:
    old = [said("u1", None, 0, sessionId="a"), answered("a1", "u1", 4, usage(640), sessionId="a")]
    new = [said("u2", "a1", 9, sessionId="b"), answered("a2", "u2", 12, usage(800), sessionId="b")]
    write_lines("a.jsonl", *old)
    write_lines("b.jsonl", *old, *new)
    one, other = read_sessions(tmp_path)
    assert (one.session_id, len(one.turns)) == ("a", 1)
    assert (other.session_id, len(other.turns)) == ("b", 2)


_ID = "0f0f0f0f-0000-4000-8000-00000000000a"


def _side(agent: str, time_s: int) -> list[Any]:
    side: Any = {"isSidechain": True, "agentId": agent}
    return [
        said(f"{agent}1", None, time_s, f"told {agent}", **side),
        answered(f"{agent}2", f"{agent}1", time_s + 3, usage(320), **side),
    ]


@pytest.fixture
def project(tmp_path: Path, write_lines: Any) -> Path:
    """Write a session with a workflow of two agents in its second turn, and its files."""
    run = f"{_ID}/subagents/workflows/wf_7"
    (tmp_path / run).mkdir(parents=True)
    (tmp_path / _ID / "workflows").mkdir()
    launched = {"status": "async_launched", "runId": "wf_7", "transcriptDir": f"/home/x/{run}"}
    write_lines(
        f"{_ID}.jsonl",
        said("u1", None, 0),
        answered("a1", "u1", 4, usage(640)),
        said("u2", "a1", 10),
        answered("a2", "u2", 14, usage(700), tool=("t", "Workflow", {"scriptPath": "/w.js"})),
        result("r1", "a2", 15, "t", toolUseResult=launched),
        answered("a3", "r1", 18, usage(800)),
    )
    for at, agent in enumerate("xy"):
        write_lines(f"{run}/agent-{agent}.jsonl", *_side(agent, 16 + at))
        write_lines(f"{run}/agent-{agent}.meta.json", {"agentType": "workflow-subagent"})
    write_lines(f"{run}/journal.jsonl", {"type": "started", "agentId": "x"})
    write_lines(f"{_ID}/workflows/wf_7.json", {"runId": "wf_7", "status": "completed"})
    write_lines("bridge-pointer.json", {"sessionId": "x", "environmentId": "y"})
    return tmp_path


def test_workflow_agents_are_sub_agents_of_the_calling_turn(project: Path) -> None:
    reports: list[FileReport] = []
    main, *agents = read_sessions(project, on_file=reports.append)
    assert [report.path.suffix for report in reports] == [".jsonl"] * 3
    assert [agent.session_id for agent in agents] == ["s/x", "s/y"]
    for agent in agents:
        assert (agent.parent_id, agent.parent_turn, agent.join_turn) == ("s", 1, None)
        assert agent.agent == "workflow-subagent"
    (tool,) = main.turns[1].tools
    assert (tool.name, tool.is_background, tool.session_id) == ("Workflow", True, "s/x")


def test_turn_with_a_workflow_result_joins_its_agents(project: Path, write_lines: Any) -> None:
    path = project / f"{_ID}.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"async_launched"', b'"completed"'))
    _, *agents = read_sessions(project)
    assert [agent.join_turn for agent in agents] == [2, 2]


@pytest.mark.parametrize(
    "name",
    [
        "subagents/agent-z.meta.json",
        "subagents/workflows/wf_7/state.json",
        "workflows/scripts/a.json",
        "tool-results/toolu_1.json",
        "memory/notes.jsonl",
    ],
)
def test_other_files_beside_a_session_are_ignored(
    project: Path, write_lines: Any, name: str
) -> None:
    (project / _ID / name).parent.mkdir(parents=True, exist_ok=True)
    write_lines(f"{_ID}/{name}", {"a": 1})
    assert len(list(read_sessions(project))) == 3


def test_a_directory_beside_a_file_of_another_name_is_read(
    tmp_path: Path, write_lines: Any
) -> None:
    (tmp_path / "s").mkdir()
    write_lines("s.jsonl", *conversation())
    write_lines("s/other.jsonl", {"a": 1})
    with pytest.raises(TraceError, match=r"other\.jsonl: line 1: unknown layout"):
        list(read_sessions(tmp_path))


def test_file_of_notes_only_is_an_unanswered_session(tmp_path: Path, write_lines: Any) -> None:
    write_lines("a.jsonl", {"type": "last-prompt", "lastPrompt": "x", "sessionId": "a"})
    write_lines("s.jsonl", *conversation())
    reports: list[FileReport] = []
    (session,) = read_sessions(tmp_path, on_file=reports.append)
    assert session.session_id == "s"
    assert [report.num_unanswered for report in reports] == [1, 0]
