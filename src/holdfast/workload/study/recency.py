"""How deep in a cache's order of recency each prompt finds its blocks: exact LRU stack distances.

After Mattson, Gecsei, Slutz and Traiger, "Evaluation techniques for storage hierarchies" (1970):
an LRU cache of any size holds the top of one and the same stack, so one pass tells the hits at
all sizes.

Prompts make this cheap. A block is only ever sent together with all blocks before it, so what is
left of an earlier prompt in the stack, once later prompts took their blocks to the top, is one
unbroken piece of it. The stack is kept as such pieces, one a prompt, and a new prompt meets few of
them: the tree costs O(log n) a piece, not a block.

As in vLLM all blocks of a prompt are looked up before any is stored, and the blocks nearest to the
root count as the most recent, so that no block outlives those in front of it.
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
    """Neighbouring blocks of a prompt that the same earlier prompt was the last to send.

    Attributes:
        last_touch: Number of that prompt, from 0.
        num_blocks: How many, > 0.
        tokens_above: Tokens more recent than the first of them. The i-th block, from 0, is hit by
            a cache of at least `tokens_above` plus i + 1 blocks.
    """

    last_touch: int
    num_blocks: int
    tokens_above: int


class RecencyStack:
    """The blocks ever sent, most recent first."""

    def __init__(self) -> None:
        self._last_touch = np.full(1, _UNSEEN, dtype=np.int64)
        self._left_tokens = Fenwick()
        self._block_tokens = array("q")
        self._total_tokens = 0

    def touch(self, path: Blocks, block_tokens: int) -> list[ReusedBlocks]:
        """Look up a prompt's blocks, then take them to the top.

        Args:
            path: From the root; every prompt with one of these blocks has the ones before it too.
            block_tokens: Tokens in each, > 0.

        Returns:
            What was found, from the root; the blocks behind it are new.
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
        """Give each block its new number; those with none (< 0) are as if never sent.

        Args:
            numbers: By the number until now, for all that were sent; the new ones from 0.
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
        """Number anew the prompts that have blocks left, and forget the others.

        Returns:
            The numbers until now of those that are left, ascending: by the new ones, from 0.
        """
        left = np.asarray(self.left_tokens(), dtype=np.int64)
        kept = np.flatnonzero(left)
        renumbered = np.full(len(left) + 1, _UNSEEN, dtype=np.int64)
        renumbered[kept] = np.arange(len(kept))
        # Blocks that were never sent look up the last place, which has no prompt.
        self._last_touch = renumbered[self._last_touch]
        self._block_tokens = array("q", np.asarray(self._block_tokens)[kept].tolist())
        self._left_tokens = Fenwick()
        for tokens in left[kept].tolist():
            self._left_tokens.append(tokens)
        return kept

    def left_tokens(self) -> list[int]:
        """By prompt, the tokens that no later prompt sent again. Pure."""
        sums = [self._left_tokens.sum_before(place) for place in range(len(self._left_tokens) + 1)]
        return [after - before for before, after in pairwise(sums)]
