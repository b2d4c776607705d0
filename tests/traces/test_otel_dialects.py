"""One conversation recorded by several instrumentations."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from holdfast.errors import TraceError
from holdfast.traces.io import read_sessions
from holdfast.traces.record import Session, common_prefix_length

SYSTEM, ASKED, RETURNED, TOLD = "s" * 1200, "u" * 1200, "r" * 200, "It is sunny."
ARGUMENTS = '{"command": "git status"}'
Attributes = dict[str, Any]


def json_of(value: Any) -> str:
    return msgspec.json.encode(value).decode()


OPENAI_CALL = {"id": "c", "type": "function", "function": {"name": "shell", "arguments": ARGUMENTS}}
OPENAI_GIVEN: list[Attributes] = [
    {"role": "system", "content": SYSTEM},
    {"role": "user", "content": ASKED},
    {"role": "assistant", "content": None, "tool_calls": [OPENAI_CALL]},
    {"role": "tool", "tool_call_id": "c", "content": RETURNED},
]
CALLED, ANSWERED = OPENAI_GIVEN[2], {"role": "assistant", "content": TOLD}


def usage(names: tuple[str, str, str], number: int) -> Attributes:
    """Return prompt, answer and cached tokens of the first or second call."""
    counts = ((640, 20, 0), (704, 7, 576))[number]
    return dict(zip(names, counts, strict=True))


def flat(prefix: str, messages: list[Attributes], middle: str = "") -> Attributes:
    found: Attributes = {}
    for index, message in enumerate(messages):
        for name, value in message.items():
            found[f"{prefix}.{index}.{middle}{name}"] = value
    return found


def openllmetry(number: int) -> Attributes:
    called = {
        "role": "assistant",
        "tool_calls.0.id": "c",
        "tool_calls.0.name": "shell",
        "tool_calls.0.arguments": ARGUMENTS,
    }
    given = [*OPENAI_GIVEN[:2], called, OPENAI_GIVEN[3]]
    reason = {"finish_reason": ("tool_calls", "stop")[number]}
    return {
        "llm.request.type": "chat",
        "gen_ai.request.model": "m",
        "llm.request.functions.0.name": "shell",
        **flat("gen_ai.prompt", given[: 2 + 2 * number]),
        **flat("gen_ai.completion", [(called, ANSWERED)[number] | reason]),
        **usage(
            (
                "gen_ai.usage.prompt_tokens",
                "gen_ai.usage.completion_tokens",
                "gen_ai.usage.cache_read_input_tokens",
            ),
            number,
        ),
    }


def openinference(number: int) -> Attributes:
    called = {
        "role": "assistant",
        "tool_calls.0.tool_call.id": "c",
        "tool_calls.0.tool_call.function.name": "shell",
        "tool_calls.0.tool_call.function.arguments": ARGUMENTS,
    }
    parts = {
        "role": "user",
        "contents.0.message_content.type": "text",
        "contents.0.message_content.text": ASKED,
    }
    given = [OPENAI_GIVEN[0], (OPENAI_GIVEN[1], parts)[number], called, OPENAI_GIVEN[3]]
    return {
        "openinference.span.kind": "LLM",
        "llm.model_name": "m",
        "input.value": json_of({"messages": OPENAI_GIVEN}),
        "output.value": TOLD,
        **flat("llm.input_messages", given[: 2 + 2 * number], "message."),
        **flat("llm.output_messages", [(called, ANSWERED)[number]], "message."),
        **usage(
            (
                "llm.token_count.prompt",
                "llm.token_count.completion",
                "llm.token_count.prompt_details.cache_read",
            ),
            number,
        ),
    }


def langfuse(number: int) -> Attributes:
    details = usage(("input", "output", "cache_read_input_tokens"), number)
    details["input"] -= details["cache_read_input_tokens"]
    return {
        "langfuse.observation.type": "generation",
        "langfuse.observation.model.name": "m",
        "langfuse.observation.input": json_of(OPENAI_GIVEN[: 2 + 2 * number]),
        "langfuse.observation.output": json_of((CALLED, ANSWERED)[number]),
        "langfuse.observation.usage_details": json_of(details),
    }


def vercel(number: int) -> Attributes:
    asked: list[Attributes] = [
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": [{"type": "text", "text": ASKED}]},
        {
            "role": "assistant",
            "content": [
                {"type": "tool-call", "toolCallId": "c", "toolName": "shell", "input": ARGUMENTS}
            ],
        },
        {
            "role": "tool",
            "content": [{"type": "tool-result", "toolCallId": "c", "output": RETURNED}],
        },
    ]
    answer: Attributes = {"ai.response.text": TOLD, "ai.response.finishReason": "stop"}
    if number == 0:
        calls = [{"toolCallId": "c", "toolName": "shell", "input": ARGUMENTS}]
        answer = {
            "ai.response.toolCalls": json_of(calls),
            "ai.response.finishReason": "tool-calls",
        }
    return {
        "ai.operationId": "ai.streamText.doStream",
        "ai.model.id": "m",
        "ai.prompt.messages": json_of(asked[: 2 + 2 * number]),
        **answer,
        **usage(
            ("ai.usage.inputTokens", "ai.usage.outputTokens", "ai.usage.cachedInputTokens"), number
        ),
    }


def logfire(number: int) -> Attributes:
    return {
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": "m",
        "events": json_of(
            [
                {"event.name": f"gen_ai.{one['role']}.message"} | one
                for one in OPENAI_GIVEN[: 2 + 2 * number]
            ]
            + [{"event.name": "gen_ai.choice", "message": (CALLED, ANSWERED)[number]}]
        ),
        **usage(
            (
                "gen_ai.usage.input_tokens",
                "gen_ai.usage.output_tokens",
                "gen_ai.usage.details.cache_read_tokens",
            ),
            number,
        ),
    }


def sentry(number: int) -> Attributes:
    calls = {"gen_ai.response.tool_calls": json_of([OPENAI_CALL])}
    return {
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": "m",
        "gen_ai.request.messages": json_of(OPENAI_GIVEN[: 2 + 2 * number]),
        **(calls, {"gen_ai.response.text": json_of([TOLD])})[number],
        **usage(
            (
                "gen_ai.usage.input_tokens",
                "gen_ai.usage.output_tokens",
                "gen_ai.usage.input_tokens.cached",
            ),
            number,
        ),
    }


def inference_perf(number: int) -> Attributes:
    output = {"gen_ai.output.message": json_of(CALLED), "gen_ai.output.text": ""}
    return {
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": "m",
        "gen_ai.input.messages": json_of(OPENAI_GIVEN[: 2 + 2 * number]),
        **(output, {"gen_ai.output.text": TOLD})[number],
        **usage(
            (
                "gen_ai.usage.input_tokens",
                "gen_ai.usage.output_tokens",
                "gen_ai.usage.cache_read.input_tokens",
            ),
            number,
        ),
    }


def bedrock(number: int) -> Attributes:
    asked: list[Attributes] = [
        {"role": "system", "content": [{"text": SYSTEM}]},
        {"role": "user", "content": [{"text": ASKED}]},
        {
            "role": "assistant",
            "content": [{"toolUse": {"name": "shell", "input": {"command": "git status"}}}],
        },
        {"role": "user", "content": [{"toolResult": {"content": [{"text": RETURNED}]}}]},
    ]
    return sentry(number) | {
        "gen_ai.request.messages": json_of(asked[: 2 + 2 * number]),
        "gen_ai.response.finish_reasons": json_of([("tool_use", "end_turn")[number]]),
    }


def gemini(number: int) -> Attributes:
    asked: list[Attributes] = [
        {"role": "system", "parts": [{"text": SYSTEM}]},
        {"role": "user", "parts": [{"text": ASKED}]},
        {
            "role": "model",
            "parts": [{"functionCall": {"name": "shell", "args": {"command": "git status"}}}],
        },
        {"role": "user", "parts": [{"functionResponse": {"response": {"output": RETURNED}}}]},
    ]
    answer = {"role": "model", "parts": [{"text": TOLD}]}
    return sentry(number) | {
        "gen_ai.request.messages": json_of(asked[: 2 + 2 * number]),
        "gen_ai.output.messages": json_of([(asked[2], answer)[number]]),
        "gen_ai.response.finish_reasons": ["FinishReason.STOP"],
    }


DIALECTS: list[Callable[[int], Attributes]] = [
    openllmetry,
    openinference,
    langfuse,
    vercel,
    logfire,
    sentry,
    inference_perf,
    bedrock,
    gemini,
]


def span(number: int, attributes: Attributes, parent: str | None = None, **fields: Any) -> Any:
    return {
        "trace_id": "t",
        "span_id": f"{number}",
        "parent_span_id": parent,
        "start_time": f"2026-01-05T10:00:{10 * number:02d}Z",
        "end_time": f"2026-01-05T10:00:{10 * number + 4:02d}Z",
        "attributes": attributes,
    } | fields


@pytest.fixture
def read(tmp_path: Path) -> Any:
    def build(*spans: Any) -> list[Session]:
        path = tmp_path / "a.json"
        path.write_bytes(msgspec.json.encode({"spans": spans}))
        return list(read_sessions(path))

    return build


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.__name__)
def test_all_dialects_read_alike(read: Any, dialect: Callable[[int], Attributes]) -> None:
    (session,) = read(span(0, dialect(0)), span(1, dialect(1)))
    first, second = session.turns
    assert [(one.prompt_tokens, one.output_tokens) for one in session.turns] == [
        (640, 20),
        (704, 7),
    ]
    assert (first.cached_tokens or 0, second.cached_tokens) == (0, 576)
    assert (first.ended_by, first.tool_name, first.tool_command) == ("tool", "shell", "git status")
    assert (first.trigger, second.trigger, second.ended_by) == ("user", "tool_result", "human")
    assert common_prefix_length(first.block_ids, second.block_ids) == 10
    assert first.model == "m"


def test_messages_in_events_of_a_span_are_read(read: Any) -> None:
    def events(number: int) -> list[Attributes]:
        given = [
            {"name": f"gen_ai.{one['role']}.message", "attributes": one}
            for one in OPENAI_GIVEN[: 2 + 2 * number]
        ]
        choice = {"message": json_of((CALLED, ANSWERED)[number]), "finish_reason": "stop"}
        return [*given, {"name": "gen_ai.choice", "attributes": choice}]

    bare = {"gen_ai.operation.name": "chat", "gen_ai.usage.input_tokens": 704}
    (session,) = read(*(span(number, bare, events=events(number)) for number in (0, 1)))
    assert [turn.ended_by for turn in session.turns] == ["tool", "human"]
    assert session.turns[1].trigger == "tool_result"


def test_prompt_count_without_cached_tokens_is_completed(read: Any) -> None:
    counted = {
        "gen_ai.operation.name": "chat",
        "gen_ai.usage.input_tokens": 4,
        "gen_ai.usage.cache_read_input_tokens": 600,
        "gen_ai.usage.cache_creation_input_tokens": 36,
    }
    (session,) = read(span(0, counted))
    assert (session.turns[0].prompt_tokens, session.turns[0].cached_tokens) == (640, 600)


def test_call_around_another_call_is_ignored(read: Any) -> None:
    total = {"gen_ai.usage.input_tokens": 1344, "gen_ai.agent.name": "a"}
    (session,) = read(
        span(0, openllmetry(0), "9"),
        span(1, openllmetry(1), "9"),
        span(9, total, start_time="2026-01-05T10:00:00Z", end_time="2026-01-05T10:01:00Z"),
    )
    assert [turn.prompt_tokens for turn in session.turns] == [640, 704]


def test_spans_of_other_kinds_are_not_calls(read: Any) -> None:
    chain = {"openinference.span.kind": "CHAIN", "llm.token_count.prompt": 9, "input.value": "x"}
    generate = {"ai.operationId": "ai.generateText", "ai.usage.promptTokens": 9, "ai.prompt": "x"}
    (session,) = read(
        span(0, chain), span(1, generate), span(2, {"input.value": "x"}), span(3, vercel(0))
    )
    assert len(session.turns) == 1


def test_a_call_that_failed_is_no_turn(read: Any) -> None:
    failed = {"gen_ai.operation.name": "chat", "gen_ai.input.messages": OPENAI_GIVEN[:2]}
    (session,) = read(
        span(0, failed, status={"code": 2, "message": "overloaded"}),
        span(1, sentry(0), status={"code": "STATUS_CODE_OK"}),
    )
    assert [turn.prompt_tokens for turn in session.turns] == [640]


def test_a_session_id_of_any_dialect_joins_traces(read: Any) -> None:
    (session,) = read(
        span(0, openinference(0) | {"session.id": "x"}),
        span(1, openinference(1) | {"session.id": "x"}, trace_id="u"),
    )
    assert session.session_id == "a/x"


def test_agents_are_found_by_other_attribute_names(read: Any) -> None:
    agent = {"traceloop.span.kind": "agent", "traceloop.entity.name": "planner"}
    (session,) = read(span(2, agent), span(0, openllmetry(0), "2"))
    assert (session.agent, session.session_id) == ("planner", "a/t/planner")


@pytest.mark.parametrize(
    ("answer", "num_tokens"),
    [('{"city": "A"}', 4), ("[1, 2]", 2), ("x" * 41, 11), ("[not JSON", 3)],
)
def test_answer_in_json_keeps_its_length(read: Any, answer: str, num_tokens: int) -> None:
    asked = {"gen_ai.operation.name": "chat", "gen_ai.input.messages": OPENAI_GIVEN[:2]}
    for name in ("gen_ai.output.text", "gen_ai.completion"):
        (session,) = read(span(0, asked | {name: answer}))
        assert session.turns[0].output_tokens == num_tokens
        assert session.turns[0].ended_by == "human"


def test_content_that_was_written_as_json_is_the_same_message(read: Any) -> None:
    parts = json_of([{"type": "text", "text": ASKED, "cache_control": {"type": "ephemeral"}}])
    one = openllmetry(1)
    other = one | {"gen_ai.prompt.1.content": parts}
    first, second = read(span(0, one), span(1, other, trace_id="u"))
    assert first.turns[0].block_ids == second.turns[0].block_ids


def test_an_error_names_the_attribute_as_it_was_recorded(read: Any) -> None:
    with pytest.raises(TraceError, match=r"spans\[0\]\.attributes\.llm\.token_count\.prompt: "):
        read(span(0, openinference(0) | {"llm.token_count.prompt": "many"}))
