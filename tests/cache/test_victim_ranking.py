"""The ranking of runs against a plain dictionary of keys."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from holdfast.cache.node_heap import Key, NodeHeap
from holdfast.cache.prefix_tree import Node

NUM_RUNS = 5
RUNS = st.integers(0, NUM_RUNS - 1)
WORTHS = st.tuples(st.integers(0, 1), st.sampled_from([0.0, 0.5, 1.0]))


class RankingAgainstDict(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.runs: list[Node[Any]] = [Node(None, i, []) for i in range(NUM_RUNS)]
        self.ready = set(self.runs)
        self.ranking = NodeHeap(self.ready.__contains__)
        self.keys: dict[Node[Any], Key] = {}

    def lowest(self) -> Key | None:
        return min((key for node, key in self.keys.items() if node in self.ready), default=None)

    @rule(index=RUNS, priority=WORTHS, num_times=st.sampled_from([1, 1, 40]))
    def push(self, index: int, priority: tuple[int, float], num_times: int) -> None:
        node = self.runs[index]
        self.keys[node] = (*priority, index)
        for _ in range(num_times):
            self.ranking.push(node, self.keys[node])

    @rule(index=RUNS)
    def toggle_readiness(self, index: int) -> None:
        """An entry that was passed over may be gone, so what becomes ready is ranked anew."""
        node = self.runs[index]
        if node in self.ready:
            self.ready.remove(node)
            return
        self.ready.add(node)
        if node in self.keys:
            self.ranking.push(node, self.keys[node])

    @rule()
    def pop(self) -> None:
        lowest = self.lowest()
        if lowest is None:
            with pytest.raises(IndexError):
                self.ranking.pop()
            return
        node, key = self.ranking.pop()
        assert key == lowest == self.keys.pop(node)

    @rule()
    def clear(self) -> None:
        self.ranking.clear()
        self.keys.clear()

    @invariant()
    def lowest_is_that_of_the_dict(self) -> None:
        assert self.ranking.lowest() == self.lowest()

    @invariant()
    def ready_runs_have_one_key(self) -> None:
        for node in self.ready:
            assert self.ranking.key_of(node) == self.keys.get(node)

    @invariant()
    def few_outdated_entries_are_kept(self) -> None:
        assert len(self.ranking) <= 64 + 4 * NUM_RUNS


TestRankingAgainstDict = RankingAgainstDict.TestCase
TestRankingAgainstDict.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_outdated_entries_behind_a_lower_run_are_cleared_away() -> None:
    low, high = Node[Any](None, 0, []), Node[Any](None, 1, [])
    ranking = NodeHeap(lambda _run: True)
    ranking.push(low, (0, 0.0, 0))

    for _ in range(1000):
        ranking.push(high, (1, 0.0, 1))

    assert len(ranking) <= 64 + 4 * 2
    assert ranking.pop() == (low, (0, 0.0, 0))
    assert ranking.pop() == (high, (1, 0.0, 1))
