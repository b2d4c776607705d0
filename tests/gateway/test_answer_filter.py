"""Fuzzed: a forbidden call never passes, not one letter of it; other answers pass byte for byte."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.gateway.answers_with_calls import (
    ASK,
    NO,
    STREAMS,
    USAGE,
    Judging,
    Said,
    chat_events,
    encoded,
    filter_of,
    message_events,
    passed,
    response_events,
    streamed,
    usage_chunk,
    whole,
)
from tests.tool_calls.call_samples import CALLS, UNNAMED

from holdfast.gateway.answer_events import UnreadableAnswerError

APIS = sorted(STREAMS)
ENDS = [b"\n", b"\r\n", b"\r"]
FINE = Said("read", json.dumps({"path": "a.py", "note": 'é \\ " {[<'}))
BAD = Said("QZQ", json.dumps({"ZQZ": "QZ" * 9, "Q": {"Z": ["Q"]}}))
BAD_ARGUMENTS = Said("read", json.dumps({"path": "ZZ/QQ"}))
ASKED = Said("write", json.dumps({"path": "W"}))
TEXTS = [Said("", text) for text in ("", "Hello.", 'a < b, {"a": 1}, [x](y) <b>', "é" * 9)]
SYNTAXES = sorted(set(CALLS) - UNNAMED)


def sample(name: str) -> str:
    """The sample call in a syntax, with forbidden letters for its name and argument."""
    return "".join(CALLS[name]).replace("bash", "QZQZ").replace("git status", "ZQ ZQ")


def has_letters(text: bytes) -> bool:
    return b"Q" in text or b"Z" in text


parts_of = st.lists(st.sampled_from([FINE, BAD, BAD_ARGUMENTS, ASKED, *TEXTS]), max_size=5)
fine_parts = st.lists(st.sampled_from([FINE, *TEXTS]), max_size=5)


@st.composite
def chunks_of(draw: st.DrawFn, text: bytes) -> list[bytes]:
    if draw(st.booleans()):
        return [text[at : at + 1] for at in range(len(text))]
    at = sorted(draw(st.sets(st.integers(0, len(text)), max_size=20)))
    return [text[a:b] for a, b in zip([0, *at], [*at, len(text)], strict=True)]


@pytest.mark.parametrize("api", APIS)
@given(data=st.data())
def test_answers_without_denied_calls_are_byte_equal(api: str, data: st.DataObject) -> None:
    parts, end = data.draw(fine_parts), data.draw(st.sampled_from(ENDS))
    text = streamed(api, parts, data.draw(st.integers(1, 9)), end)
    text = data.draw(st.sampled_from([b"", b": a comment" + end + end, b"\xef\xbb\xbf"])) + text
    assert passed(filter_of(api), data.draw(chunks_of(text))) == text


@pytest.mark.parametrize("api", APIS)
@given(data=st.data())
def test_no_letter_of_a_forbidden_call_passes(api: str, data: st.DataObject) -> None:
    parts, end = data.draw(parts_of), data.draw(st.sampled_from(ENDS))
    text = streamed(api, parts, data.draw(st.integers(1, 9)), end)
    filtered = filter_of(api)
    got = b""
    for chunk in data.draw(chunks_of(text)):
        got += filtered.feed(chunk)
        assert not has_letters(got)
    got += filtered.end()
    assert not has_letters(got)
    is_denied = BAD in parts or BAD_ARGUMENTS in parts
    assert (NO.encode() in got) == is_denied and (ASK.encode() in got) == (ASKED in parts)
    if not is_denied and ASKED not in parts:
        assert got == text


@pytest.mark.parametrize("api", APIS)
@given(data=st.data())
def test_no_letter_of_a_forbidden_body_passes(api: str, data: st.DataObject) -> None:
    parts = data.draw(parts_of)
    text = whole(api, parts)
    got = passed(filter_of(api, streamed=False), data.draw(chunks_of(text)))
    assert not has_letters(got)
    if not {BAD, BAD_ARGUMENTS, ASKED} & set(parts):
        assert got == text


@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize("syntax", SYNTAXES)
@given(data=st.data())
@settings(max_examples=4)
def test_forbidden_calls_in_texts_do_not_pass(api: str, syntax: str, data: st.DataObject) -> None:
    said = data.draw(st.sampled_from(["", "I look: a < b.\n"])) + sample(syntax)
    parts = [Said("", said)]
    text = streamed(api, parts, data.draw(st.integers(1, len(said))))
    got = passed(filter_of(api), data.draw(chunks_of(text)))
    assert not has_letters(got) and NO.encode() in got
    got = passed(filter_of(api, streamed=False), [whole(api, parts)])
    assert not has_letters(got) and NO.encode() in got


@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize("syntax", SYNTAXES)
def test_allowed_calls_in_texts_are_byte_equal(api: str, syntax: str) -> None:
    parts = [Said("", "I look.\n" + "".join(CALLS[syntax]))]
    policy = Judging()
    text = streamed(api, parts, 40)
    assert passed(filter_of(api, policy=policy), [text[:99], text[99:]]) == text
    assert {call.name for call in policy.calls} == {"bash"}
    assert passed(filter_of(api, streamed=False), [whole(api, parts)]) == whole(api, parts)


@given(data=st.data())
def test_choices_and_parallel_calls_may_alternate(data: st.DataObject) -> None:
    several = [data.draw(parts_of) for _ in range(data.draw(st.integers(1, 3)))]
    queues = [chat_events(parts, 4, index) for index, parts in enumerate(several)]
    mixed = alternated(data, queues)
    text = encoded([*mixed, usage_chunk()]) + b"data: [DONE]\n\n"
    got = passed(filter_of("chat"), data.draw(chunks_of(text)))
    assert not has_letters(got)
    if not {BAD, BAD_ARGUMENTS, ASKED} & {part for parts in several for part in parts}:
        assert got == text


@given(data=st.data())
def test_blocks_and_items_may_alternate(data: st.DataObject) -> None:
    parts = data.draw(parts_of)
    for api, events in (("messages", message_events), ("responses", response_events)):
        first, *middle, last = events(parts)
        by_part: dict[Any, list[dict[str, Any]]] = {}
        ends: list[dict[str, Any]] = []
        for event in middle:
            index = event.get("output_index", event.get("index"))
            (ends if index is None else by_part.setdefault(index, [])).append(event)
        text = encoded([first, *alternated(data, list(by_part.values())), *ends, last])
        got = passed(filter_of(api), data.draw(chunks_of(text)))
        assert not has_letters(got)
        if not {BAD, BAD_ARGUMENTS, ASKED} & set(parts):
            assert got == text


def alternated(data: st.DataObject, queues: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    mixed = []
    queues = [list(queue) for queue in queues if queue]
    while queues:
        queue = data.draw(st.sampled_from(range(len(queues))))
        mixed.append(queues[queue].pop(0))
        queues = [each for each in queues if each]
    return mixed


# Hand-worked.


def payloads(text: bytes) -> list[dict[str, Any]]:
    lines = [line[6:] for line in text.split(b"\n") if line.startswith(b"data: ")]
    return [json.loads(line) for line in lines if line != b"[DONE]"]


def chat_got(parts: Sequence[Said]) -> list[dict[str, Any]]:
    return payloads(passed(filter_of("chat"), [streamed("chat", parts)]))


def test_allowed_parallel_calls_are_numbered_anew() -> None:
    got = chat_got([BAD, FINE, FINE])
    deltas = [choice["delta"] for chunk in got for choice in chunk["choices"]]
    calls = [call for delta in deltas for call in delta.get("tool_calls", ())]
    assert [call["index"] for call in calls if "id" in call] == [0, 1]
    assert {call["index"] for call in calls} == {0, 1}
    assert got[-2]["choices"][0]["finish_reason"] == "tool_calls"
    assert got[-1] == usage_chunk() and got[-1]["usage"] == USAGE


def test_a_choice_without_calls_stops() -> None:
    got = chat_got([TEXTS[1], BAD])
    *_, told, finish, _ = [choice for chunk in got for choice in chunk["choices"] or [{}]]
    assert told["delta"] == {"content": f"\n\n{NO}", "refusal": NO}
    assert finish["finish_reason"] == "stop"


def test_a_question_is_no_refusal() -> None:
    *_, told, _, _ = [choice for chunk in chat_got([ASKED]) for choice in chunk["choices"] or [{}]]
    assert told["delta"] == {"content": ASK}


def test_legacy_function_calls_are_judged() -> None:
    events = chat_events([])
    delta: dict[str, Any] = {"function_call": {"name": "QZ", "arguments": "{}"}}
    events[0]["choices"][0]["delta"] = delta
    events[-1]["choices"][0]["finish_reason"] = "function_call"
    got = passed(filter_of("chat"), [encoded(events)])
    assert not has_letters(got) and b'"stop"' in got
    body = {"choices": [{"index": 0, "message": delta, "finish_reason": "function_call"}]}
    got = passed(filter_of("chat", streamed=False), [json.dumps(body).encode()])
    assert not has_letters(got) and json.loads(got)["choices"][0]["finish_reason"] == "stop"


def test_completions_are_judged() -> None:
    said = ["So: <to", "ol_call>", sample("hermes"), ""]
    head = {"id": "c", "object": "text_completion", "created": 1, "model": "m"}
    events = [
        head
        | {"choices": [{"index": 0, "text": text, "finish_reason": "stop" if not text else None}]}
        for text in said
    ]
    got = payloads(passed(filter_of("chat"), [encoded(events)]))
    assert "".join(each["choices"][0]["text"] for each in got) == f"So: \n\n{NO}"


def test_log_probabilities_of_denied_texts_do_not_pass() -> None:
    events = chat_events([Said("", sample("hermes"))], 5)
    for event in events:
        said = event["choices"][0]["delta"].get("content", "")
        if has_letters(said.encode()):
            event["choices"][0] |= {"logprobs": {"content": [{"token": said}]}, "token_ids": [1]}
    got = passed(filter_of("chat"), [encoded(events)])
    assert not has_letters(got) and b"token_ids" not in got


def test_a_message_without_calls_ends_its_turn() -> None:
    got = payloads(passed(filter_of("messages"), [streamed("messages", [BAD])]))
    start, delta, stop = got[1:4]
    assert start["content_block"] == {"type": "text", "text": ""}
    assert delta["delta"] == {"type": "text_delta", "text": NO}
    assert {start["index"], delta["index"], stop["index"]} == {0}
    assert got[-2]["delta"]["stop_reason"] == "end_turn" and got[-2]["usage"]["output_tokens"] == 5


def test_events_of_a_response_are_numbered_anew() -> None:
    got = payloads(passed(filter_of("responses"), [streamed("responses", [FINE, BAD, FINE])]))
    assert [event["sequence_number"] for event in got] == list(range(len(got)))
    final = got[-1]["response"]
    kinds = [item["type"] for item in final["output"]]
    assert kinds == ["function_call", "message", "function_call"]
    (item,) = [e["item"] for e in got if e["type"].endswith("item.done") and e["output_index"] == 1]
    assert item == final["output"][1] and item["content"][0]["text"] == NO


def test_calls_are_judged_once() -> None:
    for api in APIS:
        policy = Judging()
        passed(filter_of(api, policy=policy), [streamed(api, [FINE, FINE, BAD, TEXTS[1]])])
        assert [call.name for call in policy.calls] == [FINE.name, FINE.name, BAD.name]


def test_arguments_sent_twice_are_judged_twice() -> None:
    events = response_events([FINE])
    for event in events:
        if event["type"].endswith("arguments.delta"):
            event["delta"] = event["delta"].replace("a.py", "QZ")
    assert not has_letters(passed(filter_of("responses"), [encoded(events)]))


def test_tools_of_the_api_are_calls() -> None:
    item = {"type": "local_shell_call", "id": "l", "action": {"command": ["QZ"]}}
    events = [
        {"type": "response.output_item.added", "output_index": 0, "item": item},
        {"type": "response.output_item.done", "output_index": 0, "item": item},
    ]
    assert not has_letters(passed(filter_of("responses"), [encoded(events)]))


@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize("text", [b'data: {"choices": [{"de\n\n', b"data: [1]\n\n", b"data: " * 9])
def test_unreadable_streams_are_cut(api: str, text: bytes) -> None:
    filtered = filter_of(api)
    assert filtered.feed(b": fine\n\n") == b": fine\n\n"
    with pytest.raises(UnreadableAnswerError):
        passed(filtered, [text, b"\n\n"])


@pytest.mark.parametrize("api", APIS)
def test_calls_longer_than_what_is_held_are_denied(api: str) -> None:
    long = Said("read", json.dumps({"text": "long" * 5000}))
    policy = Judging()
    filtered = filter_of(api, policy=policy)
    filtered._held_bytes = 30_000  # type: ignore[attr-defined]
    got = passed(filtered, [streamed(api, [long, FINE], 400)])
    assert b"longer than" in got and b"long" * 3 not in got
    assert [call.arguments for call in policy.calls] == [FINE.text] and b"read" in got


@pytest.mark.parametrize("api", APIS)
def test_streams_that_end_in_a_call_give_nothing_of_it(api: str) -> None:
    text = streamed(api, [BAD], 9)
    at = text.index(b"ZQZ")
    for length in range(at, at + 200, 7):
        filtered = filter_of(api)
        assert not has_letters(filtered.feed(text[:length]))
