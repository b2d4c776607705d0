"""Choices with as many entries in every head."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.compress.layers import random_layer

from holdfast.compress.methods import find_method, method_names
from holdfast.compress.uniform import check_uniform, chosen_entries
from holdfast.errors import ConfigError

_WITHOUT_QUERIES = ("keydiff", "knorm", "streaming-llm", "random")


@given(
    st.sampled_from(_WITHOUT_QUERIES),
    st.integers(1, 70).flatmap(lambda n: st.tuples(st.just(n), st.integers(1, n))),
    st.integers(0, 99),
)
def test_exactly_as_many_entries_of_each_head(
    method: str, sizes: tuple[int, int], seed: int
) -> None:
    num_entries, num_kept = sizes
    layer = random_layer(seed, num_entries, num_heads=3)
    chosen = chosen_entries(find_method(method), layer, num_kept)
    assert chosen.shape == (3, num_kept)
    assert bool((chosen.diff(dim=-1) > 0).all())


def test_small_keys_chosen_by_norm() -> None:
    layer = random_layer(0, 9, num_heads=1)
    expected = layer.keys.norm(dim=-1).argsort()[:, :4].sort().values
    assert torch.equal(chosen_entries(find_method("knorm"), layer, 4), expected)


@pytest.mark.parametrize("name", method_names())
def test_methods_that_need_queries_are_refused(name: str) -> None:
    method = find_method(name)
    if name in _WITHOUT_QUERIES:
        check_uniform(method)
        return
    with pytest.raises(ConfigError, match=f"{name} scores by queries"):
        check_uniform(method)


def test_heads_that_compete_are_refused() -> None:
    with pytest.raises(ConfigError, match="one for all heads"):
        check_uniform(find_method("keydiff:scope=layer"))
