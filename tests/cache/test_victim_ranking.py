"""The heap of nodes against a plain dictionary of keys."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from holdfast.cache.prefix_tree import Node
from holdfast.cache.victim_ranking import Key, NodeHeap

NUM_NODES = 5
NODES = st.integers(0, NUM_NODES - 1)
PRIORITIES = st.tuples(st.integers(0, 1), st.sampled_from([0.0, 0.5, 1.0]))


class HeapAgainstDict(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.nodes: list[Node[Any]] = [Node(None, i, []) for i in range(NUM_NODES)]
        self.ready = set(self.nodes)
        self.heap = NodeHeap(self.ready.__contains__)
        self.keys: dict[Node[Any], Key] = {}

    def lowest(self) -> Key | None:
        return min((key for node, key in self.keys.items() if node in self.ready), default=None)

    @rule(index=NODES, priority=PRIORITIES, num_times=st.sampled_from([1, 1, 40]))
    def push(self, index: int, priority: tuple[int, float], num_times: int) -> None:
        node = self.nodes[index]
        self.keys[node] = (*priority, index)
        for _ in range(num_times):
            self.heap.push(node, self.keys[node])

    @rule(index=NODES)
    def toggle_readiness(self, index: int) -> None:
        """A node that becomes ready is ranked anew, as its entry may have been dropped."""
        node = self.nodes[index]
        if node in self.ready:
            self.ready.remove(node)
            return
        self.ready.add(node)
        if node in self.keys:
            self.heap.push(node, self.keys[node])

    @rule()
    def pop(self) -> None:
        lowest = self.lowest()
        if lowest is None:
            with pytest.raises(IndexError):
                self.heap.pop()
            return
        node, key = self.heap.pop()
        assert key == lowest == self.keys.pop(node)

    @rule()
    def clear(self) -> None:
        self.heap.clear()
        self.keys.clear()

    @invariant()
    def lowest_is_the_dicts(self) -> None:
        assert self.heap.lowest() == self.lowest()

    @invariant()
    def ready_nodes_have_one_key(self) -> None:
        for node in self.ready:
            assert self.heap.key_of(node) == self.keys.get(node)

    @invariant()
    def outdated_entries_are_few(self) -> None:
        assert len(self.heap) <= 64 + 4 * NUM_NODES


TestHeapAgainstDict = HeapAgainstDict.TestCase
TestHeapAgainstDict.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_outdated_entries_of_a_higher_node_are_dropped() -> None:
    low, high = Node[Any](None, 0, []), Node[Any](None, 1, [])
    heap = NodeHeap(lambda _node: True)
    heap.push(low, (0, 0.0, 0))

    for _ in range(1000):
        heap.push(high, (1, 0.0, 1))

    assert len(heap) <= 64 + 4 * 2
    assert heap.pop() == (low, (0, 0.0, 0))
    assert heap.pop() == (high, (1, 0.0, 1))
