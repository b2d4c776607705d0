"""Finds prompts that do not extend the one before, and their recompute cost."""

from __future__ import annotations

from array import array
from collections import Counter
from typing import Literal

import msgspec

from holdfast.workload.study.distribution import Distribution, distribution_of
from holdfast.workload.study.steps import Step, SteppedSession

__all__ = ["Mutation", "MutationKind", "MutationMeter", "Mutations", "mutation_of"]

MutationKind = Literal["tail", "return", "compaction", "branch"]

# A rewritten last message, such as a reminder, does not start a new branch.
_TAIL_TOKENS = 1024
_COMPACTED_RATIO = 0.6


class Mutation(msgspec.Struct, frozen=True):
    """A prompt that does not extend the one before.

    Attributes:
        kind: `tail`: it replaces up to 1024 tokens at the end. `return`: it extends an earlier
            prompt of the session. `compaction`: it has under 60 % of the last prompt's length.
            `branch`: any other.
        depth_tokens: Tokens shared with the last prompt, in full blocks.
        lost_tokens: Tokens of the last prompt after those, in full blocks.
        recompute_tokens: Tokens that an append-only prompt of this length would reuse and that no
            prompt of the session has.
    """

    kind: MutationKind
    depth_tokens: int
    lost_tokens: int
    recompute_tokens: int


class Mutations(msgspec.Struct, frozen=True):
    """All mutations.

    Attributes:
        num_turns: Turns after a session's first.
        num_by_kind: Mutations by kind.
        recompute_tokens_by_kind: Recompute tokens by kind.
        recompute_tokens: Sum over all kinds.
        prompt_tokens: Prompt tokens of all turns, to compare with.
        depth_share: Depth relative to the last prompt's full blocks (0 to 1), without `tail`.
        lost_tokens: Lost tokens of each mutation.
        recompute_tokens_each: Recompute tokens of each mutation.
    """

    num_turns: int
    num_by_kind: dict[str, int]
    recompute_tokens_by_kind: dict[str, int]
    recompute_tokens: int
    prompt_tokens: int
    depth_share: Distribution
    lost_tokens: Distribution
    recompute_tokens_each: Distribution


def mutation_of(session: SteppedSession, turn_index: int) -> Mutation | None:
    """The mutation at a turn (>= 1); None if it keeps all full blocks. Pure."""
    before, step = session.steps[turn_index - 1], session.steps[turn_index]
    block_tokens = session.block_tokens
    lost = (before.num_blocks - step.num_kept) * block_tokens
    if lost <= 0:
        return None
    reusable = min(before.num_blocks, step.num_blocks)
    return Mutation(
        kind=_kind(before, step, block_tokens),
        depth_tokens=step.num_kept * block_tokens,
        lost_tokens=lost,
        recompute_tokens=max(0, reusable - step.num_own) * block_tokens,
    )


def _kind(before: Step, step: Step, block_tokens: int) -> MutationKind:
    if (before.num_blocks - step.num_kept) * block_tokens <= _TAIL_TOKENS:
        return "tail"
    if (step.num_own - step.num_kept) * block_tokens > _TAIL_TOKENS:
        return "return"
    if step.turn.prompt_tokens < _COMPACTED_RATIO * before.turn.prompt_tokens:
        return "compaction"
    return "branch"


class MutationMeter:
    """Accumulates the mutations of sessions."""

    def __init__(self) -> None:
        self._num_turns = 0
        self._prompt_tokens = 0
        self._num: Counter[str] = Counter()
        self._recompute: Counter[str] = Counter()
        self._depth_share = array("d")
        self._lost = array("d")
        self._recompute_each = array("d")

    def add(self, session: SteppedSession) -> None:
        """Add a session."""
        self._num_turns += len(session.steps) - 1
        self._prompt_tokens += sum(step.turn.prompt_tokens for step in session.steps)
        for turn_index in range(1, len(session.steps)):
            mutation = mutation_of(session, turn_index)
            if mutation is None:
                continue
            self._num[mutation.kind] += 1
            self._recompute[mutation.kind] += mutation.recompute_tokens
            self._lost.append(mutation.lost_tokens)
            self._recompute_each.append(mutation.recompute_tokens)
            if mutation.kind != "tail":
                whole = mutation.depth_tokens + mutation.lost_tokens
                self._depth_share.append(mutation.depth_tokens / whole)

    def result(self) -> Mutations:
        """The result for the sessions added so far."""
        return Mutations(
            num_turns=self._num_turns,
            num_by_kind=dict(self._num),
            recompute_tokens_by_kind=dict(self._recompute),
            recompute_tokens=sum(self._recompute.values()),
            prompt_tokens=self._prompt_tokens,
            depth_share=distribution_of(self._depth_share),
            lost_tokens=distribution_of(self._lost),
            recompute_tokens_each=distribution_of(self._recompute_each),
        )
