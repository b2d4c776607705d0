"""Norms of values, worked by hand."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from tests.compress.layers import is_close

from holdfast.compress.value_norms import Normalization, normalized, value_norms

VALUES = torch.tensor([[[1.0, 2], [0, -1]], [[3, 0], [1, 1]]])  # (2 heads, 2 entries, size 2)
WEIGHT = torch.tensor(
    [
        [[[1.0, 0, 0], [0, 1, 0]], [[1, 1, 1], [-1, -1, -1]]],  # v -> (a, b, 0); (a-b, a-b, a-b)
        [[[2, 0, 0], [0, 0, 0]], [[0, 0, 0], [0, 0, 4]]],  # v -> (2a, 0, 0); (0, 0, 4b)
    ]
)


def test_norm_is_the_mean_over_query_heads_of_l1_norms() -> None:
    # Head 0: |1|+|2| = 3 and 3 times |1-2| = 3; then |-1| = 1 and 3. Head 1: 6 and 0; 2 and 4.
    assert is_close(value_norms(VALUES, WEIGHT), [[3, 2], [3, 3]])


@pytest.mark.parametrize(
    ("over", "expected"),
    [
        ("heads", [[1 / 4, 2 / 3], [3 / 4, 1 / 3]]),
        ("tokens", [[1 / 3, 2 / 3], [3 / 4, 1 / 4]]),
        ("none", [[1, 2], [3, 1]]),
    ],
)
def test_norms_are_divided_by_one_sum(over: Normalization, expected: list[list[float]]) -> None:
    assert is_close(normalized(torch.tensor([[1.0, 2], [3, 1]]), over), expected)


@pytest.mark.parametrize("over", get_args(Normalization))
def test_norms_of_zero_stay_zero(over: Normalization) -> None:
    assert is_close(normalized(torch.zeros(2, 3), over), [[0.0] * 3] * 2)
