"""Scores of entries and the rule that keeps them, worked out by hand and by properties."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.compress.layers import is_close
from torch import Tensor

from holdfast.compress.gates.retention import RetentionRule, retention_scores, with_best
from holdfast.errors import ConfigError

INF = math.inf
HALF, TENTH = math.log(0.5), math.log(0.1)
POSITIONS = torch.tensor([0, 3, 4])


def test_newest_entry_is_two_tokens_old_at_the_next_one() -> None:
    scores = retention_scores(torch.tensor([HALF, HALF, TENTH]), POSITIONS, 5)
    assert is_close(scores, [6 * HALF, 3 * HALF, 2 * TENTH])


def test_look_ahead_adds_up_future_steps() -> None:
    log_retention = torch.tensor([HALF, HALF, TENTH])
    found = retention_scores(log_retention, POSITIONS, 5, lookahead=3)
    expected = [
        math.log(sum(beta ** (age + step) for step in range(3)))
        for beta, age in ((0.5, 7), (0.5, 4), (0.1, 3))
    ]
    assert is_close(found, expected, within=1e-5)


def test_look_ahead_can_change_the_order() -> None:
    """An old entry of slow decay passes a new one of fast decay."""
    log_retention = torch.tensor([math.log(0.9), math.log(0.2)])
    positions = torch.tensor([0, 12])
    near = retention_scores(log_retention, positions, 13)
    far = retention_scores(log_retention, positions, 13, lookahead=100)
    assert near[0] > near[1]  # 0.9^14 = 0.23, 0.2^2 = 0.04
    near = retention_scores(log_retention, torch.tensor([0, 30]), 31)
    far = retention_scores(log_retention, torch.tensor([0, 30]), 31, lookahead=100)
    assert near[0] < near[1]  # 0.9^32 = 0.034, 0.2^2 = 0.04
    assert far[0] > far[1]  # 0.9^33 / 0.1 = 0.31, 0.2^3 / 0.8 = 0.01


@pytest.mark.parametrize("lookahead", [1, 2, 1000])
def test_retention_near_one_still_orders_entries(lookahead: int) -> None:
    log_retention = torch.tensor([-1e-9, -2e-9, -1e-7, -1e-3])
    found = retention_scores(log_retention, torch.zeros(4), 100_000, lookahead=lookahead)
    assert bool(found.isfinite().all())
    assert found.argsort(descending=True).tolist() == [0, 1, 2, 3]


def test_scores_are_float32_whatever_the_gates_are() -> None:
    found = retention_scores(torch.tensor([HALF], dtype=torch.bfloat16), torch.tensor([0]), 5)
    assert found.dtype == torch.float32


def test_each_sequence_has_its_own_number_of_tokens() -> None:
    found = retention_scores(torch.full((2, 1), HALF), torch.zeros(2, 1), torch.tensor([[1], [3]]))
    assert is_close(found, [[2 * HALF], [4 * HALF]])


SCORES = [
    torch.tensor([[-1.0, -9.0, -2.0], [-8.0, -7.0, -10.0]]),
    torch.tensor([[-3.0, -INF, -INF], [-11.0, -4.0, -5.0]]),
]


def _kept(rule: RetentionRule) -> list[list[list[int]]]:
    return [[row.nonzero()[:, 0].tolist() for row in layer] for layer in rule.keep(SCORES)]


def test_all_heads_and_layers_compete() -> None:
    assert _kept(RetentionRule(capacity=1)) == [[[0, 2], []], [[0], [1]]]


def test_floor_comes_before_heads_compete() -> None:
    """The second head gets its best entry for the fourth best of all."""
    assert _kept(RetentionRule(capacity=1, min_entries=1)) == [[[0], [1]], [[0], [1]]]
    assert _kept(RetentionRule(capacity=2)) == [[[0, 1, 2], [0, 1]], [[0], [1, 2]]]


def test_threshold_keeps_what_is_above_it() -> None:
    rule = RetentionRule(threshold=math.exp(-4.0) * 0.999)
    assert _kept(rule) == [[[0, 2], []], [[0], [1]]]
    rule = RetentionRule(threshold=math.exp(-2.5), min_entries=1)
    assert _kept(rule) == [[[0, 2], [1]], [[0], [1]]]


def test_threshold_and_capacity_bound_each_other() -> None:
    rule = RetentionRule(threshold=math.exp(-2.5), capacity=1)
    assert _kept(rule) == [[[0, 2], []], [[], []]]
    assert _kept(RetentionRule(threshold=math.exp(-10.5), capacity=1)) == [[[0, 2], []], [[0], [1]]]


def test_slack_puts_eviction_off() -> None:
    there = 10  # entries of four heads
    assert RetentionRule(capacity=2, slack=0).is_due(SCORES)
    assert not RetentionRule(capacity=2, slack=1).is_due(SCORES)
    assert RetentionRule(capacity=1, slack=1).is_due(SCORES)
    assert sum(int((layer > -INF).sum()) for layer in SCORES) == there
    assert RetentionRule(threshold=0.5).is_due(SCORES)


def test_best_of_a_head_are_those_that_are_there() -> None:
    found = with_best(SCORES[1], 2)
    assert is_close(found, [[INF, -INF, -INF], [-11, INF, INF]])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "needs a capacity or a threshold"),
        ({"capacity": 4, "min_entries": 5}, "min_entries is 5, expected at most the capacity, 4"),
        ({"capacity": 0}, "capacity is 0, expected at least 1"),
        ({"threshold": 0.0}, "threshold is 0, expected above 0, at most 1"),
        ({"threshold": 1.5}, "threshold is 1.5, expected above 0, at most 1"),
        ({"capacity": 4, "lookahead": 0}, "lookahead is 0, expected at least 1"),
        ({"capacity": 4, "slack": -1}, "slack is -1, expected at least 0"),
    ],
)
def test_rules_that_keep_nothing_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        RetentionRule(**fields)


LAYERS = st.lists(
    st.tuples(st.integers(1, 3), st.integers(1, 12)), min_size=1, max_size=4
)  # heads and entries


@given(LAYERS, st.integers(1, 14), st.integers(0, 14), st.integers(0, 2**31))
def test_capacity_is_met_exactly(
    shapes: list[tuple[int, int]], capacity: int, min_entries: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    scores = [_random_scores(shape, generator) for shape in shapes]
    min_entries = min(min_entries, capacity)
    kept = RetentionRule(capacity=capacity, min_entries=min_entries).keep(scores)
    there = [layer > -INF for layer in scores]
    num_there = sum(int(layer.sum()) for layer in there)
    num_heads = sum(heads for heads, _ in shapes)
    assert sum(int(layer.sum()) for layer in kept) == min(num_there, capacity * num_heads)
    for keep, own, layer in zip(kept, there, scores, strict=True):
        assert not bool((keep & ~own).any())
        assert bool((keep.sum(-1) >= own.sum(-1).clamp_max(min_entries)).all())
        for row, chosen in zip(layer, keep, strict=True):  # the best of each head
            rest = [*row[~chosen].tolist(), -INF]
            assert min([*row[chosen].tolist(), INF]) >= max(rest)


def _random_scores(shape: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Scores with ties, some of them of entries that are not there."""
    scores = -torch.randint(1, 9, shape, generator=generator).float()
    return scores.masked_fill(torch.rand(shape, generator=generator) < 0.2, -INF)
