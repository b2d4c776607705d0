"""Measures growth phases of prompts, up to a compaction or their session's end."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from holdfast.traces.record import Turn
from holdfast.workload.study.distribution import Distribution, distribution_of
from holdfast.workload.study.mutations import Mutation
from holdfast.workload.study.shape import SIZE_BIN_TOKENS

__all__ = ["FULL_SHARE", "PromptGrowthMeter"]

FULL_SHARE = 0.1
"""The context is full at a size where at least this share of growth phases are compacted."""


class PromptGrowthMeter:
    """Accumulates sessions; counts sizes in bins of `SIZE_BIN_TOKENS`."""

    def __init__(self) -> None:
        self._ended: Counter[int] = Counter()
        self._compactions: Counter[int] = Counter()
        self._last_tokens = array("d")

    def add(self, turns: Sequence[Turn], changes: Sequence[Mutation | None]) -> None:
        """Add a session: its turns, and the mutation of each turn but the first."""
        largest = 0
        for turn, change in zip(turns, (*changes, None), strict=True):
            largest = max(largest, turn.prompt_tokens)
            if change is not None and change.kind == "compaction":
                self._ended[turn.prompt_tokens // SIZE_BIN_TOKENS] += 1
                self._compactions[turn.prompt_tokens // SIZE_BIN_TOKENS] += 1
                largest = 0
        self._ended[largest // SIZE_BIN_TOKENS] += 1
        self._last_tokens.append(largest)

    @property
    def has_ended_full(self) -> NDArray[np.bool_]:
        """For each session in order, whether its context was full at its end."""
        reached = np.asarray(self._reached(self._ended))
        is_full = np.asarray(self.num_compactions) >= FULL_SHARE * reached
        return is_full[self._last_sizes()]

    @property
    def full_tokens(self) -> Distribution:
        """Largest prompt since the last compaction, of sessions that ended full."""
        return distribution_of(np.asarray(self._last_tokens)[self.has_ended_full])

    @property
    def num_growth_phases(self) -> tuple[int, ...]:
        """Growth phases that reached each size, without those that ended full."""
        ended_full = Counter(self._last_sizes()[self.has_ended_full].tolist())
        return self._reached(self._ended - ended_full)

    @property
    def num_compactions(self) -> tuple[int, ...]:
        """Growth phases that ended in a compaction, by the size of the prompt before it."""
        return tuple(self._compactions[size] for size in range(max(self._ended) + 1))

    def _last_sizes(self) -> NDArray[np.int64]:
        return (np.asarray(self._last_tokens) // SIZE_BIN_TOKENS).astype(np.int64)

    def _reached(self, ended: Counter[int]) -> tuple[int, ...]:
        nums = [ended[size] for size in range(max(self._ended) + 1)]
        return tuple(sum(nums[size:]) for size in range(len(nums)))
