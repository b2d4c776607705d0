"""Reader of Claude Code's session files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.traces.claude_code import answered, entry, result, said, usage

from holdfast.errors import TraceError
from holdfast.traces.io import FileReport, read_sessions
from holdfast.traces.record import Session, common_prefix_length


@pytest.fixture
def read(write_lines: Any) -> Any:
    def build(*lines: dict[str, Any], **subagents: list[dict[str, Any]]) -> list[Session]:
        path: Path = write_lines("s.jsonl", *lines)
        for name, entries in subagents.items():
            directory = path.parent / "s" / "subagents"
            directory.mkdir(parents=True, exist_ok=True)
            write_lines(f"s/subagents/agent-{name}.jsonl", *entries)
        return list(read_sessions(path))

    return build


def shared_blocks(session: Session, left: int, right: int) -> int:
    turns = session.turns
    return common_prefix_length(turns[left].block_ids, turns[right].block_ids)


def test_request_and_answer_are_a_turn_with_lengths_and_times(read: Any) -> None:
    (session,) = read(
        said("u1", None, 0),
        answered("a1", "u1", 4, usage(6400, 6000, 80), tool=("t1", "Read", {"file_path": "x"})),
        result("r1", "a1", 7, "t1"),
        answered("a2", "r1", 9, usage(7040, 6400, 30)),
        said("u2", "a2", 69),
        answered("a3", "u2", 72, usage(7200, 7040, 20)),
    )
    first, second, third = session.turns
    assert [turn.prompt_tokens for turn in session.turns] == [6400, 7040, 7200]
    assert [turn.output_tokens for turn in session.turns] == [80, 30, 20]
    assert [turn.gap_s for turn in session.turns] == [0.0, 3.0, 60.0]
    assert [turn.trigger for turn in session.turns] == ["user", "tool_result", "user"]
    assert [turn.ended_by for turn in session.turns] == ["tool", "human", "human"]
    assert (first.tool_name, second.tool_name, third.tool_name) == ("Read", None, None)
    assert (session.session_id, session.agent, session.block_size_tokens) == ("s", "main", 64)


def test_prompt_shares_repeated_messages_with_the_previous_one(read: Any) -> None:
    (session,) = read(
        said("u1", None, 0),
        answered("a1", "u1", 4, usage(6400)),
        said("u2", "a1", 10),
        answered("a2", "u2", 14, usage(6500)),
    )
    assert shared_blocks(session, 0, 1) == 6400 // 64


def test_answer_parts_are_one_turn_with_the_last_length(read: Any) -> None:
    (session,) = read(
        said("u1", None, 0),
        answered("a1", "u1", 4, usage(640, output=1), message_id="m", stop=None),
        answered("a2", "a1", 9, usage(640, output=90), message_id="m", tool=("t", "Bash", {})),
        result("r", "a2", 10, "t"),
        answered("a3", "r", 12, usage(900)),
    )
    assert [turn.output_tokens for turn in session.turns] == [90, 50]
    assert session.turns[1].gap_s == 1.0


def test_repeated_line_counts_once(read: Any) -> None:
    lines = [said("u1", None, 0), answered("a1", "u1", 4, stop=None)]
    assert read(*lines, *lines)[0].turns == read(*lines)[0].turns


def test_length_recorded_too_early_is_estimated_and_counted(
    write_lines: Any,
) -> None:
    text = "x" * 400
    line = answered("a1", "u1", 4, usage(640, output=1), stop=None)
    line["message"]["content"] = [{"type": "text", "text": text}]
    path = write_lines("s.jsonl", said("u1", None, 0), line)
    reports: list[FileReport] = []
    (session,) = read_sessions(path, on_file=reports.append)
    assert 100 <= session.turns[0].output_tokens <= 110
    assert reports[0].num_estimated_lengths == 1


def test_without_usage_both_lengths_are_estimated_from_the_text(write_lines: Any) -> None:
    path = write_lines(
        "s.jsonl", said("u1", None, 0, "x" * 4000), answered("a1", "u1", 4, None, stop=None)
    )
    reports: list[FileReport] = []
    (session,) = read_sessions(path, on_file=reports.append)
    assert 1000 <= session.turns[0].prompt_tokens <= 1010
    assert reports[0].num_estimated_lengths == 2


@pytest.mark.parametrize("last", ["r1", "r2"])
def test_results_of_parallel_calls_are_all_in_the_next_prompt(read: Any, last: str) -> None:
    lines = [
        said("u1", None, 0),
        answered("a1", "u1", 4, usage(640), message_id="m", tool=("t1", "Read", {})),
        answered("a2", "a1", 5, usage(640), message_id="m", tool=("t2", "Bash", {})),
        result("r1", "a1", 6, "t1"),
        result("r2", "a2", 8, "t2"),
        answered("a3", last, 9),
    ]
    for line in lines[3:5]:
        line["message"]["content"][0]["content"] = "x" * 4000
    (session,) = read(*lines)
    assert 2640 < session.turns[1].prompt_tokens < 2800
    assert session.turns[1].gap_s == 3.0


def test_message_queued_during_the_answer_has_no_gap(read: Any) -> None:
    (session,) = read(
        said("u1", None, 0),
        answered("a1", "u1", 9, usage(640)),
        said("u2", "a1", 5),
        answered("a2", "u2", 12, usage(700)),
    )
    assert session.turns[1].gap_s == 0.0


def test_fork_shares_messages_before_the_edited_one(read: Any) -> None:
    (session,) = read(
        said("u1", None, 0),
        answered("a1", "u1", 4, usage(6400)),
        said("u2", "a1", 10),
        answered("a2", "u2", 14, usage(9600)),
        said("u3", "a1", 20, "said otherwise"),
        answered("a3", "u3", 24, usage(9600)),
    )
    shared = shared_blocks(session, 1, 2)
    # The answer is between the first prompt and the edited message.
    assert 100 < shared < 150
    assert shared_blocks(session, 0, 2) == 100


def test_a_compaction_keeps_system_message_and_tools_only(read: Any) -> None:
    (session,) = read(
        said("u1", None, 0, "x" * 400),
        answered("a1", "u1", 4, usage(6400)),
        entry("system", "c", None, 20, subtype="compact_boundary", logicalParentUuid="a1"),
        said("u2", "c", 20, "y" * 4000, isCompactSummary=True),
        said("u3", "u2", 30),
        answered("a2", "u3", 34, usage(7400)),
    )
    # About 100 of 6400 tokens are text.
    assert 97 <= shared_blocks(session, 0, 1) < 100
    assert session.turns[1].trigger == "user"


def test_prompt_with_lost_messages_shares_cached_tokens(read: Any) -> None:
    (session,) = read(
        said("u1", None, 0),
        answered("a1", "u1", 4, usage(6400)),
        said("u2", "a1", 10),
        answered("a2", "u2", 14, usage(12800)),
        said("u3", "a2", 20),
        answered("a3", "u3", 24, usage(12000, cached=6400)),
        said("u4", "a3", 30),
        answered("a4", "u4", 34, usage(12100)),
    )
    assert shared_blocks(session, 1, 2) == 100
    assert shared_blocks(session, 2, 3) == 12000 // 64


def test_program_messages_keep_the_tool_result_trigger(read: Any) -> None:
    (session,) = read(
        said("u1", None, 0),
        answered("a1", "u1", 4, usage(640), tool=("t", "Read", {})),
        entry("progress", "p", "a1", 5, data={"type": "hook_progress"}),
        result("r", "a1", 6, "t"),
        said("m", "r", 7, isMeta=True),
        entry("attachment", "x", "m", 7, attachment={"type": "todo", "content": []}),
        answered("a2", "x", 9, usage(900)),
    )
    assert session.turns[1].trigger == "tool_result"
    assert session.turns[1].gap_s == 3.0


def test_an_interrupted_tool_is_followed_by_the_user(read: Any) -> None:
    (session,) = read(
        said("u1", None, 0),
        answered("a1", "u1", 4, usage(640), tool=("t", "Bash", {})),
        result("r", "a1", 6, "t"),
        said("u2", "r", 40),
        answered("a2", "u2", 49, usage(900)),
    )
    assert (session.turns[1].trigger, session.turns[1].gap_s) == ("user", 36.0)


def test_provider_errors_are_not_answers(read: Any) -> None:
    (session,) = read(
        said("u1", None, 0),
        answered("e1", "u1", 2, usage(1), isApiErrorMessage=True),
        answered("e2", "e1", 3, usage(1), model="<synthetic>"),
        answered("a1", "e2", 4, usage(640)),
    )
    assert [turn.prompt_tokens for turn in session.turns] == [640]


@pytest.mark.parametrize(
    ("stop", "ended_by"),
    [("end_turn", "human"), ("stop_sequence", "human"), (None, "human"), ("max_tokens", "unknown")],
)
def test_answer_tells_the_turn_end(read: Any, stop: str | None, ended_by: str) -> None:
    (session,) = read(said("u1", None, 0), answered("a1", "u1", 4, usage(640), stop=stop))
    assert session.turns[0].ended_by == ended_by


def test_parallel_calls_name_the_decisive_tool_and_command(
    read: Any,
) -> None:
    command = {"command": "cd /secret && go test ./...", "run_in_background": True}
    (session,) = read(
        said("u1", None, 0),
        answered("a1", "u1", 4, usage(640), message_id="m", tool=("t1", "Bash", command)),
        answered("a2", "a1", 5, usage(640), message_id="m", tool=("t2", "Read", {})),
    )
    assert (session.turns[0].tool_name, session.turns[0].tool_command) == ("Bash", "go test &")


TASK = {"prompt": "look around", "subagent_type": "Explore", "description": "x"}


def test_sub_agent_file_has_parent_and_calling_turn(
    read: Any,
) -> None:
    agent: dict[str, Any] = {"isSidechain": True, "agentId": "ag1"}
    main, explorer = read(
        said("u1", None, 0),
        answered("a1", "u1", 4, usage(640), tool=("other", "Task", TASK)),
        said("u2", "a1", 5),
        answered("a2", "u2", 6, usage(700), tool=("t", "Task", TASK)),
        result("r", "a2", 30, "t", toolUseResult={"agentId": "ag1", "status": "completed"}),
        answered("a3", "r", 33, usage(800)),
        ag1=[
            said("v1", None, 7, "look around", **agent),
            answered("b1", "v1", 9, usage(320), tool=("t9", "Grep", {}), **agent),
            result("w1", "b1", 10, "t9", **agent),
            answered("b2", "w1", 29, usage(400), **agent),
        ],
    )
    assert (explorer.session_id, explorer.agent) == ("s/ag1", "Explore")
    assert (explorer.parent_id, explorer.parent_turn) == (main.session_id, 1)
    assert [turn.prompt_tokens for turn in explorer.turns] == [320, 400]
    assert len(main.turns) == 3


def test_sub_agent_in_the_same_file_found_by_its_prompt(read: Any) -> None:
    main, explorer = read(
        said("u1", None, 0),
        answered("a1", "u1", 4, usage(640), tool=("t", "Task", TASK)),
        said("v1", None, 5, "look around", isSidechain=True),
        answered("b1", "v1", 9, usage(320), isSidechain=True),
        result("r", "a1", 30, "t"),
        answered("a2", "r", 33, usage(800)),
    )
    assert (explorer.parent_id, explorer.parent_turn, explorer.agent) == ("s", 0, "Explore")
    assert [turn.prompt_tokens for turn in main.turns] == [640, 800]


def test_a_sub_agent_whose_call_is_not_recorded_has_no_parent(read: Any) -> None:
    (orphan,) = read(
        said("v1", None, 5, isSidechain=True, agentId="x"),
        answered("b1", "v1", 9, usage(320), isSidechain=True, agentId="x"),
    )
    assert (orphan.session_id, orphan.parent_id, orphan.agent) == ("s/x", None, "")


def test_sessions_share_the_cached_head(write_lines: Any) -> None:
    for name, cached in (("one", 3200), ("two", 2560)):
        write_lines(
            f"{name}.jsonl",
            said("u1", None, 0, name, sessionId=name),
            answered("a1", "u1", 4, usage(6400, cached), sessionId=name),
        )
    path = write_lines(
        "three.jsonl",
        said("u1", None, 0, sessionId="three"),
        answered("a1", "u1", 4, usage(6400, 3200), sessionId="three", version="1.0.0"),
    )
    one, three, two = read_sessions(path.parent)
    assert common_prefix_length(one.turns[0].block_ids, two.turns[0].block_ids) == 2560 // 64
    assert common_prefix_length(one.turns[0].block_ids, three.turns[0].block_ids) == 0


def test_format_detected_after_other_lines(read: Any) -> None:
    (session,) = read(
        {"type": "summary", "summary": "earlier", "leafUuid": "z"},
        {"type": "file-history-snapshot", "messageId": "m", "snapshot": {}},
        said("u1", None, 0),
        answered("a1", "u1", 4, usage(640)),
    )
    assert len(session.turns) == 1


def test_a_session_without_an_answer_is_an_error(read: Any) -> None:
    with pytest.raises(TraceError, match=r"s\.jsonl: holds no answered request"):
        read(said("u1", None, 0))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"timestamp": "yesterday"}, r"line 2, timestamp: Invalid RFC3339"),
        ({"uuid": None}, r"line 2, uuid: expected an id"),
        ({"message": None}, r"line 2, message: Expected `object`, got `null`"),
        ({"message": {"content": 5}}, r"line 2, message\.content: Expected `str \| array`"),
        (
            {"message": {"content": [], "usage": {"input_tokens": 10**30}}},
            r"line 2, message\.usage\.input_tokens: Expected `int` <= 16777216",
        ),
    ],
    ids=["time", "uuid", "no-message", "content", "huge"],
)
def test_a_bad_line_is_an_error_that_names_line_and_field(
    read: Any, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(TraceError, match=rf"s\.jsonl: {message}"):
        read(said("u1", None, 0), answered("a1", "u1", 4, usage(640)) | change)


def test_a_bad_line_of_a_sub_agent_is_an_error_in_its_own_file(read: Any) -> None:
    with pytest.raises(TraceError, match=r"agent-x\.jsonl: line 1, uuid: Expected `str"):
        read(said("u1", None, 0), answered("a1", "u1", 4, usage(640)), x=[{"uuid": 5}])
