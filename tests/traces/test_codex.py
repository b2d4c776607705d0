"""Reader of Codex's rollouts."""

from __future__ import annotations

from typing import Any

import pytest
from tests.traces.codex import call, context, conversation, item, line, message, meta, output, used

from holdfast.errors import TraceError
from holdfast.traces.io import FileReport, read_sessions
from holdfast.traces.record import Session, ToolSpan, common_prefix_length


@pytest.fixture
def read(write_lines: Any) -> Any:
    def build(*lines: dict[str, Any]) -> Session:
        (session,) = read_sessions(write_lines("rollout-1.jsonl", *lines))
        return session

    return build


def test_rollout_becomes_turns_with_lengths_and_times(read: Any) -> None:
    session = read(*conversation())
    assert [turn.prompt_tokens for turn in session.turns] == [6400, 7040, 7200]
    assert [turn.output_tokens for turn in session.turns] == [80, 30, 20]
    assert [turn.gap_s for turn in session.turns] == [0.0, 20.0, 61.0]
    assert [turn.trigger for turn in session.turns] == ["user", "tool_result", "user"]
    assert [turn.ended_by for turn in session.turns] == ["tool", "human", "human"]
    first = session.turns[0]
    assert (first.tool_name, first.tool_command) == ("exec_command", "cargo test")
    assert (session.session_id, session.agent) == ("s", "main")


def test_prompts_share_repeated_messages(read: Any) -> None:
    turns = read(*conversation()).turns
    assert common_prefix_length(turns[0].block_ids, turns[1].block_ids) == 6400 // 64
    assert common_prefix_length(turns[1].block_ids, turns[2].block_ids) == 7040 // 64


def test_lengths_without_last_usage_are_differences_of_totals(read: Any) -> None:
    lines = conversation()
    for event in lines:
        event["payload"].get("info", {}).pop("last_token_usage", None)
    with_last, without = read(*conversation()), read(*lines)
    assert without.turns == with_last.turns


def test_lower_totals_restart_at_0(read: Any) -> None:
    session = read(
        meta(),
        message(1, "user", "a"),
        message(2, "assistant", "b"),
        used(2, (640, 8)),
        message(3, "user", "c"),
        message(4, "assistant", "d"),
        used(4, (70, 5)),
    )
    assert [(turn.prompt_tokens, turn.output_tokens) for turn in session.turns] == [
        (640, 8),
        (70, 5),
    ]


def test_repeated_totals_end_no_answer(read: Any) -> None:
    session = read(
        meta(),
        message(1, "user", "a"),
        message(2, "assistant", "b"),
        used(2, (640, 8), (640, 8)),
        message(3, "user", "c"),
        used(3, (640, 8), (640, 8)),
        item(4, "reasoning", summary=[]),
        used(4, (640, 8), (640, 8)),
        message(5, "assistant", "d"),
        used(5, (1340, 13), (700, 5)),
    )
    assert [turn.prompt_tokens for turn in session.turns] == [640, 700]


def test_usage_separates_consecutive_answers(read: Any) -> None:
    session = read(
        meta(),
        message(1, "user", "a"),
        item(2, "reasoning", summary=[]),
        used(3, (640, 8), (640, 8)),
        message(7, "assistant", "b"),
        used(8, (1300, 13), (660, 5)),
    )
    assert [turn.ended_by for turn in session.turns] == ["unknown", "human"]
    assert session.turns[1].trigger == "user"


def test_usage_after_tool_output_belongs_to_the_answer_before(read: Any) -> None:
    session = read(
        meta(),
        message(1, "user", "a"),
        call(2, "c", "shell"),
        output(3, "c"),
        used(3, (640, 8), (640, 8)),
        message(4, "assistant", "b"),
        used(5, (1340, 13), (700, 5)),
    )
    assert [turn.prompt_tokens for turn in session.turns] == [640, 700]


def test_a_compaction_keeps_the_head_and_is_no_turn(read: Any) -> None:
    kept = [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "x"}]}]
    lines = [
        meta(),
        message(1, "user", "please"),
        message(2, "assistant", "yes"),
        used(2, (6400, 80), (6400, 80)),
        message(3, "user", "more"),
        message(4, "assistant", "yes"),
        used(4, (70400, 160), (64000, 80)),
        used(50, (140000, 800), (69600, 640)),
        line("compacted", 50, message="", replacement_history=kept),
        message(51, "user", "go on"),
        message(52, "assistant", "yes"),
        used(52, (147000, 880), (7000, 80)),
    ]
    turns = read(*lines).turns
    assert [turn.prompt_tokens for turn in turns] == [6400, 64000, 7000]
    # The first prompt is head except for one short message.
    assert 98 <= common_prefix_length(turns[1].block_ids, turns[2].block_ids) < 100


@pytest.mark.parametrize(
    ("compacted", "num_tokens"),
    [
        ({"message": "x" * 4000}, 1000),
        ({"message": "x" * 4000, "replacement_history": []}, 0),
        (
            {"message": None, "replacement_history": [{"type": "message", "content": "x" * 400}]},
            100,
        ),
    ],
    ids=["summary", "nothing", "history"],
)
def test_after_a_compaction_the_prompt_is_what_it_kept(
    read: Any, compacted: dict[str, Any], num_tokens: int
) -> None:
    lines = [
        meta(),
        message(1, "user", "y" * 40_000),
        message(2, "assistant", "yes"),
        line("compacted", 3, **compacted),
        message(4, "user", "on"),
        message(5, "assistant", "yes"),
    ]
    assert num_tokens <= read(*lines).turns[1].prompt_tokens <= num_tokens + 60


def test_another_model_shares_nothing(read: Any) -> None:
    lines = conversation()
    lines.insert(10, context("gpt-5-mini"))
    turns = read(*lines).turns
    assert common_prefix_length(turns[1].block_ids, turns[2].block_ids) == 0


@pytest.mark.parametrize(
    ("recorded", "name", "command"),
    [
        (
            call(2, "c", "shell", '{"command": ["bash", "-lc", "git status"]}'),
            "shell",
            "git status",
        ),
        (
            item(2, "local_shell_call", action={"type": "exec", "command": ["npm", "test"]}),
            "local_shell",
            "npm test",
        ),
        (item(2, "custom_tool_call", name="apply_patch", input="***"), "apply_patch", None),
        (call(2, "c", "update_plan"), "update_plan", None),
    ],
    ids=["function", "local-shell", "custom", "plan"],
)
def test_a_tool_call_is_named_with_the_head_of_its_command(
    read: Any, recorded: dict[str, Any], name: str, command: str | None
) -> None:
    session = read(meta(), message(1, "user", "a"), recorded, used(3, (640, 8), (640, 8)))
    turn = session.turns[0]
    assert (turn.tool_name, turn.tool_command, turn.ended_by) == (name, command, "tool")


@pytest.mark.parametrize(
    ("source", "agent"),
    [
        ("vscode", "main"),
        (None, "main"),
        ({"subagent": "review"}, "review"),
        ({"subagent": {"thread_spawn": {"agent_role": "explorer"}}}, "explorer"),
        ({"subagent": {"thread_spawn": {"depth": 1}}}, ""),
    ],
)
def test_rollout_names_its_agent(read: Any, source: Any, agent: str) -> None:
    lines = conversation()
    lines[0] = meta(source=source)
    assert read(*lines).agent == agent


def test_lengths_that_are_missing_are_estimated_and_counted(write_lines: Any) -> None:
    path = write_lines(
        "rollout.jsonl", meta(), message(1, "user", "x" * 4000), message(2, "assistant", "y" * 400)
    )
    reports: list[FileReport] = []
    (session,) = read_sessions(path, on_file=reports.append)
    assert 1000 <= session.turns[0].prompt_tokens <= 1040
    assert 100 <= session.turns[0].output_tokens <= 140
    assert reports[0].num_estimated_lengths == 2


def test_sessions_share_the_cached_head(write_lines: Any) -> None:
    for name, cached in (("one", 3200), ("two", 2560)):
        write_lines(
            f"{name}.jsonl",
            meta(id=name),
            context(),
            message(1, "user", name),
            message(2, "assistant", "yes"),
            used(2, (6400, 80), (6400, 80), cached=cached),
        )
    path = write_lines("z.jsonl", *conversation())
    one, two, _ = read_sessions(path.parent)
    assert common_prefix_length(one.turns[0].block_ids, two.turns[0].block_ids) == 2560 // 64


@pytest.mark.parametrize(
    ("bad", "text"),
    [
        (line("response_item", 2, type=5), r"payload\.type: Expected `str`"),
        (line("event_msg", 2, type="token_count", info=3), r"payload\.info: Expected `object"),
        (
            used(2, (1 << 40, 0)),
            r"payload\.info\.total_token_usage\.input_tokens: a prompt of .* at most 16777216",
        ),
        (
            used(2, (5, 0), (1 << 40, 0)),
            r"payload\.info\.last_token_usage\.input_tokens: Expected `int` <= 16777216",
        ),
        ({"timestamp": "x", "type": "compacted", "payload": {}}, r"timestamp: Invalid RFC3339"),
        ({"type": "turn_context"}, r"Object missing required field `payload`"),
    ],
    ids=["item", "info", "huge-total", "huge", "time", "missing"],
)
def test_a_bad_line_is_an_error_that_names_line_and_field(
    read: Any, bad: dict[str, Any], text: str
) -> None:
    with pytest.raises(TraceError, match=rf"rollout-1\.jsonl: line 4,? ?:?.*{text}"):
        read(meta(), message(1, "user", "a"), message(1, "assistant", "b"), bad)


def test_turns_have_models_latencies_cache_reads_and_tools(read: Any) -> None:
    lines = conversation()
    lines[6] = used(5, (6400, 80), (6400, 80), cached=6000)
    first, second, third = read(*lines).turns
    assert [turn.model for turn in (first, second, third)] == ["gpt-5-codex"] * 3
    assert [turn.latency_s for turn in (first, second, third)] == [3.0, 4.0, 2.0]
    assert (first.cached_tokens, second.cached_tokens) == (6000, 0)
    assert first.tools == (ToolSpan("exec_command", "cargo test", 0.0, 20.0),)
    assert second.tools == ()


def test_bad_lines_can_be_skipped(write_lines: Any) -> None:
    lines = conversation()
    lines[4:4] = [line("response_item", 3, type=5), {"type": "turn_context"}]
    skipped: list[TraceError] = []
    path = write_lines("rollout.jsonl", *lines)
    (session,) = read_sessions(path, on_skipped=skipped.append)
    assert [turn.prompt_tokens for turn in session.turns] == [6400, 7040, 7200]
    assert [error.where for error in skipped] == ["line 5, payload.type", "line 6"]
