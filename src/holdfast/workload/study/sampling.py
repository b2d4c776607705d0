"""Which blocks take part in a study of caches: all of them, or a part chosen by their hash.

Spatially hashed sampling (SHARDS: Waldspurger, Park, Garthwaite and Ahmad, "Efficient MRC
construction with SHARDS", FAST '15): of a sampled block every access is seen, so that stack
distances among sampled blocks are the true ones times the rate, on average.

A sample has a largest size, as in that paper's fixed-size variant: when it is full the rate is
halved, and what is no longer chosen is forgotten as if it had never been. What was measured before
keeps the rate at which it was.

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
"""How many blocks a study of caches remembers, unless told otherwise."""

_NUM_PARTITIONS = 4
_MIN_BLOCKS = 64
_LEFT_OUT = -1

Hashes = NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class BlockSampler:
    """Chooses blocks, the same ones whoever sends them.

    Attributes:
        rate: Share of all blocks that take part at first, > 0; 1 takes them all, in one partition.
        max_blocks: Largest size of the sample, but for what one prompt adds; >= 64.
    """

    rate: float = 1.0
    max_blocks: int = MAX_BLOCKS

    def __post_init__(self) -> None:
        if not 0 < self.rate <= 1:
            raise ConfigError(f"sample rate is {self.rate!r}; expected more than 0 and at most 1")
        if self.max_blocks < _MIN_BLOCKS:
            raise ConfigError(f"max_blocks is {self.max_blocks}; expected at least {_MIN_BLOCKS}")

    def samples(self) -> list[Sample]:
        """What to begin with: one fresh sample a partition."""
        if self.rate == 1:
            return [Sample(None, 1.0, self.max_blocks)]
        return self.partitions()

    def partitions(self) -> list[Sample]:
        """The same as partitions, even where they take all blocks together."""
        return [
            Sample(number, self.rate, self.max_blocks // _NUM_PARTITIONS)
            for number in range(_NUM_PARTITIONS)
        ]


class Sample:
    """The blocks of one partition that take part, numbered from 0.

    Args:
        partition: Which; None for all blocks, which keep the numbers they have.
        share: Share of the partition's blocks that take part, > 0.
        max_blocks: How many may, > 0.
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
        """Share of all blocks that take part."""
        return self._share if self._partition is None else self._share / _NUM_PARTITIONS

    @property
    def num_blocks(self) -> int:
        """How many took part and were not forgotten."""
        return self._num_blocks

    @property
    def is_full(self) -> bool:
        """Whether there are more blocks than there may be."""
        return self._num_blocks > self._max_blocks

    def take(self, blocks: Blocks, hashes: Hashes) -> tuple[Blocks, Blocks]:
        """Choose among blocks; remembers those that were not seen before.

        Args:
            blocks: Numbers of any blocks.
            hashes: Theirs; not looked at where all take part.

        Returns:
            Places in `blocks`, ascending, and what numbers the blocks there have in this sample.
        """
        if self._partition is None:
            self._num_blocks = max(self._num_blocks, int(blocks.max(initial=-1)) + 1)
            return np.arange(len(blocks)), blocks
        is_chosen = (hashes % np.uint64(_NUM_PARTITIONS) == self._partition) & (
            _fractions(hashes) < self._share
        )
        places = np.flatnonzero(is_chosen)
        numbers = self._numbers
        found = [numbers.setdefault(block, len(numbers)) for block in blocks[places].tolist()]
        self._num_blocks = len(numbers)
        return places, np.array(found, dtype=np.int64)

    def shrink(self) -> Blocks:
        """Halve the share until as few blocks are left as may be.

        Returns:
            By a block's number until now, the one from now on; < 0 for those left out.
        """
        # Numbers were given in this order.
        blocks = np.fromiter(self._numbers, dtype=np.int64, count=len(self._numbers))
        renumbered = np.arange(len(blocks))
        while self.is_full:
            self._share /= 2
            self._numbers = {}
            renumbered = self.choose(blocks)
        return renumbered

    def choose(self, blocks: Blocks) -> Blocks:
        """Take blocks; returns the number of each, < 0 for those left out."""
        numbers = np.full(len(blocks), _LEFT_OUT, dtype=np.int64)
        places, found = self.take(blocks, hashes_of(blocks))
        numbers[places] = found
        return numbers


class SampledPath:
    """Those blocks of a session's latest prompt that one sample takes, by their numbers in it."""

    __slots__ = ("_depths", "blocks")

    def __init__(self) -> None:
        self.blocks: Blocks = np.empty(0, dtype=np.int64)
        self._depths: Blocks = np.empty(0, dtype=np.int64)

    def follow(self, step: Step, places: Blocks, numbers: Blocks) -> None:
        """Go on to the session's next prompt.

        Args:
            step: That turn.
            places: Of the blocks in `step.added` that are taken, ascending.
            numbers: What they are called.
        """
        num_kept = int(np.searchsorted(self._depths, step.num_kept))
        self.blocks = np.concatenate((self.blocks[:num_kept], numbers))
        self._depths = np.concatenate((self._depths[:num_kept], step.num_kept + places))

    def renumber(self, numbers: Blocks) -> None:
        """Give each block its new number; those with none (< 0) are left out."""
        renumbered = numbers[self.blocks]
        is_kept = renumbered >= 0
        self.blocks, self._depths = renumbered[is_kept], self._depths[is_kept]


def hashes_of(blocks: Blocks) -> Hashes:
    """Numbers that look random: SplitMix64's finalizer (Steele et al., 2014). Pure."""
    bits = blocks.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    bits ^= bits >> np.uint64(31)
    return bits


def _fractions(hashes: Hashes) -> NDArray[np.float64]:
    """From 0 to below 1, by the upper bits; the partition is in the lowest."""
    return (hashes >> np.uint64(11)).astype(np.float64) * 2.0**-53
