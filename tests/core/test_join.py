"""An agent's wait for sub-agents: who runs, who has ended."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.core.join import Join


def test_sub_agents_called_and_not_seen_are_awaited() -> None:
    join = Join(10.0, num_called=3)
    assert (join.num_awaited, join.num_sub_agents, join.num_running) == (3, 3, 0)
    assert join.running_since_s() == (10.0, 10.0)
    join.enter(1, 12.0)
    assert join.running_since_s() == (10.0, 12.0)
    join.enter(2, 14.0)
    join.enter(3, 13.0)
    assert join.running_since_s() == (12.0, 14.0)


def test_wait_is_over_when_all_have_ended() -> None:
    join = Join(10.0, num_called=2)
    assert not join.is_over
    join.enter(1, 10.0)
    assert join.leave(1, 11.0) and not join.is_over
    join.enter(2, 10.0)
    assert join.leave(2, 12.0) and join.is_over
    assert (join.ended_s, join.active_s) == (12.0, 12.0)


def test_end_of_a_stranger_changes_nothing() -> None:
    join = Join(10.0, num_called=2)
    assert not join.leave(7, 11.0)
    assert join.ended_s is None and join.num_awaited == 2


def test_sub_agents_beyond_the_limit_are_ignored() -> None:
    join = Join(0.0)
    for number in range(3000):
        join.enter(number, 0.0)
    assert join.num_running == 1024 and 2999 not in join
    join.leave(5, 1.0)
    join.enter(5, 2.0)
    assert join.num_running == 1024


_Step = tuple[bool, int]


@pytest.mark.parametrize("num_called", [0, 3])
@given(steps=st.lists(st.tuples(st.booleans(), st.integers(0, 5)), max_size=60))
def test_counts_are_never_negative(num_called: int, steps: list[_Step]) -> None:
    join = Join(0.0, num_called=num_called)
    running: set[int] = set()
    ended: set[int] = set()
    for begins, number in steps:
        if begins:
            join.enter(number, 0.0)
            running.add(number)
            ended.discard(number)
        elif join.leave(number, 1.0):
            running.remove(number)
            ended.add(number)
        assert join.num_running == len(running)
        assert join.num_sub_agents == max(num_called, len(running | ended))
        assert join.num_awaited == join.num_sub_agents - len(ended) >= len(running)
