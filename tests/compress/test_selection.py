"""Sharing a budget and keeping the best, worked by hand."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from holdfast.compress.selection import (
    across_layers,
    keep_top,
    per_head,
    per_layer,
    safeguarded,
)

INF = math.inf
FIRST = torch.tensor([[9.0, 8, 7, 1], [2, 3, 0, 0]])
SECOND = torch.tensor([[6.0, 0, 0, 0], [5, 4, 0, 0]])


def _lists(counts: list[Tensor]) -> list[list[int]]:
    return [layer.tolist() for layer in counts]


def _kept(scores: list[list[float]], counts: list[int]) -> list[list[int]]:
    kept = keep_top(torch.tensor(scores), torch.tensor(counts))
    return [row.nonzero()[:, 0].tolist() for row in kept]


def test_each_head_has_the_same_number() -> None:
    assert _lists(per_head([FIRST, SECOND], 2)) == [[2, 2], [2, 2]]


def test_heads_of_a_layer_compete() -> None:
    # 9, 8, 7, 3 of the first layer; 6, 5, 4 of the second, then the newest of its zeros.
    assert _lists(per_layer([FIRST, SECOND], 2)) == [[3, 1], [2, 2]]


def test_heads_of_all_layers_compete() -> None:
    # 9, 8, 7, 6, 5, 4 | 3, 2: eight in all.
    assert _lists(across_layers([FIRST, SECOND], 2)) == [[3, 2], [1, 2]]
    assert _lists(across_layers([FIRST, SECOND], 1)) == [[3, 0], [1, 0]]


def test_safeguard_gives_each_head_its_best() -> None:
    assert _lists(per_layer([FIRST], 1)) == [[2, 0]]
    assert _lists(per_layer([FIRST], 1, safeguard=1.0)) == [[1, 1]]
    assert _lists(per_layer([FIRST], 2, safeguard=0.5)) == [[3, 1]]
    assert safeguarded(FIRST, 2, 0.5).tolist() == [[INF, 8, 7, 1], [2, INF, 0, 0]]
    assert safeguarded(FIRST, 2, 0.4).equal(safeguarded(FIRST, 2, 0.5))  # at least one
    assert safeguarded(FIRST, 2, 0.0).equal(FIRST)


def test_layers_may_differ_in_length() -> None:
    short = torch.tensor([[10.0], [0]])
    # 10, 9, 8, 7, 3, 2, 1, then of the zeros a newest one.
    assert _lists(across_layers([FIRST, short], 2)) == [[4, 3], [1, 0]]
    assert _lists(across_layers([FIRST, short], 1)) == [[3, 0], [1, 0]]
    assert _lists(per_head([FIRST, short], 2)) == [[2, 2], [1, 1]]


def test_of_equal_scores_the_newest_stay() -> None:
    assert _kept([[1, 1, 1, 1], [0, 2, 2, 2]], [2, 2]) == [[2, 3], [2, 3]]
    # Equal scores of two heads: as many of each, the newest of both.
    assert _lists(per_layer([torch.ones(2, 5)], 2)) == [[2, 2]]


def test_of_equal_scores_in_different_heads_the_newest_counts() -> None:
    # One zero is left to share after the two ones: the newest is the first head's last entry.
    scores = torch.tensor([[1.0, 0, 0], [0, 0, 1]])
    assert _lists(across_layers([scores, torch.zeros(1, 0)], 1)) == [[2, 1], [0]]


def test_window_stays_before_the_best_finite_score() -> None:
    assert _kept([[9, 8, INF, INF]], [3]) == [[0, 2, 3]]
    assert _kept([[9, 8, INF, INF]], [1]) == [[3]]


def test_evicted_entries_never_stay() -> None:
    scores = [[-INF, 5, -INF, 1], [-INF, -INF, -INF, 3]]
    assert _kept(scores, [3, 3]) == [[1, 3], [3]]
    assert _lists(per_head([torch.tensor(scores)], 2)) == [[2, 1]]
    assert _lists(per_layer([torch.tensor(scores)], 2)) == [[2, 1]]
    assert _lists(across_layers([torch.tensor(scores)], 9)) == [[2, 1]]


def test_head_may_keep_nothing() -> None:
    assert _kept([[1, 2, 3]], [0]) == [[]]
