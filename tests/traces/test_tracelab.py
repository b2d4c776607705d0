"""Reader of TraceLab's rounds."""

from __future__ import annotations

from typing import Any

import pytest

from holdfast.errors import TraceError
from holdfast.traces.io import FileReport, read_sessions
from holdfast.traces.record import Session, ToolSpan, common_prefix_length


def at(second: float) -> str:
    return f"2026-01-01T00:00:{second:06.3f}Z"


def events(*seen: tuple[str, float]) -> list[dict[str, Any]]:
    return [{"event_type": kind, "timestamp": at(second)} for kind, second in seen]


def round_(index: int, seen: list[dict[str, Any]], **fields: Any) -> dict[str, Any]:
    return {
        "session_id": "claude:1",
        "round_index": index,
        "input_tokens_total": 640,
        "prefix_tokens": 0,
        "newly_append_tokens": 640,
        "output_tokens": 5,
        "model": "m",
        "provider": "claude",
        "timing_events": seen,
        "tools": [],
    } | fields


@pytest.fixture
def read(write_lines: Any) -> Any:
    def build(*rounds: dict[str, Any], **options: Any) -> list[Session]:
        return list(read_sessions(write_lines("t.jsonl", *rounds), **options))

    return build


def test_round_spans_its_last_input_to_its_last_output(read: Any) -> None:
    (session,) = read(
        round_(0, events(("user_message", 1.0), ("reasoning", 3.0), ("tool_call", 4.0))),
        round_(1, events(("tool_result", 9.0), ("tool_result", 9.5), ("text", 12.0))),
    )
    first, second = session.turns
    assert (first.gap_s, first.latency_s, first.trigger) == (0.0, 3.0, "user")
    assert (second.gap_s, second.latency_s, second.trigger) == (5.5, 2.5, "tool_result")


def test_input_after_the_outputs_triggers_the_next_round(read: Any) -> None:
    """Codex ends a round after its tool's result."""
    (session,) = read(
        round_(0, events(("user_message", 1.0), ("tool_call", 4.0), ("tool_result", 6.0))),
        round_(1, events(("text", 8.0))),
    )
    assert session.turns[0].latency_s == 3.0
    second = session.turns[1]
    assert (second.gap_s, second.latency_s, second.trigger) == (2.0, 2.0, "tool_result")


def test_tools_are_timed_from_the_end_of_the_answer(read: Any) -> None:
    tool = {"tool_name": "Bash", "emitted_at": at(4.0), "result_at": at(6.5), "is_error": True}
    (session,) = read(
        round_(0, events(("user_message", 1.0), ("tool_call", 4.0)), tools=[tool]),
        round_(1, events(("tool_result", 7.0), ("text", 8.0))),
    )
    first, second = session.turns
    assert first.tools == (ToolSpan("Bash", None, 0.0, 2.5, True),)
    assert (first.tool_name, first.ended_by, second.ended_by) == ("Bash", "tool", "human")


def test_prompts_share_cached_tokens(read: Any) -> None:
    (session,) = read(round_(0, []), round_(1, [], input_tokens_total=700, prefix_tokens=650))
    first, second = (turn.block_ids for turn in session.turns)
    assert common_prefix_length(first, second) == 10
    assert session.turns[1].cached_tokens == 650


def test_gaps_of_rounds_without_times_count_as_estimates(read: Any) -> None:
    reports: list[FileReport] = []
    (session,) = read(round_(0, []), round_(1, []), on_file=reports.append)
    assert [turn.gap_s for turn in session.turns] == [0.0, 0.0]
    assert reports[0].num_estimated_gaps == 1


def test_rounds_may_come_in_any_order_but_once(read: Any) -> None:
    (session,) = read(round_(1, [], output_tokens=9), round_(0, []))
    assert [turn.output_tokens for turn in session.turns] == [5, 9]
    with pytest.raises(TraceError, match="line 2, round_index: a second round 0"):
        read(round_(0, []), round_(0, []))


def test_a_time_without_a_zone_is_an_error(read: Any) -> None:
    with pytest.raises(TraceError, match=r"line 1, timing_events\[0\].timestamp: .*timezone"):
        read(round_(0, [{"event_type": "text", "timestamp": "2026-01-01T00:00:00"}]))
