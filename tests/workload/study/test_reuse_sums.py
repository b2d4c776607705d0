"""Sums of reuses by age and by depth, against naive lists."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.workload.study.recency import ReusedBlocks
from holdfast.workload.study.reuse_ages import ReuseAges
from holdfast.workload.study.reuse_depths import BinnedDepths, Depths

HOLD_S = (0.5, 2.0, 60.0)
BLOCK_TOKENS = 16

ages = st.lists(
    st.tuples(st.integers(0, 100), st.sampled_from([0.0, 0.5, 1.0, 2.0, 59.0, 90.0]), st.booleans())
)
reuses = st.lists(st.tuples(st.integers(0, 5000), st.integers(1, 40)), max_size=20)


@given(ages, st.booleans())
def test_kept_and_total_equal_naive_sums(
    added: list[tuple[int, float, bool]], own_only: bool
) -> None:
    sums = ReuseAges(HOLD_S)
    for tokens, age_s, is_own in added:
        sums.add(tokens, age_s, is_own=is_own)
    chosen = [(tokens, age_s) for tokens, age_s, is_own in added if is_own or not own_only]
    assert sums.total(own_only=own_only) == sum(tokens for tokens, _ in chosen)
    assert sums.kept(own_only=own_only).tolist() == [
        sum(tokens for tokens, age_s in chosen if age_s <= hold_s) for hold_s in HOLD_S
    ]


@given(ages)
def test_held_token_seconds_equal_naive_sums(added: list[tuple[int, float, bool]]) -> None:
    sums = ReuseAges(HOLD_S)
    for tokens, age_s, is_own in added:
        sums.add(tokens, age_s, is_own=is_own)
    expected = [sum(tokens * min(age_s, hold_s) for tokens, age_s, _ in added) for hold_s in HOLD_S]
    assert sums.held_token_s() == pytest.approx(np.array(expected))


def depths_of(kind: Depths | BinnedDepths, added: list[tuple[int, int]], rate: float) -> None:
    for tokens_above, num_blocks in added:
        kind.add(ReusedBlocks(0, num_blocks, tokens_above), BLOCK_TOKENS, rate)


@given(reuses, st.integers(0, 10_000))
def test_exact_hits_equal_naive_count(added: list[tuple[int, int]], cache_tokens: int) -> None:
    depths = Depths()
    depths_of(depths, added, 1.0)
    num_hit = sum(
        tokens_above + (index + 1) * BLOCK_TOKENS <= cache_tokens
        for tokens_above, num_blocks in added
        for index in range(num_blocks)
    )
    assert depths.hit_tokens(cache_tokens) == num_hit * BLOCK_TOKENS


@given(reuses)
def test_binned_hits_exact_at_bin_edges(added: list[tuple[int, int]]) -> None:
    exact, binned = Depths(), BinnedDepths()
    depths_of(exact, added, 1.0)
    depths_of(binned, added, 1.0)
    for power in range(20):
        assert binned.hit_tokens(2.0**power) == pytest.approx(exact.hit_tokens(2.0**power))


@given(reuses)
def test_binned_hits_continue_from_exact_ones(added: list[tuple[int, int]]) -> None:
    exact, whole = Depths(), BinnedDepths()
    depths_of(exact, added, 1.0)
    depths_of(whole, added, 1.0)
    continued = BinnedDepths(exact)
    for more in (whole, continued):
        depths_of(more, [(64, 2)], 0.5)
    for power in range(20):
        assert continued.hit_tokens(2.0**power) == pytest.approx(whole.hit_tokens(2.0**power))


def test_sampled_reuse_scaled_by_rate() -> None:
    binned = BinnedDepths()
    # Two sampled blocks at a rate of 1/4 stand for eight, at depth 4 x 64 tokens.
    depths_of(binned, [(64, 2)], 0.25)
    assert binned.hit_tokens(2.0**20) == 8 * BLOCK_TOKENS
    assert binned.hit_tokens(256) == 0.0
