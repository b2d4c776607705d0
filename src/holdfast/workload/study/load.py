"""Measures the cache curve, working set and holding times of a load."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Final

import msgspec
import numpy as np

from holdfast.workload.study.overlay import Overlay, OverlayEvent
from holdfast.workload.study.reuses import Numbers, Reuses
from holdfast.workload.study.sampling import BlockSampler, Hashes, hashes_of
from holdfast.workload.study.steps import SteppedSession
from holdfast.workload.study.working_set import WorkingSetAdmission, WorkingSetMeter

__all__ = ["HOLD_S", "CacheCurve", "Cliff", "Holding", "Load", "LoadMeter"]

HOLD_S: Final = tuple(float(f"{10 ** (step / 6):.3g}") for step in range(-6, 31))
"""Reported holding times: a tenth of a second to about a day."""

_FIRST_CACHE_TOKENS = 1024
_NO_HASHES: Hashes = np.empty(0, dtype=np.uint64)
_SIZES_PER_DOUBLING = 4
_EDGE_SHARE = 0.95
_HALF_SHARE = 0.5
# Student's t, 97.5 %, by degrees of freedom: the partitions of a sample, less one.
_T_QUANTILE = {3: 3.182}


class CacheCurve(msgspec.Struct, frozen=True):
    """Hit ratio of an LRU cache over its size.

    Attributes:
        cache_tokens: Sizes, ascending; the last one fits all blocks.
        hit_ratio: Share of all prompt tokens that hit, by size; below 1 by the new tokens.
        error: None when exact. Sampled: largest half width over all sizes of the 95 % confidence
            interval between the partitions of the sample.
    """

    cache_tokens: tuple[int, ...]
    hit_ratio: tuple[float, ...]
    error: float | None


class Cliff(msgspec.Struct, frozen=True):
    """The cache size below which the hit ratio falls.

    Attributes:
        best_hit_ratio: Hit ratio of a cache that never evicts.
        edge_tokens: The smallest cache with at least 95 % of the best hit ratio.
        half_tokens: The smallest cache with at least half of it.
    """

    best_hit_ratio: float
    edge_tokens: int
    half_tokens: int


class Holding(msgspec.Struct, frozen=True):
    """Benefit and cost of holding KV for a fixed time after each turn.

    Attributes:
        hold_s: Holding times, ascending.
        kept_share: Share of reused tokens that are reused within the time.
        kept_own_share: The same for tokens that a session reuses of its own prompts.
        held_tokens: Idle KV that is held, mean over the time at full load.
    """

    hold_s: tuple[float, ...]
    kept_share: tuple[float, ...]
    kept_own_share: tuple[float, ...]
    held_tokens: tuple[float, ...]


class Load(msgspec.Struct, frozen=True):
    """Measurements of sessions overlaid at one load.

    Attributes:
        concurrency: Main agents live at once; None with recorded arrivals.
        num_turns: Number of requests.
        makespan_s: Time from start to end without queueing.
        prompt_tokens: Sum over all requests.
        distinct_tokens: Tokens in distinct full blocks of prompts.
        working_set: Contexts of live sessions over time.
        cache: Hit ratio over the size of the cache.
        cliff: None if nothing is ever reused.
        holding: None if nothing is ever reused.
    """

    concurrency: int | None
    num_turns: int
    makespan_s: float
    prompt_tokens: int
    distinct_tokens: int
    working_set: WorkingSetAdmission
    cache: CacheCurve
    cliff: Cliff | None
    holding: Holding | None

    def hit_ratio(self, cache_tokens: float) -> float:
        """Hit ratio at a size (> 0), interpolated between computed sizes."""
        sizes = np.log2(self.cache.cache_tokens)
        return float(np.interp(np.log2(cache_tokens), sizes, self.cache.hit_ratio))


class LoadMeter:
    """Measures one load of families of sessions.

    Args:
        overlay: A new overlay; schedules the families.
        sampler: Chooses the blocks that cache figures are computed from.
    """

    def __init__(self, overlay: Overlay, sampler: BlockSampler) -> None:
        self._overlay = overlay
        self._sampler = sampler
        self._partitions = [Reuses(sample, HOLD_S) for sample in sampler.samples()]
        self._working_set = WorkingSetMeter()
        self._num_turns = 0
        self._prompt_tokens = 0
        self._full_from_s: float | None = None

    def add(self, family: Sequence[SteppedSession]) -> None:
        """Add the next family."""
        for event in self._overlay.add(family):
            self._take(event)
        if self._full_from_s is None and self._overlay.is_full:
            self._full_from_s = self._overlay.now_s

    @property
    def sample_rate(self) -> float:
        """Current share of the blocks that are sampled."""
        return sum(partition.sample.rate for partition in self._partitions)

    @property
    def has_been_full(self) -> bool:
        """Whether enough sessions were added to reach the load."""
        return self._full_from_s is not None

    def finish(self, concurrency: int | None) -> Load:
        """Finish the overlay and return the load; call it once, after at least one family.

        Args:
            concurrency: The overlay's concurrency.
        """
        full_until_s = self._overlay.now_s
        for event in self._overlay.finish():
            self._take(event)
        makespan_s = self._overlay.now_s
        return Load(
            concurrency=concurrency,
            num_turns=self._num_turns,
            makespan_s=makespan_s,
            prompt_tokens=self._prompt_tokens,
            distinct_tokens=round(self._total(lambda p: p.distinct_tokens())),
            working_set=self._working_set.result(self._full_from_s or 0.0, full_until_s),
            cache=self._cache_curve(),
            cliff=self._cliff(),
            holding=self._holding(makespan_s, concurrency),
        )

    def _take(self, event: OverlayEvent) -> None:
        self._working_set.take(event)
        if event.turn_index is None:
            for partition in self._partitions:
                partition.close(event)
            return
        self._num_turns += 1
        step = event.session.steps[event.turn_index]
        self._prompt_tokens += step.turn.prompt_tokens
        hashes = hashes_of(step.added) if len(self._partitions) > 1 else _NO_HASHES
        for partition in self._partitions:
            partition.request(event, event.turn_index, hashes)
        if any(partition.sample.is_full for partition in self._partitions):
            self._shrink_samples()

    def _shrink_samples(self) -> None:
        """Switch to a sample of the blocks, or to a smaller one."""
        if len(self._partitions) == 1:
            samples = self._sampler.partitions()
            self._partitions = [deepcopy(self._partitions[0]) for _ in samples]
            for partition, sample in zip(self._partitions, samples, strict=True):
                partition.narrow(sample)
        for partition in self._partitions:
            if partition.sample.is_full:
                partition.shrink()

    def _total(self, of: Callable[[Reuses], float]) -> float:
        """Mean over the partitions of their estimates for all blocks."""
        return sum(map(of, self._partitions)) / len(self._partitions)

    def _hit_ratio(self, cache_tokens: float) -> float:
        return self._total(lambda p: p.hit_tokens(cache_tokens)) / max(1, self._prompt_tokens)

    def _cache_curve(self) -> CacheCurve:
        largest = max(_FIRST_CACHE_TOKENS, self._total(lambda p: p.distinct_tokens()))
        num_sizes = 1 + int(np.ceil(_SIZES_PER_DOUBLING * np.log2(largest / _FIRST_CACHE_TOKENS)))
        sizes = [
            round(_FIRST_CACHE_TOKENS * 2 ** (step / _SIZES_PER_DOUBLING))
            for step in range(num_sizes)
        ]
        by_partition = np.array([[p.hit_tokens(size) for p in self._partitions] for size in sizes])
        ratios = by_partition / max(1, self._prompt_tokens)
        return CacheCurve(tuple(sizes), tuple(ratios.mean(axis=1).tolist()), _error_of(ratios))

    def _cliff(self) -> Cliff | None:
        unlimited = max(_FIRST_CACHE_TOKENS, 2 * self._total(lambda p: p.distinct_tokens()))
        best = self._hit_ratio(unlimited)
        if best <= 0:
            return None
        return Cliff(
            best,
            self._smallest(_EDGE_SHARE * best, int(unlimited)),
            self._smallest(_HALF_SHARE * best, int(unlimited)),
        )

    def _smallest(self, hit_ratio: float, high_tokens: int) -> int:
        """The smallest cache (at most `high_tokens`) with at least this hit ratio."""
        sizes = range(1, high_tokens + 1)
        return sizes[bisect_left(sizes, hit_ratio, key=self._hit_ratio)]

    def _holding(self, makespan_s: float, concurrency: int | None) -> Holding | None:
        full_s = makespan_s if concurrency is None else self._overlay.slot_s / concurrency
        reused = self._total(lambda p: p.reused_tokens())
        own = self._total(lambda p: p.reused_tokens(own_only=True))
        if reused <= 0 or full_s <= 0:
            return None
        kept = self._mean(lambda p: p.kept_tokens())
        kept_own = self._mean(lambda p: p.kept_tokens(own_only=True))
        held = self._mean(lambda p: p.held_token_s(makespan_s))
        return Holding(
            hold_s=HOLD_S,
            kept_share=tuple((kept / reused).tolist()),
            kept_own_share=tuple((kept_own / own).tolist()) if own > 0 else (),
            held_tokens=tuple((held / full_s).tolist()),
        )

    def _mean(self, of: Callable[[Reuses], Numbers]) -> Numbers:
        mean: Numbers = np.mean([of(p) for p in self._partitions], axis=0)
        return mean


def _error_of(ratios: Numbers) -> float | None:
    """Largest half width of the confidence intervals; one column a partition."""
    num_partitions = ratios.shape[1]
    if num_partitions == 1:
        return None
    deviation = ratios.std(axis=1, ddof=1) / np.sqrt(num_partitions)
    return float(deviation.max() * _T_QUANTILE[num_partitions - 1])
