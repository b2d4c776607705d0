"""Turns of one session: triggers, gaps, added tokens and events."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from tests.workload.generator.builders import parameters_of, sessions_of

from holdfast.traces.record import Session


def session_of(num_turns: int = 3, step: dict[str, Any] | None = None, **agent: Any) -> Session:
    work = {"output_tokens": 5, "added_tokens": 20, "next": {"work": 1}} | (step or {})
    main = {
        "num_turns": num_turns,
        "roles": {"": {"prompt_tokens": 100}},
        "steps": {"work": work},
        "first": {"work": 1},
    } | agent
    (session,) = sessions_of(parameters_of({"main": main}), 1)
    return session


@pytest.mark.parametrize(
    ("step", "trigger"),
    [
        ({"ended_by": "human"}, "user"),
        ({"ended_by": "tool"}, "tool_result"),
        ({"ended_by": "tool", "user_share": 1}, "user"),
        ({"ended_by": "human", "user_share": 0}, "tool_result"),
    ],
)
def test_trigger_follows_user_share_or_turn_end(step: dict[str, Any], trigger: str) -> None:
    turns = session_of(step=step).turns
    assert [turn.trigger for turn in turns] == ["user", trigger, trigger]


def test_gaps_rounded_to_milliseconds() -> None:
    assert [turn.gap_s for turn in session_of(step={"gap_s": 1.23456}).turns] == [0.0, 1.235, 1.235]


def test_first_four_turns_add_early_tokens() -> None:
    turns = session_of(7, early_added_tokens=3).turns
    growth = [b.prompt_tokens - a.prompt_tokens for a, b in pairwise(turns)]
    assert growth == [3, 3, 3, 3, 20, 20]


def test_task_tokens_precede_the_first_turn() -> None:
    assert session_of(task_tokens=7).turns[0].prompt_tokens == 107


def test_tail_rewrite_has_no_event_and_return_has_one() -> None:
    rewrites = {kind: {"kept_tokens": 20} for kind in ("tail", "return", "branch")}
    for kind, events in (("tail", []), ("branch", []), ("return", [("fork", 1), ("fork", 2)])):
        session = session_of(step={"rewrites": {kind: 1}}, rewrites=rewrites)
        assert [(event.kind, event.turn_index) for event in session.events] == events
