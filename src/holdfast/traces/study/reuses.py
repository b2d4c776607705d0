"""Every reuse of a prompt's blocks: how deep in the order of recency, and after what time."""

from __future__ import annotations

from array import array

import numpy as np
from numpy.typing import NDArray

from holdfast.traces.study.overlay import Moment
from holdfast.traces.study.recency import RecencyStack
from holdfast.traces.study.sampling import Hashes, Sample, SampledPath
from holdfast.traces.study.steps import Blocks

__all__ = ["Reuses"]

Numbers = NDArray[np.float64]


class Reuses:
    """Follows the prompts of an overlay; answers for caches of all sizes and for all times.

    Full blocks of prompts are reused, nothing else: what an answer leaves in a cache counts once
    the recording has it in a prompt.

    Args:
        sample: The blocks that take part, fresh; what they tell is scaled up to all blocks, at the
            rate that the sample had when it was seen.
    """

    def __init__(self, sample: Sample) -> None:
        self._sample = sample
        self._stack = RecencyStack()
        self._paths: dict[int, SampledPath] = {}
        self._end_s = array("d")
        self._sender = array("q")
        self._tokens_above = array("d")
        self._num_blocks = array("d")
        self._block_tokens = array("d")
        self._age_s = array("d")
        self._is_own = array("b")
        self._rate = array("d")
        self._all_block_tokens = 0
        self._sampled_tokens = 0.0

    @property
    def sample(self) -> Sample:
        """The blocks that take part."""
        return self._sample

    def request(self, moment: Moment, turn_index: int, hashes: Hashes) -> None:
        """Take the request of a turn.

        Args:
            moment: When, and whose.
            turn_index: Which of its turns.
            hashes: Of the blocks that it adds; not looked at where all blocks take part.
        """
        session = moment.session
        step = session.steps[turn_index]
        rate = self._sample.rate
        path = self._paths.setdefault(session.index, SampledPath())
        path.follow(step, *self._sample.take(step.added, hashes))
        for run in self._stack.touch(path.blocks, session.block_tokens):
            self._rate.append(rate)
            self._tokens_above.append(run.tokens_above)
            self._num_blocks.append(run.num_blocks)
            self._block_tokens.append(session.block_tokens)
            self._age_s.append(max(0.0, moment.at_s - self._end_s[run.last_touch]))
            self._is_own.append(self._sender[run.last_touch] == session.index)
        self._end_s.append(moment.end_s)
        self._sender.append(session.index)
        self._all_block_tokens += step.num_blocks * session.block_tokens
        self._sampled_tokens += len(path.blocks) * session.block_tokens / rate

    def narrow(self, sample: Sample) -> None:
        """Go on with a fresh sample where all blocks took part; what was seen so far stays."""
        numbers = sample.choose(np.arange(self._sample.num_blocks))
        self._sample = sample
        self._renumber(numbers)

    def shrink(self) -> None:
        """Go on with a smaller share of the sample; what was seen so far stays."""
        self._renumber(self._sample.shrink())

    def close(self, moment: Moment) -> None:
        """Take the end of a session, whose blocks stay reusable."""
        del self._paths[moment.session.index]

    def hit_tokens(self, cache_tokens: float) -> float:
        """Prompt tokens that an LRU cache of this size (>= 0) hits. Pure.

        Sampled: the misses are scaled up and hits are the rest, since a few blocks that all prompts
        share make the sample's share of the accesses differ from its share of the blocks. (SHARDS
        calls that adjusted.)
        """
        block_tokens, num_blocks = _floats(self._block_tokens), _floats(self._num_blocks)
        rate = _floats(self._rate)
        room = (cache_tokens - block_tokens) * rate - _floats(self._tokens_above)
        num_hit = np.clip(np.floor(room / block_tokens) + 1, 0, num_blocks)
        missed = self._sampled_tokens - float(num_hit @ (block_tokens / rate))
        return max(0.0, self._all_block_tokens - missed)

    def reused_tokens(self, *, own_only: bool = False) -> float:
        """Prompt tokens that any earlier prompt, or one of the same session, sent. Pure."""
        return float(np.sum(self._tokens()[self._is_chosen(own_only)]))

    def kept_tokens(self, hold_s: Numbers, *, own_only: bool = False) -> Numbers:
        """Of `reused_tokens`, those reused within each of the times (s, ascending). Pure."""
        chosen = self._is_chosen(own_only)
        ages, tokens = _floats(self._age_s)[chosen], self._tokens()[chosen]
        order = np.argsort(ages, kind="stable")
        summed = np.concatenate(([0.0], np.cumsum(tokens[order])))
        kept: Numbers = summed[np.searchsorted(ages[order], hold_s, side="right")]
        return kept

    def held_token_s(self, hold_s: Numbers, until_s: float) -> Numbers:
        """Tokens times seconds that KV lies idle when held each of the times (s). Pure.

        Args:
            hold_s: How long after its last use KV is held; ends sooner when it is used again.
            until_s: End of the overlay, where all holding ends.
        """
        left = np.asarray(self._stack.left_tokens(), dtype=np.float64) / self._sample.rate
        last_s = np.maximum(0.0, until_s - _floats(self._end_s))
        ages = np.concatenate((_floats(self._age_s), last_s))
        tokens = np.concatenate((self._tokens(), left))
        return np.asarray([float(np.minimum(ages, each) @ tokens) for each in hold_s])

    def distinct_tokens(self) -> float:
        """Tokens of all blocks ever sent, each once: a cache of this size never evicts. Pure."""
        return sum(self._stack.left_tokens()) / self._sample.rate

    def _renumber(self, numbers: Blocks) -> None:
        self._stack.renumber(numbers)
        for path in self._paths.values():
            path.renumber(numbers)

    def _tokens(self) -> Numbers:
        """What each of the reuses found stands for."""
        return _floats(self._num_blocks) * _floats(self._block_tokens) / _floats(self._rate)

    def _is_chosen(self, own_only: bool) -> NDArray[np.bool_]:
        is_own = np.frombuffer(self._is_own, dtype=np.int8) != 0
        return is_own if own_only else np.ones_like(is_own)


def _floats(values: array[float]) -> Numbers:
    """A view; the array must not grow while it lives."""
    return np.frombuffer(values, dtype=np.float64)
