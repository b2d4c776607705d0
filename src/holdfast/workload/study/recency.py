"""Computes exact LRU stack distances of prompts' blocks.

Source: Mattson, Gecsei, Slutz and Traiger, "Evaluation techniques for storage hierarchies" (1970).
LRU caches of all sizes hold the top of one stack, so one pass gives the hits at all sizes.

A block is always sent with all blocks before it. The blocks of an earlier prompt that no later
prompt sent again are therefore consecutive in that prompt. The stack keeps one such piece for each
prompt; a lookup costs O(log n) a piece, not a block.

As in vLLM, all blocks of a prompt are looked up before any is stored, and blocks closer to the root
are more recent, so that no block outlives its predecessors.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from holdfast.workload.study.fenwick import Fenwick
from holdfast.workload.study.steps import Blocks, reach

__all__ = ["RecencyStack", "ReusedBlocks"]

_UNSEEN = -1


@dataclass(frozen=True, slots=True)
class ReusedBlocks:
    """Consecutive blocks of a prompt that the same earlier prompt sent last.

    Attributes:
        last_touch: Number of that prompt, from 0.
        num_blocks: Number of blocks, > 0.
        tokens_above: Tokens more recent than the first of them. A cache hits the i-th block, from
            0, if it has at least `tokens_above` plus i + 1 blocks.
    """

    last_touch: int
    num_blocks: int
    tokens_above: int


class RecencyStack:
    """The LRU stack of all sent blocks, most recent first."""

    def __init__(self) -> None:
        self._last_touch = np.full(1, _UNSEEN, dtype=np.int64)
        self._left_tokens = Fenwick()
        self._block_tokens = array("q")
        self._total_tokens = 0

    def touch(self, path: Blocks, block_tokens: int) -> list[ReusedBlocks]:
        """Look up a prompt's blocks, then move them to the top.

        Args:
            path: The prompt's blocks from the root; equal blocks have equal predecessors.
            block_tokens: Tokens in each, > 0.

        Returns:
            The reused blocks, from the root; all blocks after them are new.
        """
        self._last_touch = reach(self._last_touch, int(path.max(initial=-1)) + 1, _UNSEEN)
        touches = self._last_touch[path]
        changes = np.flatnonzero(touches[1:] != touches[:-1]) + 1
        found = []
        for start, stop in pairwise((0, *changes.tolist(), len(path))):
            last_touch = int(touches[start]) if len(path) else _UNSEEN
            if last_touch == _UNSEEN:
                break
            above = self._total_tokens - self._left_tokens.sum_before(last_touch + 1)
            found.append(ReusedBlocks(last_touch, stop - start, above))
        for blocks in found:
            self._left_tokens.add(blocks.last_touch, -blocks.num_blocks * block_tokens)
            self._total_tokens -= blocks.num_blocks * block_tokens
        self._last_touch[path] = len(self._left_tokens)
        self._left_tokens.append(len(path) * block_tokens)
        self._block_tokens.append(block_tokens)
        self._total_tokens += len(path) * block_tokens
        return found

    def renumber(self, numbers: Blocks) -> None:
        """Renumber all blocks; forget those with a negative new number.

        Args:
            numbers: New numbers, from 0, by old number, for all sent blocks.
        """
        touches = self._last_touch[: len(numbers)]
        left_out, counts = np.unique(touches[numbers < 0], return_counts=True)
        for last_touch, num_blocks in zip(left_out.tolist(), counts.tolist(), strict=True):
            if last_touch != _UNSEEN:
                tokens = num_blocks * self._block_tokens[last_touch]
                self._left_tokens.add(last_touch, -tokens)
                self._total_tokens -= tokens
        kept = numbers >= 0
        self._last_touch = np.full(int(kept.sum()) + 1, _UNSEEN, dtype=np.int64)
        self._last_touch[numbers[kept]] = touches[kept]

    def forget_prompts(self) -> Blocks:
        """Forget prompts without blocks in the stack, and renumber the others.

        Returns:
            Old numbers of the kept prompts, ascending, by new number.
        """
        left = np.asarray(self.left_tokens(), dtype=np.int64)
        kept = np.flatnonzero(left)
        renumbered = np.full(len(left) + 1, _UNSEEN, dtype=np.int64)
        renumbered[kept] = np.arange(len(kept))
        # Unsent blocks index the last entry, which has no prompt.
        self._last_touch = renumbered[self._last_touch]
        self._block_tokens = array("q", np.asarray(self._block_tokens)[kept].tolist())
        self._left_tokens = Fenwick()
        for tokens in left[kept].tolist():
            self._left_tokens.append(tokens)
        return kept

    def left_tokens(self) -> list[int]:
        """For each prompt, the tokens that no later prompt sent again. Pure."""
        sums = [self._left_tokens.sum_before(index) for index in range(len(self._left_tokens) + 1)]
        return [after - before for before, after in pairwise(sums)]
