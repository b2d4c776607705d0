"""Measures each reuse of a prompt's blocks: its LRU stack distance and its age."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from holdfast.workload.study.overlay import OverlayEvent
from holdfast.workload.study.recency import RecencyStack
from holdfast.workload.study.reuse_ages import ReuseAges
from holdfast.workload.study.reuse_depths import BinnedDepths, Depths
from holdfast.workload.study.sampling import Hashes, Sample, SampledPath
from holdfast.workload.study.steps import Blocks

__all__ = ["Reuses"]

Numbers = NDArray[np.float64]

_FEW_PROMPTS: Final = 1024


class Reuses:
    """Measures reuse in an overlay, for caches of all sizes and for holding times.

    Only full blocks of prompts count; an answer's blocks count once a prompt has them.

    Keeps a few bytes for each sampled block and each live session. Without sampling it also keeps a
    few bytes for each reuse.

    Args:
        sample: A new sample of blocks. Its figures are scaled up to all blocks at the sample's rate
            at the time of each reuse.
        hold_s: Holding times, ascending.
    """

    def __init__(self, sample: Sample, hold_s: Sequence[float]) -> None:
        self._sample = sample
        self._hold_s = np.asarray(hold_s)
        self._stack = RecencyStack()
        self._paths: dict[int, SampledPath] = {}
        # By the stack's prompt numbers.
        self._end_s = array("d")
        self._sender = array("q")
        self._most_prompts = _FEW_PROMPTS
        self._ages = ReuseAges(hold_s)
        self._depths: Depths | BinnedDepths = Depths() if sample.rate == 1 else BinnedDepths()
        self._all_block_tokens = 0
        self._sampled_tokens = 0.0

    @property
    def sample(self) -> Sample:
        """The sampled blocks."""
        return self._sample

    def narrow(self, sample: Sample) -> None:
        """Switch from all blocks to a new sample; keeps earlier measurements."""
        if isinstance(self._depths, Depths):
            self._depths = BinnedDepths(self._depths)
        numbers = sample.choose(np.arange(self._sample.num_blocks))
        self._sample = sample
        self._renumber(numbers)

    def shrink(self) -> None:
        """Switch to a smaller share of the sample; keeps earlier measurements."""
        self._renumber(self._sample.shrink())

    def request(self, event: OverlayEvent, turn_index: int, hashes: Hashes) -> None:
        """Add the request of a turn.

        Args:
            event: The request's event.
            turn_index: Index of the turn.
            hashes: Hashes of the blocks that the turn adds; unused without sampling.
        """
        session = event.session
        step = session.steps[turn_index]
        rate = self._sample.rate
        path = self._paths.setdefault(session.index, SampledPath())
        path.follow(step, *self._sample.take(step.added, hashes))
        for reused in self._stack.touch(path.blocks, session.block_tokens):
            self._depths.add(reused, session.block_tokens, rate)
            self._ages.add(
                reused.num_blocks * session.block_tokens / rate,
                max(0.0, event.at_s - self._end_s[reused.last_touch]),
                is_own=self._sender[reused.last_touch] == session.index,
            )
        self._end_s.append(event.end_s)
        self._sender.append(session.index)
        self._all_block_tokens += step.num_blocks * session.block_tokens
        self._sampled_tokens += len(path.blocks) * session.block_tokens / rate
        if len(self._end_s) > self._most_prompts:
            self._forget_prompts()

    def close(self, event: OverlayEvent) -> None:
        """Add the end of a session; its blocks stay reusable."""
        del self._paths[event.session.index]

    def hit_tokens(self, cache_tokens: float) -> float:
        """Prompt tokens that an LRU cache of this size (>= 0) hits. Pure.

        With sampling the misses are scaled up and the hits are all other tokens (SHARDS-adj): a few
        blocks that all prompts share make the sample's share of accesses differ from its rate.
        """
        missed = self._sampled_tokens - self._depths.hit_tokens(cache_tokens)
        return max(0.0, self._all_block_tokens - missed)

    def reused_tokens(self, *, own_only: bool = False) -> float:
        """Prompt tokens that an earlier prompt, of any or of the same session, sent. Pure."""
        return self._ages.total(own_only=own_only)

    def kept_tokens(self, *, own_only: bool = False) -> Numbers:
        """The part of `reused_tokens` that is reused within each holding time. Pure."""
        return self._ages.kept(own_only=own_only)

    def held_token_s(self, until_s: float) -> Numbers:
        """Token-seconds of idle KV for each holding time. Pure.

        Args:
            until_s: End of the overlay, where all holding ends. KV stops being idle at its reuse.
        """
        left = np.asarray(self._stack.left_tokens(), dtype=np.float64) / self._sample.rate
        last_s = np.maximum(0.0, until_s - np.asarray(self._end_s))
        held = [float(np.minimum(last_s, each) @ left) for each in self._hold_s]
        return self._ages.held_token_s() + held

    def distinct_tokens(self) -> float:
        """Tokens of all distinct blocks; a cache of this size never evicts. Pure."""
        return sum(self._stack.left_tokens()) / self._sample.rate

    def _renumber(self, numbers: Blocks) -> None:
        self._stack.renumber(numbers)
        for path in self._paths.values():
            path.renumber(numbers)

    def _forget_prompts(self) -> None:
        """Forget prompts whose blocks were all sent again by later prompts."""
        kept = self._stack.forget_prompts()
        self._end_s = array("d", np.asarray(self._end_s)[kept].tolist())
        self._sender = array("q", np.asarray(self._sender)[kept].tolist())
        self._most_prompts = max(_FEW_PROMPTS, 2 * len(kept))
