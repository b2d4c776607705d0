"""Samples the blocks for cache figures by their hash.

Source: SHARDS (Waldspurger, Park, Garthwaite and Ahmad, "Efficient MRC construction with SHARDS",
FAST '15). The sample sees every access of a sampled block, so stack distances among sampled blocks
are on average the true ones times the rate.

A sample has a maximum size, as in the paper's fixed-size variant: a full sample halves its rate and
forgets the blocks that it no longer contains. Earlier measurements keep their rate.

The sample is cut into partitions that share no block. Each partition is a smaller sample of its
own; how much their results differ tells the error. All blocks together are one partition.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from holdfast.errors import ConfigError
from holdfast.workload.study.steps import Blocks, Step

__all__ = ["MAX_BLOCKS", "BlockSampler", "Hashes", "Sample", "SampledPath", "hashes_of"]

MAX_BLOCKS: Final = 1 << 22
"""Default maximum size of a sample."""

_NUM_PARTITIONS = 4
_MIN_BLOCKS = 64
_LEFT_OUT = -1

Hashes = NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class BlockSampler:
    """Chooses blocks by their hash.

    Attributes:
        rate: Initial share of sampled blocks, > 0; 1 takes all blocks, in one partition.
        max_blocks: Maximum size of the sample, except for the blocks of one prompt; >= 64.
    """

    rate: float = 1.0
    max_blocks: int = MAX_BLOCKS

    def __post_init__(self) -> None:
        if not 0 < self.rate <= 1:
            raise ConfigError(f"sample rate is {self.rate!r}; expected above 0 and at most 1")
        if self.max_blocks < _MIN_BLOCKS:
            raise ConfigError(f"max_blocks is {self.max_blocks}; expected at least {_MIN_BLOCKS}")

    def samples(self) -> list[Sample]:
        """The initial samples, one for each partition."""
        if self.rate == 1:
            return [Sample(None, 1.0, self.max_blocks)]
        return self.partitions()

    def partitions(self) -> list[Sample]:
        """New samples of all partitions, at any rate."""
        return [
            Sample(number, self.rate, self.max_blocks // _NUM_PARTITIONS)
            for number in range(_NUM_PARTITIONS)
        ]


class Sample:
    """The sampled blocks of one partition, numbered from 0.

    Args:
        partition: The partition's number; None for all blocks, which keep their numbers.
        share: Share of the partition's blocks that are sampled, > 0.
        max_blocks: Maximum number of blocks, > 0.
    """

    __slots__ = ("_max_blocks", "_num_blocks", "_numbers", "_partition", "_share")

    def __init__(self, partition: int | None, share: float, max_blocks: int) -> None:
        self._partition = partition
        self._share = share
        self._max_blocks = max_blocks
        self._num_blocks = 0
        self._numbers: dict[int, int] = {}

    @property
    def rate(self) -> float:
        """Share of all blocks that are sampled."""
        return self._share if self._partition is None else self._share / _NUM_PARTITIONS

    @property
    def num_blocks(self) -> int:
        """Number of sampled blocks."""
        return self._num_blocks

    @property
    def is_full(self) -> bool:
        """Whether there are more than `max_blocks` blocks."""
        return self._num_blocks > self._max_blocks

    def take(self, blocks: Blocks, hashes: Hashes) -> tuple[Blocks, Blocks]:
        """Select the sampled ones among blocks; remembers new ones.

        Args:
            blocks: Numbers of any blocks.
            hashes: Their hashes; unused if all blocks are sampled.

        Returns:
            Indices in `blocks`, ascending, and the numbers of those blocks in this sample.
        """
        if self._partition is None:
            self._num_blocks = max(self._num_blocks, int(blocks.max(initial=-1)) + 1)
            return np.arange(len(blocks)), blocks
        is_chosen = (hashes % np.uint64(_NUM_PARTITIONS) == self._partition) & (
            _fractions(hashes) < self._share
        )
        indices = np.flatnonzero(is_chosen)
        numbers = self._numbers
        found = [numbers.setdefault(block, len(numbers)) for block in blocks[indices].tolist()]
        self._num_blocks = len(numbers)
        return indices, np.array(found, dtype=np.int64)

    def shrink(self) -> Blocks:
        """Halve the share until at most `max_blocks` blocks are left.

        Returns:
            New numbers by old number; < 0 for blocks that are left out.
        """
        # Insertion order is number order.
        blocks = np.fromiter(self._numbers, dtype=np.int64, count=len(self._numbers))
        renumbered = np.arange(len(blocks))
        while self.is_full:
            self._share /= 2
            self._numbers = {}
            renumbered = self.choose(blocks)
        return renumbered

    def choose(self, blocks: Blocks) -> Blocks:
        """Sample blocks; returns the number of each, < 0 for those left out."""
        numbers = np.full(len(blocks), _LEFT_OUT, dtype=np.int64)
        indices, found = self.take(blocks, hashes_of(blocks))
        numbers[indices] = found
        return numbers


class SampledPath:
    """The sampled blocks of a session's latest prompt, by their numbers in the sample."""

    __slots__ = ("_depths", "blocks")

    def __init__(self) -> None:
        self.blocks: Blocks = np.empty(0, dtype=np.int64)
        self._depths: Blocks = np.empty(0, dtype=np.int64)

    def follow(self, step: Step, indices: Blocks, numbers: Blocks) -> None:
        """Move to the session's next prompt.

        Args:
            step: The step of that prompt.
            indices: Indices of the sampled blocks in `step.added`, ascending.
            numbers: Their numbers in the sample.
        """
        num_kept = int(np.searchsorted(self._depths, step.num_kept))
        self.blocks = np.concatenate((self.blocks[:num_kept], numbers))
        self._depths = np.concatenate((self._depths[:num_kept], step.num_kept + indices))

    def renumber(self, numbers: Blocks) -> None:
        """Renumber all blocks; drops those with a negative new number."""
        renumbered = numbers[self.blocks]
        is_kept = renumbered >= 0
        self.blocks, self._depths = renumbered[is_kept], self._depths[is_kept]


def hashes_of(blocks: Blocks) -> Hashes:
    """Hash block numbers by SplitMix64's finalizer (Steele et al., 2014). Pure."""
    bits = blocks.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    bits ^= bits >> np.uint64(31)
    return bits


def _fractions(hashes: Hashes) -> NDArray[np.float64]:
    """Fractions from 0 to below 1, from the bits that do not choose the partition."""
    return (hashes >> np.uint64(11)).astype(np.float64) * 2.0**-53
