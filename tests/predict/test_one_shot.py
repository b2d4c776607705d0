"""Likelihood that a session sends a second turn."""

from __future__ import annotations

from itertools import count
from typing import Any

from holdfast.cache.prefix_tree import Node
from holdfast.core.session import Session, SessionState
from holdfast.predict.one_shot import OneShotPredictor

_numbers = count()


def session(state: SessionState = SessionState.AT_TOOL, num_turns: int = 1) -> Session:
    root: Node[Any] = Node(None, 0, [])
    return Session(next(_numbers), None, state, root, root, num_turns=num_turns)


def close_sessions(predictor: OneShotPredictor, prefix: str, num_sessions: int) -> None:
    for _ in range(num_sessions):
        predictor.turn_arrived(session(SessionState.CLOSED), prefix)


def test_all_sessions_expected_back_at_first() -> None:
    assert OneShotPredictor(lambda _: False).return_share("a") == 1.0


def test_one_shot_prefix_is_told_from_an_agent() -> None:
    predictor = OneShotPredictor(lambda _: False)
    for _ in range(30):
        agent = session()
        predictor.turn_arrived(agent, "agent")
        agent.num_turns += 1
        predictor.turn_arrived(agent, "agent")
        close_sessions(predictor, "question", 1)
    assert predictor.return_share("agent") > 0.95
    assert predictor.return_share("question") < 0.05


def test_abandoned_session_counts_as_ended() -> None:
    predictor = OneShotPredictor(lambda _: True)
    for _ in range(30):
        predictor.turn_arrived(session(), "a")
    assert predictor.return_share("a") < 0.1


def test_running_session_has_not_ended() -> None:
    predictor = OneShotPredictor(lambda _: True)
    for _ in range(30):
        predictor.turn_arrived(session(SessionState.RUNNING), "a")
    assert predictor.return_share("a") == 1.0


def test_new_prefix_expected_to_end_where_new_ones_did() -> None:
    predictor = OneShotPredictor(lambda _: False)
    for number in range(40):
        close_sessions(predictor, f"question {number}", 1)
    assert predictor.return_share("another") < 0.1


def test_longest_paused_count_as_ended_without_any_return() -> None:
    predictor = OneShotPredictor(lambda _: False)
    for number in range(600):
        predictor.turn_arrived(session(), number)
    assert predictor.return_share("another") < 0.1


def test_paused_sessions_not_counted_where_others_return() -> None:
    predictor = OneShotPredictor(lambda _: False)
    agent = session(num_turns=1)
    predictor.turn_arrived(agent, "a")
    agent.num_turns = 2
    predictor.turn_arrived(agent, "a")
    for number in range(600):
        predictor.turn_arrived(session(), number)
    assert predictor.return_share("another") == 1.0


def test_repeated_prefix_expected_to_repeat() -> None:
    predictor = OneShotPredictor(lambda _: False)
    close_sessions(predictor, "agent", 2)
    assert predictor.repeat_share("agent") == 1.0


def test_unrepeated_prefixes_lower_the_repeat_share() -> None:
    predictor = OneShotPredictor(lambda _: False)
    for number in range(4000):
        close_sessions(predictor, f"question {number}", 1)
    assert predictor.repeat_share("another") == 1.0
    for number in range(4000, 5000):
        close_sessions(predictor, f"question {number}", 1)
    assert predictor.repeat_share("another") < 0.01
