"""Every reuse of a prompt's blocks: how deep in the order of recency, and after what time."""

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
    """Follows the prompts of an overlay; answers for caches of all sizes and for times of holding.

    Full blocks of prompts are reused, nothing else: what an answer leaves in a cache counts once
    the recording has it in a prompt.

    Keeps some bytes for each block that takes part and for each live session. Where all blocks
    do, also for each reuse.

    Args:
        sample: The blocks that take part, fresh; what they tell is scaled up to all blocks, at the
            rate that the sample had when it was seen.
        hold_s: The times of holding, ascending.
    """

    def __init__(self, sample: Sample, hold_s: Sequence[float]) -> None:
        self._sample = sample
        self._hold_s = np.asarray(hold_s)
        self._stack = RecencyStack()
        self._paths: dict[int, SampledPath] = {}
        # By prompt, as the stack counts them.
        self._end_s = array("d")
        self._sender = array("q")
        self._most_prompts = _FEW_PROMPTS
        self._ages = ReuseAges(hold_s)
        self._depths: Depths | BinnedDepths = Depths() if sample.rate == 1 else BinnedDepths()
        self._all_block_tokens = 0
        self._sampled_tokens = 0.0

    @property
    def sample(self) -> Sample:
        """The blocks that take part."""
        return self._sample

    def narrow(self, sample: Sample) -> None:
        """Go on with a fresh sample where all blocks took part; what was seen so far stays."""
        if isinstance(self._depths, Depths):
            self._depths = BinnedDepths(self._depths)
        numbers = sample.choose(np.arange(self._sample.num_blocks))
        self._sample = sample
        self._renumber(numbers)

    def shrink(self) -> None:
        """Go on with a smaller share of the sample; what was seen so far stays."""
        self._renumber(self._sample.shrink())

    def request(self, event: OverlayEvent, turn_index: int, hashes: Hashes) -> None:
        """Take the request of a turn.

        Args:
            event: When, and whose.
            turn_index: Which of its turns.
            hashes: Of the blocks that it adds; not looked at where all blocks take part.
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
        """Take the end of a session, whose blocks stay reusable."""
        del self._paths[event.session.index]

    def hit_tokens(self, cache_tokens: float) -> float:
        """Prompt tokens that an LRU cache of this size (>= 0) hits. Pure.

        Sampled: the misses are scaled up and hits are the rest, since a few blocks that all prompts
        share make the sample's share of the accesses differ from its share of the blocks. (SHARDS
        calls that adjusted.)
        """
        missed = self._sampled_tokens - self._depths.hit_tokens(cache_tokens)
        return max(0.0, self._all_block_tokens - missed)

    def reused_tokens(self, *, own_only: bool = False) -> float:
        """Prompt tokens that any earlier prompt, or one of the same session, sent. Pure."""
        return self._ages.total(own_only=own_only)

    def kept_tokens(self, *, own_only: bool = False) -> Numbers:
        """Of `reused_tokens`, those reused within each of the times. Pure."""
        return self._ages.kept(own_only=own_only)

    def held_token_s(self, until_s: float) -> Numbers:
        """Tokens times seconds that KV lies idle when held each of the times. Pure.

        Args:
            until_s: End of the overlay, where all holding ends. KV that is used again is not idle
                from then on.
        """
        left = np.asarray(self._stack.left_tokens(), dtype=np.float64) / self._sample.rate
        last_s = np.maximum(0.0, until_s - np.asarray(self._end_s))
        held = [float(np.minimum(last_s, each) @ left) for each in self._hold_s]
        return self._ages.held_token_s() + held

    def distinct_tokens(self) -> float:
        """Tokens of all blocks ever sent, each once: a cache of this size never evicts. Pure."""
        return sum(self._stack.left_tokens()) / self._sample.rate

    def _renumber(self, numbers: Blocks) -> None:
        self._stack.renumber(numbers)
        for path in self._paths.values():
            path.renumber(numbers)

    def _forget_prompts(self) -> None:
        """Those of which later prompts sent all blocks again."""
        kept = self._stack.forget_prompts()
        self._end_s = array("d", np.asarray(self._end_s)[kept].tolist())
        self._sender = array("q", np.asarray(self._sender)[kept].tolist())
        self._most_prompts = max(_FEW_PROMPTS, 2 * len(kept))
