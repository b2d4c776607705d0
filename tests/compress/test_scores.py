"""Scores of every method on one layer, worked by hand in fractions.

The layer has two KV heads with two query heads each, a window of 2 and 7 entries. Its attention is
written in twentieths; norms of values are small whole numbers. Pooling is over 3 entries.
"""

from __future__ import annotations

import math
from dataclasses import replace

import msgspec
import pytest
import torch
from tests.compress.layers import finite, is_close, layer_of

from holdfast.compress import scores
from holdfast.compress.attention import window_attention
from holdfast.compress.budget import Budget
from holdfast.compress.coverage import num_covering
from holdfast.compress.methods import find_method
from holdfast.compress.settings import Settings

TWENTIETHS = [
    [
        [[8, 4, 2, 2, 0, 4, 0], [6, 6, 2, 0, 2, 2, 2]],
        [[0, 0, 10, 2, 4, 4, 0], [2, 2, 2, 2, 2, 5, 5]],
    ],
    [
        [[4, 4, 4, 4, 0, 4, 0], [0, 0, 0, 10, 6, 2, 2]],
        [[12, 0, 0, 4, 0, 4, 0], [4, 4, 4, 0, 4, 2, 2]],
    ],
]
NORMS = [[1, 2, 3, 1, 1, 1, 1], [3, 2, 1, 1, 3, 1, 1]]
LAYER = layer_of(
    [[[[x / 20 for x in row] for row in rows] for rows in heads] for heads in TWENTIETHS], NORMS
)
SMALL = Settings(window=2, kernel=3)
WHOLE = Budget(1.0, 7)

# Largest pooled weight of each entry in twentieths. Rows' means of three, times what keeps their
# mass: 6/5 and 2/5 · 3 (head 0, query head 0), 48/44, 30/26; 48/44, 48/42, 48/36, 48/40.
WORST = [[4.8, 5.6, 48 / 11, 64 / 11, 24 / 11], [16 / 3, 16 / 3, 48 / 11, 128 / 21, 128 / 21]]
FLOORS = [sum(row) / 5 for row in WORST]
FLOORED = [[max(x, floor) for x in row] for row, floor in zip(WORST, FLOORS, strict=True)]
SHARES = [[1 / 4, 1 / 2, 3 / 4, 1 / 2, 1 / 4], [3 / 4, 1 / 2, 1 / 4, 1 / 2, 3 / 4]]
DEFENSIVE = [
    [x * share / 20 for x, share in zip(row, shares, strict=True)]
    for row, shares in zip(FLOORED, SHARES, strict=True)
]
TOP = 8 / 35  # 128/21 · 3/4 / 20, entry 4 of head 1

NO_COVERAGE = msgspec.structs.replace(SMALL, coverage=0.0)


def test_window_attention_is_what_was_written() -> None:
    weights = window_attention(LAYER.queries, LAYER.keys, LAYER.visible(2), 1.0)
    assert is_close(weights * 20, TWENTIETHS, within=1e-4)


def test_snapkv_pools_the_mean_over_window_and_query_heads() -> None:
    # Sums over the four rows: 16 12 16 6 8 and 20 8 8 18 10, of 80; then sums of three of them.
    expected = [[28, 44, 34, 30, 14], [28, 36, 34, 36, 28]]
    assert is_close(finite(scores.snap(LAYER, WHOLE, SMALL)) * 240, expected, within=1e-4)


def test_defensive_floors_the_worst_case_and_weighs_values() -> None:
    assert is_close(finite(scores.defensive(LAYER, WHOLE, NO_COVERAGE)), DEFENSIVE)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"floor": False}, [[WORST[0][4] / 4 / 20], [WORST[1][4] * 3 / 4 / 20]]),
        ({"normalization": "none"}, [[FLOORED[0][4] / 20], [FLOORED[1][4] * 3 / 20]]),
        ({"normalization": "tokens"}, [[FLOORED[0][4] / 8 / 20], [FLOORED[1][4] * 0.3 / 20]]),
    ],
)
def test_parts_of_defensive_can_be_left_out(
    changes: dict[str, object], expected: list[list[float]]
) -> None:
    settings = msgspec.structs.replace(NO_COVERAGE, **changes)
    assert is_close(finite(scores.defensive(LAYER, WHOLE, settings))[:, 4:], expected)


def test_mean_aggregation_averages_pooled_rows() -> None:
    settings = msgspec.structs.replace(NO_COVERAGE, aggregate="mean", floor=False)
    # Entry 0: (4.8 + 4.8 + 0 + 20/13) / 4 and (32/11 + 0 + 16/3 + 16/5) / 4, times 1/4 and 3/4.
    expected = [[(9.6 + 20 / 13) / 16 / 20], [(32 / 11 + 16 / 3 + 16 / 5) * 3 / 16 / 20]]
    assert is_close(finite(scores.defensive(LAYER, WHOLE, settings))[:, :1], expected)


def test_covering_entries_get_the_maximum_of_all_heads() -> None:
    # The bias is the mean mass of the last two entries before the window, (2+2+6+4+4+16+4+4)/160.
    # Falling sums of shares: 16 32 44 .. of 58 and 20 38 48 .. of 64; both cross
    # 0.9 - 42/160 = 0.6375 with the third, so that two entries come first: 0, 2 and 0, 3.
    expected = [
        [TOP, DEFENSIVE[0][1], TOP, DEFENSIVE[0][3], DEFENSIVE[0][4]],
        [TOP, DEFENSIVE[1][1], DEFENSIVE[1][2], TOP, TOP],
    ]
    assert is_close(finite(scores.defensive(LAYER, WHOLE, SMALL)), expected)


@pytest.mark.parametrize(
    ("share", "as_published", "expected"),
    [
        (1.0, False, 2),  # cap int(5 - 2) = 3, above what covers
        (0.7, False, 1),  # int(3.5 - 2): of five entries before the window, not of seven
        (0.5, False, 0),
        (0.1, False, 0),  # int(0.5 - 2) = -1, so none
        (0.1, True, 4),  # a slice up to -1
        (0.3, True, 0),  # int(1.5 - 2) = 0 is not negative
    ],
)
def test_cap_of_covering_entries(share: float, as_published: bool, expected: int) -> None:
    weights = window_attention(LAYER.queries, LAYER.keys, LAYER.visible(2), 1.0)[..., :5]
    settings = msgspec.structs.replace(SMALL, as_published=as_published)
    assert num_covering(weights, Budget(share, 7), settings).tolist() == [expected] * 2


def test_share_that_is_never_reached_covers_nothing() -> None:
    weights = torch.tensor([[[[0.25, 0.25, 0.25, 0, 0]]]])
    settings = msgspec.structs.replace(SMALL, coverage=1.0)
    reached = num_covering(weights, WHOLE, settings)
    nothing = num_covering(torch.zeros_like(weights), WHOLE, settings)
    assert (reached.tolist(), nothing.tolist()) == ([2], [0])


def test_bias_is_the_mass_on_the_entries_before_the_window() -> None:
    # 0.4 of the mass is on the last two entries: 0.5 is reached with the first entry.
    weights = torch.tensor([[[[0.5, 0.1, 0, 0.2, 0.2]]]])
    assert num_covering(weights, WHOLE, SMALL).tolist() == [0]
    # Where they have none, 0.9 is reached with the second.
    weights = torch.tensor([[[[0.8, 0.2, 0.0, 0.0, 0.0]]]])
    assert num_covering(weights, WHOLE, SMALL).tolist() == [1]


def test_published_window_ties_with_the_best_entry() -> None:
    published = msgspec.structs.replace(SMALL, as_published=True)
    found = scores.defensive(LAYER, WHOLE, published)
    assert is_close(found[:, 5:], [[TOP] * 2] * 2)
    ours = scores.defensive(LAYER, WHOLE, SMALL)
    assert found[:, :5].equal(ours[:, :5])
    assert ours[:, 5:].eq(math.inf).all()


def test_layer_of_small_scores_loses_its_window_as_published() -> None:
    small = replace(LAYER, index=1, values=LAYER.values / 100)
    spelled = "layer-defensivekv:window=2:kernel=3:normalization=none"
    budget = Budget(2 / 7, 7)
    _, ours = find_method(spelled).keep([LAYER, small], budget)
    _, published = find_method(f"{spelled}:as_published=true").keep([LAYER, small], budget)
    assert ours[:, 5:].all()
    assert not published.any()


def test_streaming_keeps_sinks_and_the_newest() -> None:
    keep = find_method("streaming-llm:num_sinks=1").keep([LAYER], Budget(3 / 7, 7))
    assert keep[0].tolist() == [[True, False, False, False, False, True, True]] * 2


def test_small_keys_and_unlike_keys_come_first() -> None:
    keys = torch.tensor([[[3.0, 0], [4, 0], [0, 1], [5, 0]]])
    layer = replace(LAYER, keys=keys, available=torch.ones(1, 4, dtype=torch.bool))
    assert is_close(scores.key_norm(layer, WHOLE, SMALL), [[-3, -4, -1, -5]])
    # The mean of directions is (3/4, 1/4), of length sqrt(10)/4.
    cosines = [3 / math.sqrt(10), 3 / math.sqrt(10), 1 / math.sqrt(10), 3 / math.sqrt(10)]
    assert is_close(scores.key_difference(layer, WHOLE, SMALL), [[-x for x in cosines]])


def test_evicted_keys_do_not_turn_the_mean_direction() -> None:
    keys = torch.tensor([[[3.0, 0], [4, 0], [0, 1]]])
    layer = replace(LAYER, keys=keys, available=torch.tensor([[True, True, False]]))
    assert is_close(scores.key_difference(layer, WHOLE, SMALL)[:, :2], [[-1, -1]])


def test_random_scores_repeat_and_differ_by_seed_and_layer() -> None:
    first = scores.uniform_random(LAYER, WHOLE, SMALL)
    assert first.equal(scores.uniform_random(LAYER, WHOLE, SMALL))
    seeded = msgspec.structs.replace(SMALL, seed=1)
    assert not first.equal(scores.uniform_random(LAYER, WHOLE, seeded))
    assert not first.equal(scores.uniform_random(replace(LAYER, index=1), WHOLE, SMALL))
