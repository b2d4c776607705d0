"""Window attention, pooling and retained mass, worked by hand."""

from __future__ import annotations

import math

import pytest
import torch
from tests.compress.layers import is_close, layer_of, random_layer

from holdfast.compress.attention import pooled, retained_mass, window_attention


def test_weights_are_a_softmax_over_what_is_visible() -> None:
    keys = torch.tensor([[1.0, 2.0, 3.0, 6.0]]).log()[..., None]
    queries = torch.ones(1, 1, 2, 1)
    visible = torch.ones(1, 2, 4, dtype=torch.bool).tril(2)
    weights = window_attention(queries, keys, visible, 1.0)
    third, twelfth = 1 / 6, 1 / 12
    assert is_close(
        weights,
        [[[[third, 2 * third, 3 * third, 0], [twelfth, 2 * twelfth, 3 * twelfth, 6 * twelfth]]]],
    )


def test_products_are_scaled_before_the_softmax() -> None:
    keys = torch.tensor([[1.0, 4.0]]).log()[..., None]
    queries = torch.full((1, 1, 1, 1), 2.0)
    weights = window_attention(queries, keys, torch.ones(1, 1, 2, dtype=torch.bool), 0.25)
    assert is_close(weights, [[[[1 / 3, 2 / 3]]]])  # roots of 1 and 4


def test_row_that_sees_no_key_has_no_mass() -> None:
    layer = random_layer(0, 3)
    visible = torch.zeros(2, 3, 3, dtype=torch.bool)
    weights = window_attention(layer.queries, layer.keys, visible, layer.scaling)
    assert weights.eq(0).all()


def test_low_precision_keys_give_float32_weights() -> None:
    layer = random_layer(0, 5)
    weights = window_attention(
        layer.queries.bfloat16(), layer.keys.bfloat16(), layer.visible(5), layer.scaling
    )
    assert weights.dtype == torch.float32
    assert is_close(weights.sum(-1), torch.ones(2, 2, 5).tolist())


def test_window_sees_positions_and_only_available_entries() -> None:
    layer = layer_of([[[[0.5, 0.5, 0, 0], [0.25, 0.25, 0.25, 0.25]]]], [[1, 1, 1, 1]])
    layer.available[0, 1] = False
    # The last two of six tokens, where those at 1 and 2 are not in the cache any more.
    object.__setattr__(layer, "positions", torch.tensor([[0, 3, 4, 5]]))
    object.__setattr__(layer, "num_tokens", 6)
    seen = [[[True, False, True, False], [True, False, True, True]]]
    assert layer.visible(2).tolist() == seen


def test_pooling_counts_zeros_beyond_both_ends() -> None:
    weights = torch.tensor([[8.0, 4, 2, 2, 0]])
    assert is_close(pooled(weights, 3), [[4, 14 / 3, 8 / 3, 4 / 3, 2 / 3]])
    assert is_close(pooled(weights, 1), [[8, 4, 2, 2, 0]])


def test_pooled_rows_keep_their_mass_where_asked() -> None:
    weights = torch.tensor([[8.0, 4, 2, 2, 0], [0, 0, 0, 0, 0]])
    # 40/3 is left of 16 after pooling, so that each is 6/5 of its mean.
    assert is_close(pooled(weights, 3, keeps_mass=True), [[4.8, 5.6, 3.2, 1.6, 0.8], [0] * 5])


@pytest.mark.parametrize("keeps_mass", [False, True])
def test_nothing_to_pool_is_no_error(keeps_mass: bool) -> None:
    assert pooled(torch.zeros(2, 3, 0), 5, keeps_mass=keeps_mass).shape == (2, 3, 0)


def test_retained_mass_is_a_share_of_each_head() -> None:
    weights = torch.tensor([[[[0.5, 0.25, 0.25]], [[0.1, 0.2, 0.1]]], [[[1.0, 0, 0]], [[1, 0, 0]]]])
    keep = torch.tensor([[True, False, False], [False, True, True]])
    assert is_close(retained_mass(weights, keep), [0.6 / 1.4, 0])
    assert not math.isnan(float(retained_mass(weights, ~keep).sum()))
