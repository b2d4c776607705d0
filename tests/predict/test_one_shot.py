"""Which sessions send a second turn."""

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


def closed(first_turns: OneShotPredictor, beginning: str, num_sessions: int) -> None:
    for _ in range(num_sessions):
        first_turns.turn_arrived(session(SessionState.CLOSED), beginning)


def test_at_first_all_are_expected_back() -> None:
    assert OneShotPredictor(lambda _: False).share("a") == 1.0


def test_beginnings_whose_sessions_end_are_told_from_others() -> None:
    first_turns = OneShotPredictor(lambda _: False)
    for _ in range(30):
        agent = session()
        first_turns.turn_arrived(agent, "agent")
        agent.num_turns += 1
        first_turns.turn_arrived(agent, "agent")
        closed(first_turns, "question", 1)
    assert first_turns.share("agent") > 0.95
    assert first_turns.share("question") < 0.05


def test_a_pause_past_hoping_for_counts_as_an_end() -> None:
    first_turns = OneShotPredictor(lambda _: True)
    for _ in range(30):
        first_turns.turn_arrived(session(), "a")
    assert first_turns.share("a") < 0.1


def test_a_session_in_the_engine_has_not_ended() -> None:
    first_turns = OneShotPredictor(lambda _: True)
    for _ in range(30):
        first_turns.turn_arrived(session(SessionState.RUNNING), "a")
    assert first_turns.share("a") == 1.0


def test_where_all_beginnings_are_new_and_end_a_new_one_is_expected_to_end() -> None:
    first_turns = OneShotPredictor(lambda _: False)
    for number in range(40):
        closed(first_turns, f"question {number}", 1)
    assert first_turns.share("another") < 0.1


def test_where_nobody_ever_returned_the_longest_away_count_as_ended() -> None:
    first_turns = OneShotPredictor(lambda _: False)
    for number in range(600):
        first_turns.turn_arrived(session(), number)
    assert first_turns.share("another") < 0.1


def test_where_sessions_return_those_still_away_count_for_nothing() -> None:
    first_turns = OneShotPredictor(lambda _: False)
    agent = session(num_turns=1)
    first_turns.turn_arrived(agent, "a")
    agent.num_turns = 2
    first_turns.turn_arrived(agent, "a")
    for number in range(600):
        first_turns.turn_arrived(session(), number)
    assert first_turns.share("another") == 1.0


def test_what_came_again_is_expected_to_come_again() -> None:
    first_turns = OneShotPredictor(lambda _: False)
    closed(first_turns, "agent", 2)
    assert first_turns.recurrence("agent") == 1.0


def test_beginnings_that_never_come_again_are_expected_not_to_once_many_have_passed() -> None:
    first_turns = OneShotPredictor(lambda _: False)
    for number in range(4000):
        closed(first_turns, f"question {number}", 1)
    assert first_turns.recurrence("another") == 1.0
    for number in range(4000, 5000):
        closed(first_turns, f"question {number}", 1)
    assert first_turns.recurrence("another") < 0.01
