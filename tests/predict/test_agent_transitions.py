"""Agent transitions, learned from the order of calls."""

from __future__ import annotations

import random

from holdfast.predict.agent_transitions import AgentTransitions


def observe(transitions: AgentTransitions[str], calls: str, workflow: str = "w") -> None:
    for agent in calls:
        transitions.observe(workflow, agent)


def test_cycle_predicted_after_some_right_predictions() -> None:
    transitions: AgentTransitions[str] = AgentTransitions()
    observe(transitions, "abcdefgh")
    assert not list(transitions.predict(3))
    observe(transitions, "abcdefgh")
    assert list(transitions.predict(3)) == [(1, "a"), (2, "b"), (3, "c")]


def test_nothing_predicted_in_a_random_order() -> None:
    transitions: AgentTransitions[str] = AgentTransitions()
    rng = random.Random(3)
    for _ in range(500):
        observe(transitions, rng.choice("abcdef"))
        assert not list(transitions.predict(2))


def test_nothing_predicted_after_the_order_changes() -> None:
    transitions: AgentTransitions[str] = AgentTransitions()
    observe(transitions, "abcd" * 6)
    assert list(transitions.predict(1)) == [(1, "a")]
    observe(transitions, "dcadbc")
    assert not list(transitions.predict(1))


def test_new_order_is_learned() -> None:
    transitions: AgentTransitions[str] = AgentTransitions()
    observe(transitions, "abcd" * 6)
    observe(transitions, "dbca" * 6)
    assert list(transitions.predict(2)) == [(1, "d"), (2, "b")]


def test_interleaved_workflows_are_kept_apart() -> None:
    transitions: AgentTransitions[str] = AgentTransitions()
    for first, second in zip("abc" * 8, "xyz" * 8, strict=True):
        observe(transitions, first, "one")
        observe(transitions, second, "two")
    assert list(transitions.predict(1)) == [(1, "x"), (1, "a")]


def test_agent_that_follows_itself_is_not_predicted() -> None:
    transitions: AgentTransitions[str] = AgentTransitions()
    observe(transitions, "a" * 12)
    assert not list(transitions.predict(3))


def test_memory_is_bounded() -> None:
    transitions: AgentTransitions[str] = AgentTransitions()
    for number in range(5000):
        transitions.observe(f"w{number}", f"a{number % 3000}")
        transitions.observe(f"w{number}", f"b{number}")
    assert len(transitions._weights) <= 1024
    assert len(transitions._last) <= 1024
