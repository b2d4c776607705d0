"""Hand-worked lower bounds on LLM time."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import structs

from holdfast.sim.llm_time_bound import llm_time_bound_s
from holdfast.sim.profile import CostProfile
from holdfast.sim.replays import Replays
from holdfast.traces.record import Session, Turn

BLOCK = 10
INSTANT = 1e-9
PROFILE = CostProfile(
    name="test",
    summary="1 s a prompt token; all else takes no time",
    sources=(),
    kind="measured",
    block_size_tokens=BLOCK,
    kv_tokens=100,
    kv_bytes_per_token=1,
    max_num_seqs=8,
    max_num_batched_tokens=1000,
    step_base_s=INSTANT,
    prefill_s_per_token=1.0,
    prefill_s_per_token_context=0.0,
    decode_s_per_seq=1.0,
    decode_s_per_context_token=0.0,
    host_link_bytes_per_s=1.0,
    disk_bytes_per_s=1.0,
)


def session(number: int, *turns: tuple[float, int, int], shared_blocks: int = 0) -> Session:
    """Turns of a gap, prompt blocks and output tokens; each prompt extends the last."""
    ids = [*range(shared_blocks), *(1000 * (number + 1) + i for i in range(100))]
    recorded = [
        Turn(gap_s, BLOCK * blocks, output, tuple(ids[:blocks])) for gap_s, blocks, output in turns
    ]
    return Session(f"session {number}", BLOCK, tuple(recorded), source="test")


def bound_s(sessions: list[Session], concurrency: int | None, **changes: Any) -> float:
    has_tiers = changes.pop("has_tiers", False)
    profile = structs.replace(PROFILE, **changes)
    return llm_time_bound_s(
        Replays(sessions, 1.0, BLOCK),
        profile,
        profile.kv_tokens,
        concurrency,
        has_tiers=has_tiers,
    )


def test_turn_alone_takes_prefill_and_decodes() -> None:
    # 20 prompt tokens and 4 tokens after the first: 20 + 4 s.
    assert bound_s([session(0, (0.0, 2, 5))], 1) == pytest.approx(24.0)


def test_steps_of_a_turn_alone_have_their_fixed_cost() -> None:
    # Chunks of 8: three steps of 2 s; two decodes of 2 + 1 s; 5 s outside the engine.
    changes = {
        "step_base_s": 2.0,
        "prefill_s_per_token": 0.0,
        "max_num_batched_tokens": 8,
        "request_overhead_s": 5.0,
    }
    assert bound_s([session(0, (0.0, 2, 3))], 1, **changes) == pytest.approx(17.0)


def test_repeated_tokens_of_a_turn_alone_are_free() -> None:
    # 10 new tokens, then 20, of which 10 are repeated; the pause is no LLM time.
    assert bound_s([session(0, (0.0, 1, 1), (7.0, 2, 1))], None) == pytest.approx(20.0)


def test_sessions_at_once_share_the_engine() -> None:
    # The first ends after 10 s at the soonest, both after 30 s.
    sessions = [session(0, (0.0, 2, 1)), session(1, (0.0, 1, 1))]
    assert bound_s(sessions, 2) == pytest.approx((10.0 + 30.0) / 2)


def test_one_session_at_once_waits_for_no_other() -> None:
    sessions = [session(0, (0.0, 2, 1)), session(1, (0.0, 1, 1))]
    assert bound_s(sessions, 1) == pytest.approx((20.0 + 10.0) / 2)


def test_arrivals_without_a_loop_bound_turns_alone() -> None:
    sessions = [session(0, (0.0, 2, 1)), session(1, (0.0, 1, 1))]
    assert bound_s(sessions, None) == pytest.approx((20.0 + 10.0) / 2)


def test_tokens_that_sessions_share_are_free() -> None:
    # Each has 10 tokens of its own; which of them computes the other 10 is open.
    sessions = [session(n, (0.0, 2, 1), shared_blocks=1) for n in range(2)]
    assert bound_s(sessions, 2) == pytest.approx((10.0 + 20.0) / 2)


def test_isolated_sessions_share_nothing() -> None:
    sessions = [session(n, (0.0, 2, 1), shared_blocks=1) for n in range(2)]
    replays = Replays(sessions, 1.0, BLOCK, is_isolated=True)
    assert llm_time_bound_s(replays, PROFILE, 100, 2) == pytest.approx((20.0 + 40.0) / 2)


def test_long_pauses_cost_memory_or_computation() -> None:
    # Sessions of 10 tokens, half of the cache, again after 40 s. With 5/8 of engine time and 3/8 of
    # memory the first prompt weighs 6.25 s and 3/8 of 1 s * (0 + 1 + ... + 9) / 20. In the pause a
    # token weighs 0.75 s if kept, and 0.625 s and 3/8 of its depth / 20 if computed again, which is
    # less for the first 20 / 3 tokens.
    need_s = 6.25 + 0.84375 + 20 / 3 * (0.625 + 0.75) / 2 + 10 / 3 * 0.75
    sessions = [session(n, (0.0, 1, 1), (40.0, 1, 1)) for n in range(8)]
    ends_s = [max(50.0, k * need_s) for k in range(1, 9)]
    assert bound_s(sessions, 8, kv_tokens=20) == pytest.approx((sum(ends_s) - 8 * 40.0) / 8)


def test_pauses_cost_nothing_with_tiers() -> None:
    # Eight prefills one after another: 10, 20, ... 80 s, but no session ends before 10 + 40 s.
    sessions = [session(n, (0.0, 1, 1), (40.0, 1, 1)) for n in range(8)]
    ends_s = [50.0, 50.0, 50.0, 50.0, 50.0, 60.0, 70.0, 80.0]
    expected = (sum(ends_s) - 8 * 40.0) / 8
    assert bound_s(sessions, 8, has_tiers=True) == pytest.approx(expected)


def test_full_caches_share_the_cost_of_a_step() -> None:
    # 11 steps of 1 s each, with 50 to 60 of the cache's 100 tokens, and 50 tokens of a prompt at a
    # mean depth of 24.5, of which 1,000 share a step.
    changes = {"step_base_s": 1.0, "prefill_s_per_token": 0.0, "decode_s_per_seq": 0.0}
    sessions = [session(n, (0.0, 5, 12)) for n in range(4)]
    share_s = 11 * 55 / 100 + 50 * 24.5 / 100 / 1000
    ends_s = [max(12.0, k * share_s) for k in (1, 2, 3, 4)]
    assert bound_s(sessions, 4, **changes) == pytest.approx(sum(ends_s) / 4)


def test_hidden_prompt_tokens_cost_part_of_a_step() -> None:
    # 100 tokens hide in a step of 1 s: a token costs 0.01 s at least, 20 alone a whole step.
    changes = {
        "step_base_s": 1.0,
        "prefill_s_per_token": 0.01,
        "hidden_prefill_tokens": 100,
        "max_num_batched_tokens": 100,
    }
    sessions = [session(n, (0.0, 2, 1)) for n in range(8)]
    ends_s = [max(1.0, 0.2 * k) for k in range(1, 9)]
    assert bound_s(sessions, 8, **changes) == pytest.approx(sum(ends_s) / 8)


def test_decode_curve_counts_with_its_least_slope() -> None:
    # One decode of 20 tokens of context alone takes 20 s, of many together 0.5 s a token.
    changes = {
        "decode_context_s": ((20, 20.0), (100, 60.0)),
        "decode_s_per_seq": 0.0,
        "prefill_s_per_token": 0.0,
    }
    assert bound_s([session(0, (0.0, 2, 2))], 1, **changes) == pytest.approx(20.0)
    ends_s = [max(20.0, 10.0 * k) for k in range(1, 9)]
    sessions = [session(n, (0.0, 2, 2)) for n in range(8)]
    assert bound_s(sessions, 8, **changes) == pytest.approx(sum(ends_s) / 8)


def test_experts_are_read_for_each_decode() -> None:
    # Each of 2 decodes needs all experts: 3 s a step, which two sessions share.
    changes = {
        "sparse_read_s": 3.0,
        "sparse_share_per_token": 1.0,
        "decode_s_per_seq": 0.0,
        "prefill_s_per_token": 0.0,
    }
    sessions = [session(n, (0.0, 2, 3)) for n in range(2)]
    assert bound_s(sessions, 2, **changes) == pytest.approx(6.0)


def test_lone_prompt_token_may_cost_as_little_as_a_decode() -> None:
    # After 4 tokens of context a decode costs 5 s, as a prompt token does; before, less.
    changes = {
        "prefill_s_per_token": 5.0,
        "decode_s_per_seq": 1.0,
        "decode_s_per_context_token": 1.0,
    }
    sessions = [session(0, (0.0, 1, 1))]
    assert bound_s(sessions, 1, **changes) == pytest.approx(4 * 1.0 + 6 * 5.0)
