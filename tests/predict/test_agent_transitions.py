"""Who is called after whom, learned from the order of calls."""

from __future__ import annotations

import random

from holdfast.predict.agent_transitions import AgentTransitions


def called(succession: AgentTransitions[str], calls: str, workflow: str = "w") -> None:
    for agent in calls:
        succession.called(workflow, agent)


def test_a_cycle_is_known_after_it_came_true_a_few_times() -> None:
    succession: AgentTransitions[str] = AgentTransitions()
    called(succession, "abcdefgh")
    assert not list(succession.ahead(3))
    called(succession, "abcdefgh")
    assert list(succession.ahead(3)) == [(1, "a"), (2, "b"), (3, "c")]


def test_nobody_is_said_to_be_next_where_order_means_nothing() -> None:
    succession: AgentTransitions[str] = AgentTransitions()
    rng = random.Random(3)
    for _ in range(500):
        called(succession, rng.choice("abcdef"))
        assert not list(succession.ahead(2))


def test_trust_is_lost_when_the_order_changes() -> None:
    succession: AgentTransitions[str] = AgentTransitions()
    called(succession, "abcd" * 6)
    assert list(succession.ahead(1)) == [(1, "a")]
    called(succession, "dcadbc")
    assert not list(succession.ahead(1))


def test_a_new_order_is_learned() -> None:
    succession: AgentTransitions[str] = AgentTransitions()
    called(succession, "abcd" * 6)
    called(succession, "dbca" * 6)
    assert list(succession.ahead(2)) == [(1, "d"), (2, "b")]


def test_workflows_that_take_turns_do_not_disturb_each_other() -> None:
    succession: AgentTransitions[str] = AgentTransitions()
    for first, second in zip("abc" * 8, "xyz" * 8, strict=True):
        called(succession, first, "one")
        called(succession, second, "two")
    assert list(succession.ahead(1)) == [(1, "x"), (1, "a")]


def test_an_agent_that_is_its_own_successor_is_not_ahead_of_itself() -> None:
    succession: AgentTransitions[str] = AgentTransitions()
    called(succession, "a" * 12)
    assert not list(succession.ahead(3))


def test_what_is_remembered_is_bounded() -> None:
    succession: AgentTransitions[str] = AgentTransitions()
    for number in range(5000):
        succession.called(f"w{number}", f"a{number % 3000}")
        succession.called(f"w{number}", f"b{number}")
    assert len(succession._after) <= 1024
    assert len(succession._last) <= 1024
