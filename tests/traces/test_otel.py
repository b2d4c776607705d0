"""Reader of OpenTelemetry GenAI spans."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from holdfast.errors import TraceError
from holdfast.traces.io import FileReport, read_sessions
from holdfast.traces.record import Session, SessionEvent, ToolSpan, common_prefix_length


def span(
    span_id: str, start_s: int, end_s: int, parent: str = "", **attributes: Any
) -> dict[str, Any]:
    """Build a plain span; `_` in attribute names means `.` after `gen_ai`."""
    return {
        "trace_id": "t",
        "span_id": span_id,
        "parent_span_id": parent or None,
        "start_time": f"2026-01-05T10:00:{start_s:02d}Z",
        "end_time": f"2026-01-05T10:00:{end_s:02d}Z",
        "name": "span",
        "attributes": {f"gen_ai.{name.replace('__', '.')}": v for name, v in attributes.items()},
    }


def chat(
    span_id: str, start_s: int, end_s: int, prompt: int | None, parent: str = "", **attributes: Any
) -> dict[str, Any]:
    fields = {
        "operation__name": "chat",
        "request__model": "m",
        "usage__input_tokens": prompt,
        "usage__output_tokens": 20,
    } | attributes
    return span(span_id, start_s, end_s, parent, **fields)


def agent(span_id: str, start_s: int, end_s: int, name: str, parent: str = "") -> dict[str, Any]:
    fields = {"operation__name": "invoke_agent", "agent__name": name}
    return span(span_id, start_s, end_s, parent, **fields)


def message(role: str, *parts: Mapping[str, Any]) -> dict[str, Any]:
    return {"role": role, "parts": list(parts)}


def text(content: str) -> dict[str, Any]:
    return {"type": "text", "content": content}


ASKED = message("user", text("x" * 4000))
CALLED = message(
    "assistant",
    {"type": "tool_call", "id": "c", "name": "shell", "arguments": {"command": "git status"}},
)
RETURNED = message("tool", {"type": "tool_call_response", "id": "c", "result": "y" * 400})


def otlp(*spans: dict[str, Any]) -> dict[str, Any]:
    def value(plain: Any) -> dict[str, Any]:
        if isinstance(plain, str):
            return {"stringValue": plain}
        if isinstance(plain, int):
            return {"intValue": str(plain)}
        if isinstance(plain, list):
            return {"arrayValue": {"values": [value(item) for item in plain]}}
        return {"kvlistValue": {"values": pairs(plain)}}

    def pairs(attributes: dict[str, Any]) -> list[dict[str, Any]]:
        return [{"key": key, "value": value(v)} for key, v in attributes.items() if v is not None]

    def nanoseconds(time: str) -> str:
        return str((36_000 + int(time[17:19])) * 1_000_000_000)

    converted = [
        {
            "traceId": plain["trace_id"],
            "spanId": plain["span_id"],
            "parentSpanId": plain["parent_span_id"] or "",
            "startTimeUnixNano": nanoseconds(plain["start_time"]),
            "endTimeUnixNano": nanoseconds(plain["end_time"]),
            "attributes": pairs(plain["attributes"]),
        }
        for plain in spans
    ]
    return {"resourceSpans": [{"scopeSpans": [{"spans": converted}]}]}


@pytest.fixture
def read(tmp_path: Path) -> Any:
    def build(*spans: dict[str, Any], name: str = "a.json", on_file: Any = None) -> list[Session]:
        path = tmp_path / name
        path.write_bytes(msgspec.json.encode({"spans": list(spans)}))
        return list(read_sessions(path, on_file=on_file))

    return build


def shared_blocks(session: Session, left: int, right: int) -> int:
    turns = session.turns
    return common_prefix_length(turns[left].block_ids, turns[right].block_ids)


def tool_loop() -> list[dict[str, Any]]:
    return [
        chat("1", 0, 4, 6400, input__messages=[ASKED], output__messages=[CALLED]),
        span("x", 4, 9, operation__name="execute_tool", tool__name="shell"),
        chat(
            "2",
            9,
            12,
            7040,
            input__messages=[ASKED, CALLED, RETURNED],
            output__messages=[message("assistant", text("done"))],
            response__finish_reasons=["stop"],
        ),
    ]


def test_a_span_of_a_call_is_a_turn_with_its_lengths_and_times(read: Any) -> None:
    (session,) = read(*tool_loop())
    first, second = session.turns
    assert (first.prompt_tokens, first.output_tokens) == (6400, 20)
    assert (first.ended_by, first.tool_name, first.tool_command) == ("tool", "shell", "git status")
    assert (second.gap_s, second.trigger, second.ended_by) == (5.0, "tool_result", "human")
    assert shared_blocks(session, 0, 1) == 100


def test_otlp_equals_plain_spans(read: Any, write_lines: Any) -> None:
    (plain,) = read(*tool_loop())
    for spelling in ("document.json", "lines.jsonl"):
        (session,) = read_sessions(write_lines(spelling, otlp(*tool_loop())))
        assert session.turns[1].gap_s == plain.turns[1].gap_s
        assert [turn.prompt_tokens for turn in session.turns] == [6400, 7040]
        assert shared_blocks(session, 0, 1) == 100
        assert session.turns[0].tool_command == "git status"


def test_lines_of_one_file_are_one_recording(write_lines: Any) -> None:
    first, _, second = tool_loop()
    (session,) = read_sessions(write_lines("lines.jsonl", otlp(second), otlp(first)))
    assert [turn.prompt_tokens for turn in session.turns] == [6400, 7040]


def test_messages_as_text_and_in_events_are_equal(write_lines: Any) -> None:
    export = otlp(*tool_loop())
    for recorded in export["resourceSpans"][0]["scopeSpans"][0]["spans"]:
        moved = [at for at in recorded["attributes"] if "messages" in at["key"]]
        recorded["attributes"] = [at for at in recorded["attributes"] if at not in moved]
        name = "gen_ai.client.inference.operation.details"
        recorded["events"] = [{"name": name, "attributes": moved}]
    (session,) = read_sessions(write_lines("a.json", export))
    assert session.turns[0].tool_command == "git status"
    assert shared_blocks(session, 0, 1) == 100
    spans = tool_loop()
    for plain in spans:
        for key, value in plain["attributes"].items():
            if key.endswith("messages"):
                plain["attributes"][key] = json.dumps(value)
    (session,) = read_sessions(write_lines("b.json", {"spans": spans}))
    assert session.turns[0].tool_command == "git status"
    assert shared_blocks(session, 0, 1) == 100


def test_prompts_share_up_to_the_first_message_that_differs(read: Any) -> None:
    system = [{"type": "text", "content": "s" * 4000}]
    (session,) = read(
        chat("1", 0, 4, 3200, system_instructions=system, input__messages=[ASKED]),
        chat("2", 5, 6, 3200, system_instructions=system, input__messages=[RETURNED]),
    )
    # System message and question have equal lengths, half of 50 blocks.
    assert shared_blocks(session, 0, 1) == 25


def test_sessions_share_the_recorded_system_message(read: Any) -> None:
    system = [{"type": "text", "content": "s" * 4000}]
    one, two = read(
        chat("1", 0, 4, 3200, system_instructions=system, input__messages=[ASKED]),
        chat("2", 0, 4, 3200, system_instructions=system, input__messages=[ASKED])
        | {"trace_id": "u"},
    )
    assert one.turns[0].block_ids == two.turns[0].block_ids


def test_another_model_shares_nothing(read: Any) -> None:
    (session,) = read(
        chat("1", 0, 4, 6400, input__messages=[ASKED]),
        chat("2", 5, 6, 6400, input__messages=[ASKED], request__model="other"),
    )
    assert shared_blocks(session, 0, 1) == 0


def test_longer_prompt_without_content_continues_the_previous(read: Any) -> None:
    (session,) = read(
        chat("1", 0, 4, 3200, response__finish_reasons=["tool_calls"]),
        chat("2", 5, 6, 6400),
        chat("3", 7, 8, 4000),
    )
    assert shared_blocks(session, 0, 1) == 50
    assert shared_blocks(session, 1, 2) == 0
    assert [turn.ended_by for turn in session.turns] == ["tool", "unknown", "unknown"]
    assert [turn.trigger for turn in session.turns] == ["user", "tool_result", "user"]


def test_first_prompts_without_content_share_cached_tokens(read: Any) -> None:
    name = "usage__cache_read__input_tokens"
    cached: list[dict[str, Any]] = [{name: 3200}, {name: 2560}]
    one, two = read(
        chat("1", 0, 4, 6400, **cached[0]),
        chat("2", 0, 4, 6400, **cached[1]) | {"trace_id": "u"},
    )
    assert common_prefix_length(one.turns[0].block_ids, two.turns[0].block_ids) == 40


def test_the_older_names_of_usage_are_read(read: Any) -> None:
    older: dict[str, Any] = {"usage__prompt_tokens": 640, "usage__completion_tokens": 7}
    (session,) = read(span("1", 0, 1, **older))
    assert (session.turns[0].prompt_tokens, session.turns[0].output_tokens) == (640, 7)


def test_calls_of_one_conversation_are_one_session_across_traces(read: Any) -> None:
    (session,) = read(
        chat("1", 0, 4, 640, conversation__id="c"),
        chat("2", 9, 12, 700, conversation__id="c") | {"trace_id": "u"},
    )
    assert [turn.gap_s for turn in session.turns] == [0.0, 5.0]
    assert session.session_id == "a/c"


def test_nested_agent_is_a_session_with_parent_and_turn(
    read: Any,
) -> None:
    main, inner = read(
        agent("A", 0, 40, "planner"),
        chat("1", 1, 4, 640, "A"),
        chat("2", 5, 8, 700, "A"),
        span("x", 8, 30, "A", operation__name="execute_tool"),
        agent("B", 9, 29, "searcher", "x"),
        chat("3", 10, 12, 320, "B"),
        chat("4", 13, 20, 400, "B"),
        chat("5", 31, 33, 800, "A"),
    )
    assert (main.agent, inner.agent) == ("planner", "searcher")
    assert (inner.parent_id, inner.parent_turn) == (main.session_id, 1)
    assert [turn.prompt_tokens for turn in main.turns] == [640, 700, 800]
    assert [turn.prompt_tokens for turn in inner.turns] == [320, 400]


def test_nested_agent_closes_with_its_span_and_is_joined(read: Any) -> None:
    _, inner = read(
        agent("A", 0, 40, "planner"),
        chat("1", 1, 4, 640, "A"),
        agent("B", 9, 29, "searcher", "A"),
        chat("3", 10, 12, 320, "B"),
        chat("5", 31, 33, 800, "A"),
    )
    assert (inner.join_turn, inner.events) == (1, (SessionEvent("close", 1, 17.0),))


def test_agent_running_beside_its_parent_has_no_join(read: Any) -> None:
    _, inner = read(
        agent("A", 0, 40, "planner"),
        chat("1", 1, 4, 640, "A"),
        agent("B", 9, 29, "searcher", "A"),
        chat("2", 15, 16, 700, "A"),
        chat("3", 10, 12, 320, "B"),
    )
    assert (inner.parent_turn, inner.join_turn) == (0, None)


def test_agents_below_one_without_calls_have_no_parent(read: Any) -> None:
    reports: list[FileReport] = []
    one, two = read(
        agent("A", 0, 40, "crew"),
        agent("B", 1, 5, "writer", "A"),
        agent("C", 6, 9, "critic", "A"),
        chat("1", 1, 4, 640, "B"),
        chat("2", 6, 8, 700, "C"),
        on_file=reports.append,
    )
    assert (one.agent, two.agent) == ("writer", "critic")
    assert reports[0].num_orphans == 0  # The parent exists, without a turn.
    assert one.parent_id is two.parent_id is None


def test_spans_with_circular_parents_are_read(read: Any) -> None:
    (session,) = read(
        agent("A", 0, 9, "a", "B"), agent("B", 0, 9, "b", "A"), chat("1", 1, 2, 64, "A")
    )
    assert len(session.turns) == 1


def test_other_operations_are_not_calls(read: Any) -> None:
    (session,) = read(
        span("e", 0, 1, operation__name="embeddings", usage__input_tokens=9), chat("1", 1, 2, 64)
    )
    assert len(session.turns) == 1


@pytest.mark.parametrize(
    ("reason", "ended_by"),
    [("stop", "human"), ("tool_call", "tool"), ("length", "unknown"), ("end_turn", "human")],
)
def test_finish_reason_tells_the_turn_end(read: Any, reason: str, ended_by: str) -> None:
    (session,) = read(chat("1", 0, 1, 64, response__finish_reasons=[reason]))
    assert session.turns[0].ended_by == ended_by


def test_openai_function_calls_are_tool_calls(read: Any) -> None:
    call = {
        "type": "function",
        "id": "c",
        "function": {"name": "bash", "arguments": '{"cmd":"ls"}'},
    }
    output = [{"role": "assistant", "content": None, "tool_calls": [call]}]
    (session,) = read(chat("1", 0, 1, 64, output__messages=output))
    assert (session.turns[0].tool_name, session.turns[0].tool_command) == ("bash", "ls")


def test_lengths_that_are_missing_are_estimated_and_counted(write_lines: Any) -> None:
    unmeasured = chat("1", 0, 1, None, usage__output_tokens=None, input__messages=[ASKED])
    reports: list[FileReport] = []
    path = write_lines("a.json", {"spans": [unmeasured]})
    (session,) = read_sessions(path, on_file=reports.append)
    assert 1000 <= session.turns[0].prompt_tokens <= 1030
    assert reports[0].num_estimated_lengths == 2


def test_a_seed_decides_the_order_of_sessions(write_lines: Any) -> None:
    spans = [chat("1", 0, 1, 64) | {"trace_id": f"{trace:02d}"} for trace in range(20)]
    path = write_lines("a.json", {"spans": spans})

    def order(seed: int | None) -> list[str]:
        return [session.session_id for session in read_sessions(path, seed=seed)]

    assert order(1) == order(1) != order(2)
    assert order(None) == sorted(order(1))


@pytest.mark.parametrize(
    ("bad", "text"),
    [
        (
            chat("1", 0, 1, 1 << 40),
            r"spans\[0\]\.attributes\.gen_ai\.usage\.input_tokens: Expected `int` <= 16777216",
        ),
        (chat("1", 0, 1, 64) | {"start_time": "now"}, r"spans\[0\]\.start_time: Invalid RFC3339"),
        (
            chat("1", 0, 1, 64, input__messages="[{]"),
            r"spans\[0\]\.attributes\.gen_ai\.input\.messages: not valid UTF-8 JSON",
        ),
        (
            chat("1", 0, 1, 64, input__messages=[5]),
            r"spans\[0\]\.attributes\.gen_ai\.input\.messages\[0\]: Expected `object`, got `int`",
        ),
        (agent("1", 0, 1, "a"), "holds no answered request"),
    ],
    ids=["huge", "time", "messages", "message", "no-call"],
)
def test_a_bad_span_is_an_error_that_names_it_and_the_field(
    read: Any, bad: dict[str, Any], text: str
) -> None:
    with pytest.raises(TraceError, match=rf"a\.json: {text}"):
        read(bad)


def test_a_bad_line_of_exports_is_an_error_that_names_it(write_lines: Any) -> None:
    path = write_lines("a.jsonl", otlp(chat("1", 0, 1, 64)), {"resourceSpans": 5})
    with pytest.raises(TraceError, match=r"a\.jsonl: line 2, resourceSpans: Expected `array`"):
        list(read_sessions(path))


def test_turns_have_models_latencies_cache_reads_and_tools(read: Any) -> None:
    cached: dict[str, Any] = {"usage__cache_read__input_tokens": 600}
    (session,) = read(
        chat("1", 0, 4, 640, output__messages=[CALLED], **cached), chat("2", 9, 11, 700)
    )
    first, second = session.turns
    assert (first.model, first.latency_s, first.cached_tokens) == ("m", 4.0, 600)
    assert first.tools == (ToolSpan("shell", "git status"),)
    assert (second.latency_s, second.cached_tokens, second.tools) == (2.0, None, ())


def test_bad_spans_can_be_skipped(write_lines: Any) -> None:
    spans = [chat("1", 0, 1, 2**40), chat("2", 2, 3, 64), chat("3", 4, 5, 64, input__messages=[5])]
    skipped: list[TraceError] = []
    path = write_lines("a.json", {"spans": spans})
    (session,) = read_sessions(path, on_skipped=skipped.append)
    assert len(session.turns) == 1
    assert [error.where for error in skipped] == [
        "spans[0].attributes.gen_ai.usage.input_tokens",
        "spans[2].attributes.gen_ai.input.messages[0]",
    ]
