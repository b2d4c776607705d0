"""Concurrent calls of one agent or one trace."""

from __future__ import annotations

from typing import Any

import pytest

from holdfast.traces.io import read_sessions
from holdfast.traces.record import Session


def user(letter: str) -> dict[str, Any]:
    return {"role": "user", "content": letter * 4000}


def answer(letter: str) -> dict[str, Any]:
    return {"role": "assistant", "content": letter * 400}


def call(start_s: float, end_s: float, *messages: dict[str, Any], **more: Any) -> dict[str, Any]:
    attributes = {"gen_ai.operation.name": "chat", "gen_ai.usage.input_tokens": 64} | more
    if messages:
        attributes["gen_ai.input.messages"] = list(messages)
    return {
        "trace_id": "t",
        "span_id": f"{start_s}-{end_s}-{len(messages)}",
        "start_time": f"2026-01-05T10:00:{start_s:09.6f}Z",
        "end_time": f"2026-01-05T10:00:{end_s:09.6f}Z",
        "attributes": attributes,
    }


@pytest.fixture
def read(write_lines: Any) -> Any:
    def build(*spans: dict[str, Any]) -> list[Session]:
        return list(read_sessions(write_lines("a.json", {"spans": list(spans)})))

    return build


def gaps(session: Session) -> list[float]:
    return [round(turn.gap_s, 3) for turn in session.turns]


def test_concurrent_calls_are_separate_streams(read: Any) -> None:
    main, one, two = read(
        call(0, 2, user("a")),
        call(3, 6, user("b")),
        call(3, 8, user("c")),
        call(3.5, 7, user("d")),
        call(9, 10, user("a"), answer("a"), user("e")),
    )
    assert [gaps(session) for session in (main, one, two)] == [[0.0, 1.0, 3.0], [0.0], [0.0]]
    assert [(each.parent_id, each.parent_turn) for each in (one, two)] == [("a/t", 0), ("a/t", 0)]
    assert [each.session_id for each in (one, two)] == ["a/t/beside-1", "a/t/beside-2"]


def test_stream_continues_with_the_call_that_extends_it(read: Any) -> None:
    main, beside = read(
        call(0, 5, user("a")),
        call(1, 4, user("b")),
        call(6, 9, user("b"), answer("b"), user("c")),
        call(7, 8, user("a"), answer("a"), user("d")),
    )
    assert (gaps(main), gaps(beside)) == ([0.0, 2.0], [0.0, 2.0])


def test_calls_without_content_are_separated_by_their_times(read: Any) -> None:
    main, beside = read(call(0, 5), call(1, 4), call(6, 7))
    assert (gaps(main), gaps(beside)) == ([0.0, 1.0], [0.0])


@pytest.mark.parametrize("start_s", [5.0, 4.97, 5.5])
def test_consecutive_calls_stay_one_stream(read: Any, start_s: float) -> None:
    (session,) = read(call(0, 5, user("a")), call(start_s, 9, user("b")))
    assert len(session.turns) == 2


def test_prompt_with_the_answer_follows_a_span_that_ends_late(read: Any) -> None:
    (session,) = read(call(0, 5, user("a")), call(4, 9, user("a"), answer("a"), user("b")))
    assert gaps(session) == [0.0, 0.0]


def test_a_longer_prompt_without_the_answer_is_another_stream(read: Any) -> None:
    assert len(read(call(0, 5, user("a")), call(1, 6, user("a"), user("b")))) == 2
