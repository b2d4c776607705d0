"""Reader of Dynamo's request traces."""

from __future__ import annotations

from typing import Any

import pytest

from holdfast.errors import TraceError
from holdfast.traces.io import read_sessions
from holdfast.traces.record import Session, SessionEvent, ToolSpan, common_prefix_length


def ended(
    request_id: str, received_ms: float, total_ms: float, agent: dict[str, Any], **fields: Any
) -> dict[str, Any]:
    request = {
        "request_id": request_id,
        "model": "m",
        "input_tokens": 9,
        "output_tokens": 2,
        "request_received_ms": received_ms,
        "total_time_ms": total_ms,
    } | fields
    return event("request_end", received_ms + total_ms, agent, request=request)


def event(kind: str, time_ms: float, agent: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {
        "schema": "dynamo.request.trace.v1",
        "event_type": kind,
        "event_time_unix_ms": time_ms,
        "event_source": "dynamo",
        "agent_context": agent,
    } | fields


def replay(hashes: list[int], length: int = 9) -> dict[str, Any]:
    return {"trace_block_size": 4, "input_length": length, "input_sequence_hashes": hashes}


def calling(*names: str) -> dict[str, Any]:
    return {"finish_reason": "tool_calls", "tool_calls": [{"name": name} for name in names]}


MAIN = {"session_id": "main"}


@pytest.fixture
def read(write_lines: Any) -> Any:
    def build(*rows: dict[str, Any], **options: Any) -> list[Session]:
        wrapped = ({"timestamp": n, "event": row} for n, row in enumerate(rows))
        return list(read_sessions(write_lines("d.jsonl", *wrapped), **options))

    return build


def test_requests_of_one_agent_are_its_turns(read: Any) -> None:
    (session,) = read(
        ended("a", 1000, 500, MAIN, replay=replay([1, 2, 3]), cached_tokens=4),
        ended("b", 4000, 250, MAIN, replay=replay([1, 2, 9, 8], 16)),
    )
    first, second = session.turns
    assert (session.session_id, session.start_s, session.block_size_tokens) == ("main", 0.0, 4)
    assert (first.prompt_tokens, first.output_tokens, first.latency_s) == (9, 2, 0.5)
    assert (second.gap_s, first.model, first.cached_tokens) == (2.5, "m", 4)
    assert (len(first.block_ids), len(second.block_ids)) == (2, 4)
    assert common_prefix_length(first.block_ids, second.block_ids) == 2


def test_prompt_without_hashes_shares_cached_tokens(read: Any) -> None:
    (session,) = read(
        ended("a", 0, 1, MAIN, input_tokens=640),
        ended("b", 5, 1, MAIN, input_tokens=700, cached_tokens=320),
    )
    first, second = (turn.block_ids for turn in session.turns)
    assert common_prefix_length(first, second) == 5


def test_finish_reason_tells_turn_end_and_next_trigger(read: Any) -> None:
    (session,) = read(
        ended("a", 0, 1, MAIN, finish_reason_metadata=calling("Read", "Bash")),
        ended("b", 5, 1, MAIN, finish_reason_metadata={"finish_reason": "stop"}),
        ended("c", 9, 1, MAIN, finish_reason_metadata={"finish_reason": "length"}),
        ended("d", 12, 1, MAIN | {"input_trigger": "tool_result"}),
    )
    assert [turn.ended_by for turn in session.turns] == ["tool", "human", "unknown", "unknown"]
    assert [turn.trigger for turn in session.turns] == [
        "user",
        "tool_result",
        "user",
        "tool_result",
    ]
    assert session.turns[0].tool_name == "Bash"


def test_tools_belong_to_the_last_answer_before_them(read: Any) -> None:
    (session,) = read(
        ended("a", 0, 1000, MAIN),
        event(
            *("tool_error", 4000, MAIN),
            tool={"tool_class": "shell", "status": "error", "started_at_unix_ms": 1500}
            | {"ended_at_unix_ms": 4000},
        ),
        event("tool_end", 3000, MAIN, tool={"tool_class": "web", "duration_ms": 1000}),
        ended("b", 5000, 1, MAIN),
    )
    assert session.turns[0].tools == (
        ToolSpan("shell", None, 0.5, 3.0, True),
        ToolSpan("web", None, 1.0, 2.0, None),
    )
    assert session.turns[1].tools == ()


def test_tool_started_during_an_answer_belongs_to_the_last_one(read: Any) -> None:
    tool = {"tool_class": "x", "started_at_unix_ms": 2500, "ended_at_unix_ms": 2600}
    (session,) = read(
        ended("a", 0, 1000, MAIN),
        ended("b", 2000, 1000, MAIN),
        event("tool_end", 1, MAIN, tool=tool),
    )
    assert [len(turn.tools) for turn in session.turns] == [1, 0]


@pytest.mark.parametrize("name", ["session", "trajectory", "program"])
def test_every_revision_names_the_parent_agent(read: Any, name: str) -> None:
    child = {"session_id": "run", f"{name}_id": "x", f"parent_{name}_id": "p"}
    parent = {"session_id": "run", f"{name}_id": "p"}
    main, explorer = read(
        ended("c", 2000, 10, child), ended("a", 0, 1000, parent), ended("b", 3000, 10, parent)
    )
    assert (main.session_id, explorer.session_id, explorer.parent_id) == ("p", "x", "p")
    assert (explorer.parent_turn, explorer.start_s) == (0, None)


def test_compaction_and_the_end_of_a_session_are_events(read: Any) -> None:
    (session,) = read(
        ended("a", 0, 1, MAIN),
        ended("b", 5, 1, MAIN | {"compaction": {"phase": "mid_turn"}, "session_final": True}),
    )
    assert session.events == (SessionEvent("compaction", 1), SessionEvent("close", 2))


def test_a_request_without_an_agent_is_a_session(read: Any) -> None:
    one, other = read(ended("a", 0, 1, {}), ended("b", 500, 1, {}))
    assert (one.session_id, other.session_id, other.start_s) == ("a", "b", 0.5)


@pytest.mark.parametrize("schema", ["dynamo.request.trace.v1", "dynamo.agent.trace.v1"])
def test_bare_events_are_read_and_other_events_ignored(write_lines: Any, schema: str) -> None:
    rows = [
        event("request_payload", 0, MAIN, schema=schema),
        event("tool_start", 0, MAIN, schema=schema),
        ended("a", 0, 1, MAIN) | {"schema": schema},
    ]
    (session,) = read_sessions(write_lines("d.jsonl", *rows))
    assert len(session.turns) == 1


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (event("request_end", 0, MAIN), "line 2, request: is missing"),
        (ended("b", 0, 1, MAIN, input_tokens=None), "line 2, request.input_tokens: is missing"),
        (event("tool_end", 0, MAIN), "line 2, tool: is missing"),
        (event("tool_end", 0, MAIN, schema="x"), "line 2, schema: schema 'x'; expected dynamo"),
        (
            ended("b", 0, 1, MAIN, replay=replay([1, 2, 3, 4])),
            "line 2, request.replay: 4 blocks of 4 tokens for 9; expected at most 3",
        ),
        (
            ended("b", 0, 1, MAIN, replay=replay([1]) | {"trace_block_size": 8}),
            "line 2, request.replay: 1 blocks of 8 .* of 4",
        ),
    ],
)
def test_a_bad_event_is_an_error_that_names_line_and_field(
    read: Any, second: dict[str, Any], message: str
) -> None:
    with pytest.raises(TraceError, match=rf"d\.jsonl: {message}"):
        read(ended("a", 0, 1, MAIN, replay=replay([1])), second)
