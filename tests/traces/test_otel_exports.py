"""Files of spans from exporters other than OTLP's."""

from __future__ import annotations

from typing import Any

import pytest

from holdfast.errors import TraceError
from holdfast.traces.io import read_sessions

ASKED = {"role": "user", "content": "u" * 4000}
CALL = {"id": "c", "function": {"name": "shell", "arguments": '{"command": "git status"}'}}


def phoenix(number: int) -> dict[str, Any]:
    """Build a span with attributes in objects, as Phoenix exports them."""
    called = {"role": "assistant", "tool_calls": [{"tool_call": CALL}]}
    given = [ASKED, called, {"role": "tool", "tool_call_id": "c", "content": "done"}]
    output = (called, {"role": "assistant", "content": "It is done."})[number]
    return {
        "name": "ChatCompletion",
        "context": {"trace_id": "0x1", "span_id": f"0x{number}"},
        "parent_id": None,
        "start_time": f"2026-01-05T10:00:{10 * number:02d}.000000Z",
        "end_time": f"2026-01-05T10:00:{10 * number + 4:02d}.000000Z",
        "status_code": "OK",
        "attributes": {
            "openinference": {"span": {"kind": "LLM"}},
            "session": {"id": "x"},
            "llm": {
                "model_name": "m",
                "input_messages": [{"message": one} for one in given[: 1 + 2 * number]],
                "output_messages": [{"message": output}],
                "token_count": {"prompt": 640 + 64 * number, "completion": 9},
            },
        },
        "events": [],
    }


def test_a_span_a_line_with_attributes_in_objects_is_read(write_lines: Any) -> None:
    (session,) = read_sessions(write_lines("spans.jsonl", phoenix(0), phoenix(1)))
    assert session.session_id == "spans/x"
    assert [turn.prompt_tokens for turn in session.turns] == [640, 704]
    assert [turn.ended_by for turn in session.turns] == ["tool", "human"]
    assert session.turns[0].tool_command == "git status"
    assert (session.turns[1].trigger, session.turns[1].gap_s) == ("tool_result", 6.0)
    assert session.turns[1].block_ids[:10] == session.turns[0].block_ids


def test_a_span_that_failed_or_has_not_ended_is_no_turn(write_lines: Any) -> None:
    failed = phoenix(0) | {"status_code": "ERROR"}
    failed["attributes"] = {"openinference": {"span": {"kind": "LLM"}}}
    path = write_lines("spans.jsonl", failed, phoenix(0) | {"end_time": None}, phoenix(1))
    (session,) = read_sessions(path)
    assert [turn.prompt_tokens for turn in session.turns] == [704]


def test_span_with_a_bad_id_is_an_error_with_line_and_field(write_lines: Any) -> None:
    bad = phoenix(1) | {"context": {"trace_id": "0x1", "span_id": 5}}
    with pytest.raises(TraceError, match=r"spans\.jsonl: line 2, context\.span_id: Expected `str`"):
        list(read_sessions(write_lines("spans.jsonl", phoenix(0), bad)))


@pytest.mark.parametrize(
    "asked", ["u" * 4000, ASKED, {"messages": [ASKED]}], ids=["text", "message", "request"]
)
def test_prompt_that_is_not_a_list_of_messages_is_read(write_lines: Any, asked: Any) -> None:
    def span(number: int, given: Any) -> dict[str, Any]:
        attributes = {"gen_ai.operation.name": "chat", "gen_ai.input.messages": given}
        return phoenix(number) | {"attributes": attributes | {"gen_ai.usage.input_tokens": 1024}}

    (session,) = read_sessions(write_lines("a.jsonl", span(0, asked), span(1, [ASKED])))
    assert session.turns[0].block_ids == session.turns[1].block_ids


def test_the_older_name_of_scopes_is_read(write_lines: Any) -> None:
    span = {
        "traceId": "t",
        "spanId": "s",
        "startTimeUnixNano": "1000000000",
        "endTimeUnixNano": "2000000000",
        "attributes": [{"key": "gen_ai.usage.prompt_tokens", "value": {"intValue": "640"}}],
    }
    export = {"resourceSpans": [{"instrumentationLibrarySpans": [{"spans": [span]}]}]}
    (session,) = read_sessions(write_lines("a.json", export))
    assert session.turns[0].prompt_tokens == 640


@pytest.mark.parametrize(
    "image",
    [
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{'A' * 100_000}"}},
        {"type": "blob", "modality": "image", "content": "A" * 100_000},
        {"inlineData": {"mimeType": "image/png", "data": "A" * 100_000}},
    ],
    ids=["openai", "parts", "gemini"],
)
def test_image_length_does_not_depend_on_its_encoding(write_lines: Any, image: Any) -> None:
    given = [{"role": "user", "content": [image]}]
    attributes = {"gen_ai.operation.name": "chat", "gen_ai.input.messages": given}
    (session,) = read_sessions(write_lines("a.jsonl", phoenix(0) | {"attributes": attributes}))
    assert session.turns[0].prompt_tokens == 1500


def jaeger(number: int, **tags: Any) -> dict[str, Any]:
    said = {"event": "gen_ai.user.message", "content": "u" * 4000}
    told = {"gen_ai.operation.name": "chat", "gen_ai.usage.input_tokens": 1024} | tags
    return {
        "traceID": "t",
        "spanID": f"{number}",
        "operationName": "chat m",
        "references": [{"refType": "CHILD_OF", "traceID": "t", "spanID": "0"}],
        "startTime": 1_700_000_000_000_000 + number * 5_000_000,
        "duration": 2_000_000,
        "tags": [{"key": key, "type": "string", "value": value} for key, value in told.items()],
        "logs": [{"timestamp": 1, "fields": [{"key": k, "value": v} for k, v in said.items()]}],
        "processID": "p1",
        "warnings": None,
    }


def test_jaeger_traces_are_read(write_lines: Any) -> None:
    agent = jaeger(0, **{"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": "planner"})
    agent["references"] = []
    stop = {"gen_ai.response.finish_reasons": '["tool_calls"]'}
    failed = jaeger(3, **{"otel.status_code": "ERROR"})
    traces = [{"traceID": "t", "spans": [jaeger(1, **stop), agent, jaeger(2), failed]}]
    (session,) = read_sessions(write_lines("a.json", {"data": traces, "total": 0}))
    assert (session.agent, len(session.turns)) == ("planner", 2)
    assert (session.turns[0].ended_by, session.turns[1].gap_s) == ("tool", 3.0)
    assert session.turns[0].block_ids == session.turns[1].block_ids


def test_tempos_batches_are_read(write_lines: Any) -> None:
    span = {
        "traceId": "t",
        "spanId": "s",
        "startTimeUnixNano": "1000000000",
        "endTimeUnixNano": "2000000000",
        "attributes": [{"key": "gen_ai.usage.input_tokens", "value": {"intValue": "640"}}],
    }
    path = write_lines("a.json", {"batches": [{"scopeSpans": [{"spans": [span]}]}]})
    (session,) = read_sessions(path)
    assert session.turns[0].prompt_tokens == 640
