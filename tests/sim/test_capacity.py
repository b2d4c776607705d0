"""How many sessions fit: the estimate on sessions worked by hand, and the search."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.core.capacity import Capacity, Span
from holdfast.errors import ConfigError
from holdfast.sim.capacity import (
    FITS_SHARE,
    HALF_SHARE,
    crossing,
    estimate_crossing,
    search,
    span_of,
)
from holdfast.sim.hit_estimate import CacheSize, estimate_hits
from holdfast.sim.profile import CostProfile
from holdfast.sim.profile_file import load_profile
from holdfast.sim.turn_mix import TurnMix
from holdfast.traces.record import Session, Turn

PROFILE = load_profile("h100-llama3.1-8b")
BLOCK = 100


def equal_sessions(*gaps_s: float) -> TurnMix:
    """Sessions that send the same prompt of 50,000 tokens forty times, with 20-token answers."""
    turns = tuple(Turn(gap_s, 50_000, 20, tuple(range(500))) for gap_s in gaps_s)
    repeated = turns * (40 // len(turns))
    sessions = [Session(f"s{n}", BLOCK, repeated, "test") for n in range(8)]
    return TurnMix.of(sessions, 10**6)


def random_mix(seed: int) -> TurnMix:
    random = np.random.default_rng(seed)
    prompts = random.integers(2_000, 90_000, 300).astype(float)
    return TurnMix(
        prompts,
        np.floor(prompts * random.uniform(0.5, 1, 300)),
        random.integers(1, 900, 300).astype(float),
        random.exponential(20, 300),
        np.repeat(np.arange(10), 30),
    )


def test_kept_tokens_are_those_of_the_last_prompt() -> None:
    first = Turn(9.0, 250, 0, (1, 2))
    second = Turn(3.0, 300, 7, (1, 2, 3))
    other = Turn(4.0, 100, 7, (8,))
    huge = Session("huge", BLOCK, (Turn(0.0, 5000, 1, tuple(range(50))),), "test")
    mix = TurnMix.of([Session("a", BLOCK, (first, second, other), "test"), huge,
                      Session("b", BLOCK, (first,), "test")], 1000)  # fmt: skip
    assert mix.kept_tokens.tolist() == [0, 200, 0, 0]
    assert mix.gap_s.tolist() == [0, 3, 4, 0] and mix.output_tokens[0] == 1
    assert (mix.num_sessions, mix.num_outgrown) == (2, 1)
    assert mix.best_hit_ratio == pytest.approx(200 / 900)


def test_one_session_is_too_few_to_plan_by() -> None:
    with pytest.raises(ConfigError, match="1 sessions fit 10 KV tokens, 0 outgrow"):
        TurnMix.of([Session("a", BLOCK, (Turn(0.0, 5, 1, ()),), "test")], 10)


def test_equal_sessions_fit_as_often_as_their_context() -> None:
    """Without pauses all contexts are in use, so ten of 50,020 tokens fit ten such contexts."""
    size = CacheSize(10 * 50_020)
    mix = equal_sessions(0.0)
    fits = estimate_crossing(mix, PROFILE, size, FITS_SHARE)
    cliff = estimate_crossing(mix, PROFILE, size, HALF_SHARE)
    assert fits is not None and 9.8 < fits.median < 10.3
    assert cliff is not None and fits.median <= cliff.median < 11.3
    assert cliff.low == pytest.approx(cliff.high, rel=0.03)  # equal sessions have no uncertainty


def test_long_pauses_move_the_cliff_out() -> None:
    """Sessions that are away are evicted first, and are missed once a pause."""
    size = CacheSize(10 * 50_020)
    busy = estimate_crossing(equal_sessions(0.0), PROFILE, size, HALF_SHARE)
    away = estimate_crossing(equal_sessions(1.0, 1.0, 1.0, 300.0), PROFILE, size, HALF_SHARE)
    assert busy is not None and away is not None and away.median > 1.2 * busy.median


def test_a_host_tier_no_larger_than_the_cache_adds_nothing() -> None:
    mix, kv_tokens = random_mix(0), 400_000
    found = [
        estimate_crossing(mix, PROFILE, CacheSize(kv_tokens, host), HALF_SHARE)
        for host in (0, kv_tokens, 3 * kv_tokens)
    ]
    assert found[0] == found[1] and found[2] is not None and found[0] is not None
    assert found[2].median > 1.8 * found[0].median


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10**6), st.floats(1, 40), st.floats(1, 4))
def test_more_sessions_never_hit_more(seed: int, num_sessions: float, factor: float) -> None:
    mix, size = random_mix(seed), CacheSize(400_000)
    few = estimate_hits(mix, PROFILE, size, num_sessions)
    many = estimate_hits(mix, PROFILE, size, num_sessions * factor)
    assert 0 <= many.hit_ratio <= few.hit_ratio + 0.01 <= mix.best_hit_ratio + 0.02
    assert many.wait_s >= -1e-9


def test_equal_pauses_do_not() -> None:
    """LRU's worst case: all others take a turn in each pause, so none of them is idle longer."""
    size = CacheSize(10 * 50_020)
    equal = estimate_crossing(equal_sessions(60.0), PROFILE, size, HALF_SHARE)
    assert equal is not None and equal.median < 11.3


def test_slower_engines_reach_the_cliff_earlier() -> None:
    mix, size = equal_sessions(1.0, 1.0, 1.0, 300.0), CacheSize(10 * 50_020)
    slow = slower(4.0)
    fast_cliff = estimate_crossing(mix, PROFILE, size, HALF_SHARE)
    slow_cliff = estimate_crossing(mix, slow, size, HALF_SHARE)
    assert fast_cliff is not None and slow_cliff is not None
    assert slow_cliff.median < fast_cliff.median


def slower(factor: float) -> CostProfile:
    names = ("step_base_s", "prefill_s_per_token", "prefill_s_per_token_context")
    return msgspec.structs.replace(
        PROFILE, **{name: factor * getattr(PROFILE, name) for name in names}
    )


def test_a_resample_draws_whole_sessions() -> None:
    mix = random_mix(1)
    sample = mix.resampled(np.random.default_rng(3))
    assert sample.num_sessions == mix.num_sessions and len(sample.gap_s) == len(mix.gap_s)
    for number in range(sample.num_sessions):
        prompts = sample.prompt_tokens[sample.session == number]
        assert any(np.array_equal(prompts, mix.prompt_tokens[mix.session == n]) for n in range(10))


@given(st.integers(1, 200), st.floats(1, 300), st.integers(201, 400))
def test_search_brackets_any_step(step: int, guess: float, most: int) -> None:
    loads: list[int] = []

    def share_at(num_sessions: int) -> float:
        loads.append(num_sessions)
        return 1.0 if num_sessions <= step else 0.2

    seen, (crossed,) = search(share_at, guess, most, (0.5,))
    assert crossed is not None and abs(crossed - step) <= max(1.0, 0.13 * step)
    assert len(loads) == len(set(loads)) == len(seen) <= 40  # no load runs twice


def test_search_ends_at_the_most_sessions() -> None:
    assert search(lambda _: 1.0, 5.0, 9, (0.5,)) == ({5: 1.0, 7: 1.0, 9: 1.0}, [None])


def test_crossing_is_interpolated() -> None:
    assert crossing({4: 0.9, 6: 0.7, 8: 0.3}, 0.5) == 7.0
    assert crossing({4: 0.9}, 0.5) is None and crossing({4: 0.2}, 0.5) == 4.0


def test_spans_say_when_most_seeds_cross_nowhere() -> None:
    assert span_of([3.0, None, 5.0], 20) == Span(5.0, 3.0, 20.0)
    assert span_of([3.0, None, None], 20) is None


def test_engines_are_rounded_up() -> None:
    assert Capacity.engines_for(9, Span(4.9, 4, 5), 50) == 3
    assert Capacity.engines_for(9, None, 4) == 3
    assert Capacity.engines_for(2, Span(0.6, 0.5, 1), 50) == 2
    assert Capacity.engines_for(None, None, 4) is None
