"""Samples of blocks: their selection, size and error."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from tests.workload.study.naive import BLOCK_TOKENS, load_of, meter_of, session_of

from holdfast.traces.record import Session, Turn
from holdfast.workload.study.load import Load
from holdfast.workload.study.sampling import BlockSampler, Sample, hashes_of
from holdfast.workload.study.steps import Stepper
from holdfast.workload.synthetic import generate_sessions

SIZES = tuple(2**power for power in range(15, 23))


@pytest.fixture(scope="module")
def sessions() -> list[Session]:
    return list(generate_sessions(60, 3))


@pytest.fixture(scope="module")
def exact(sessions: list[Session]) -> Load:
    return load_of(sessions, 6)


def largest_difference(sampled: Load, exact: Load) -> float:
    return max(abs(sampled.hit_ratio(size) - exact.hit_ratio(size)) for size in SIZES)


def test_partitions_are_disjoint_and_sum_to_rate() -> None:
    blocks = np.arange(200_000)
    partitions = BlockSampler(0.1).samples()
    taken = [partition.take(blocks, hashes_of(blocks))[0] for partition in partitions]
    assert np.allclose([len(indices) / len(blocks) for indices in taken], 0.1 / 4, rtol=0.05)
    assert len(np.unique(np.concatenate(taken))) == sum(map(len, taken))
    assert sum(partition.rate for partition in partitions) == 0.1


def test_sampled_block_keeps_its_number() -> None:
    sample = Sample(0, 0.5, 10**6)
    blocks = np.arange(1000)
    indices, numbers = sample.take(blocks, hashes_of(blocks))
    assert numbers.tolist() == list(range(len(indices)))
    again, same = sample.take(blocks[::-1], hashes_of(blocks[::-1]))
    assert np.array_equal(blocks[::-1][again], indices[::-1])
    assert np.array_equal(same, numbers[::-1])


def test_full_sample_shrinks_to_a_smaller_share() -> None:
    sample, small = Sample(2, 1.0, 300), Sample(2, 0.25, 300)
    blocks = np.arange(4000)
    _, before = sample.take(blocks, hashes_of(blocks))
    assert sample.is_full
    numbers = sample.shrink()
    assert sample.rate == small.rate == 0.25 / 4
    assert not sample.is_full
    kept = small.choose(blocks)
    assert np.array_equal(sample.choose(blocks), kept)
    assert len(numbers) == len(before)
    assert (numbers >= 0).sum() == sample.num_blocks == (kept >= 0).sum()


def test_load_within_max_blocks_is_exact() -> None:
    sessions = list(generate_sessions(8, 1))
    stepper = Stepper()
    num_blocks = 1 + max(
        int(step.added.max(initial=-1))
        for session in sessions
        for step in stepper.follow(session).steps
    )
    exact = load_of(sessions, 2)
    assert load_of(sessions, 2, BlockSampler(max_blocks=num_blocks)) == exact
    one_less = load_of(sessions, 2, BlockSampler(max_blocks=num_blocks - 1))
    assert exact.cache.error is None
    assert one_less.cache.error is not None
    assert largest_difference(one_less, exact) < 0.01


def test_reuse_before_sampling_counts_in_full() -> None:
    """A prompt of 60 blocks, sent ten times, then many that are sent once."""
    again = [Turn(1.0, 60 * BLOCK_TOKENS, 1, tuple(range(60))) for _ in range(10)]
    others = [
        session_of(f"s{n}", Turn(0.0, 60 * BLOCK_TOKENS, 1, tuple(range(1000 * n, 1000 * n + 60))))
        for n in range(1, 40)
    ]
    meter = meter_of([session_of("a", *again), *others], 1, BlockSampler(max_blocks=64))
    meter.finish(1)
    assert meter.sample_rate < 0.1
    reused = [partition.reused_tokens() for partition in meter._partitions]
    assert reused == [9 * 60 * BLOCK_TOKENS] * 4


def test_sample_within_its_reported_error(sessions: list[Session], exact: Load) -> None:
    sampled = load_of(sessions, 6, BlockSampler(0.2))
    assert exact.cache.error is None
    assert sampled.cache.error is not None
    assert 0 < sampled.cache.error < 0.1
    assert largest_difference(sampled, exact) <= sampled.cache.error
    assert sampled.distinct_tokens != exact.distinct_tokens
    assert abs(sampled.distinct_tokens / exact.distinct_tokens - 1) < 0.02


def test_sample_memory_is_bounded() -> None:
    def size_after(num_sessions: int) -> int:
        """Pickled size after each session has sent a prompt of 50 new blocks twice."""
        sessions = []
        for n in range(num_sessions):
            turn = Turn(1.0, 50 * BLOCK_TOKENS, 1, tuple(range(50 * n, 50 * n + 50)))
            sessions.append(session_of(f"s{n}", turn, turn))
        meter = meter_of(sessions, 1, BlockSampler(max_blocks=256))
        meter.finish(1)
        return len(pickle.dumps(meter._partitions))

    # Sizes fluctuate, since prompts without blocks are forgotten only sometimes.
    assert size_after(3200) < 2 * size_after(800)


@pytest.mark.parametrize(("max_blocks", "tolerance"), [(4096, 0.1), (16384, 0.05)])
def test_fixed_size_sample_close_to_exact(
    sessions: list[Session], exact: Load, max_blocks: int, tolerance: float
) -> None:
    """All sessions have 220 thousand blocks; the tolerance applies to the hit ratio."""
    meter = meter_of(sessions, 6, BlockSampler(max_blocks=max_blocks))
    sampled = meter.finish(6)
    assert sum(partition.sample.num_blocks for partition in meter._partitions) <= max_blocks
    assert meter.sample_rate < 0.5
    assert largest_difference(sampled, exact) < tolerance
    assert sampled.distinct_tokens == pytest.approx(exact.distinct_tokens, rel=0.05)
    assert sampled.cliff is not None
    assert exact.cliff is not None
    assert sampled.cliff.edge_tokens == pytest.approx(exact.cliff.edge_tokens, rel=0.1)
    assert sampled.holding is not None
    assert exact.holding is not None
    assert np.allclose(sampled.holding.kept_share, exact.holding.kept_share, atol=tolerance)
    assert np.allclose(sampled.holding.held_tokens, exact.holding.held_tokens, rtol=0.1)
