"""Attributes each turn's missing tokens to their reasons."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from holdfast.cache.eviction_memory import EvictionMemory
from holdfast.cache.prefix_tree import Node
from holdfast.core.content_marks import ContentMarks, Origin
from holdfast.core.miss import (
    AVOIDABLE_REASONS,
    Attribution,
    EngineStep,
    Eviction,
    KnownPrompt,
    MissReason,
    missed_tokens,
)
from holdfast.core.session import Session, SessionTable
from holdfast.core.turn import Turn
from holdfast.runtime.context import RuntimeContext
from holdfast.runtime.eviction_reason import Victim

__all__ = ["MissAttribution", "PastTurn", "TurnLengths"]

_MAX_MARKS: Final = 1 << 16
_MARKED_AFTER: Final = 1.5  # times the length of the prompt marked last
_MAX_LAST: Final = 4  # turns of a session
_MEDIAN: Final = 0.5


@dataclass(slots=True)
class _Past:
    """A session's last turn, to the token.

    Attributes:
        prompt_tokens: Length of its prompt (count).
        num_blocks: Full blocks of prompt and answer that were computed (count).
        rest: Token ids after them; None if the host knows none.
        num_rest: Their number (count).
    """

    prompt_tokens: int
    num_blocks: int
    rest: array[int] | None
    num_rest: int


class TurnLengths(NamedTuple):
    """Lengths of a turn that has ended (tokens).

    Attributes:
        prompt_tokens: Of its prompt.
        num_tokens: Of prompt and answer.
        num_blocks: Full blocks of both without the last token, which is never computed (count).
    """

    prompt_tokens: int
    num_tokens: int
    num_blocks: int


class PastTurn(NamedTuple):
    """A turn that has ended, for reports.

    Attributes:
        number: Of the session's turn.
        attribution: Why tokens of its prompt were missing.
        output_tokens: Length of its answer (tokens).
        gap_s: Time from the session's last answer to its arrival (s); 0 for a first turn.
        waited_s: Time from its arrival to its start (s).
        delayed_by: See `Turn`.
    """

    number: int
    attribution: Attribution
    output_tokens: int
    gap_s: float
    waited_s: float
    delayed_by: str


class MissAttribution:
    """Knows what was seen and evicted, and so why a prompt's tokens are missing.

    A prompt is compared with its session's last turn when it arrives, and with the evictions since
    when it starts: `arrived`, `started`, `ended`, each once a turn and in this order. What is
    attributed is the first start of a turn; the engine computes its prompt again after it preempts
    it, which is not counted. Blocks are compared by prefix hash, the end of a prompt by token.

    Args:
        context: The runtime's books.
        table: All sessions.
        max_evictions: Evictions remembered (count); 0 where no turn is attributed.
    """

    def __init__(self, context: RuntimeContext, table: SessionTable, max_evictions: int) -> None:
        self._context = context
        self._table = table
        self._evictions: EvictionMemory[Eviction] = EvictionMemory(max_evictions)
        self._pasts: dict[Session, _Past] = context.per_session()
        self._step: EngineStep | None = None  # once it has evicted
        self._marks = ContentMarks(_MAX_MARKS)
        self._marked_tokens: dict[Session, int] = context.per_session()
        self._num_resets = 0
        self._last: dict[Session, list[PastTurn]] = context.per_session()

    # What happens to blocks.

    def evicted(self, victim: Victim, num_blocks: int, last_hash: bytes | None) -> None:
        """Note blocks that were evicted together. Mutates; O(1).

        Args:
            victim: Their node.
            num_blocks: Their number (count).
            last_hash: Prefix hash of the block evicted last, the least deep one; None if the engine
                had dropped it.
        """
        if last_hash is None:
            return
        reason, session, is_path = victim
        step = self._step
        if step is None:
            step = self._step = EngineStep()
        what = reason, self._context.now_s, num_blocks if is_path else 0, step
        if session is None:
            eviction = Eviction(*what)
        elif session.state.is_paused:
            pause = session.gap, session.speed, session.expected_gap_s
            eviction = Eviction(*what, session.number, session.idle_since_s, *pause)
        else:
            idle_since_s = None if session.state.is_busy else session.idle_since_s
            eviction = Eviction(*what, session.number, idle_since_s)
        self._evictions.note(last_hash, eviction)

    def left(self, node: Node[Any]) -> None:
        """Note that no session uses a node any more. Mutates."""
        self._evictions.note(node.hashes[-1], Eviction("superseded", self._context.now_s, 0))

    def step(self) -> None:
        """An engine step begins. Mutates."""
        self._step = None

    # What happens to turns.

    def arrived(
        self, session: Session, hashes: Sequence[bytes], tokens: Sequence[int] | None
    ) -> KnownPrompt:
        """What is known of a prompt, before it becomes its session's path. Mutates.

        Args:
            session: Its session.
            hashes: Prefix hashes of its full blocks.
            tokens: Its token ids; None if the host knows none.
        """
        known = self._compared(session, hashes, tokens)
        if tokens is not None:
            is_new = known.against_turn is None
            known.elsewhere = self._elsewhere(session, tokens, is_new=is_new)
        return known

    def _elsewhere(
        self, session: Session, tokens: Sequence[int], *, is_new: bool
    ) -> Sequence[tuple[MissReason, int]]:
        """Why a new session's prompt is not cached here although it was computed. Mutates."""
        identity = session.identity
        origin = Origin(self._num_resets, identity.adapter, identity.tenant)
        found = self._marks.find(tokens, origin) if is_new else None
        if len(tokens) >= _MARKED_AFTER * self._marked_tokens.get(session, 0):
            self._marked_tokens[session] = len(tokens)
            self._marks.note(tokens, origin)
        if found is None:
            return ()
        other, num_tokens = found
        if other.num_resets != origin.num_resets:
            return (("restart", num_tokens),)
        reason: MissReason = "other_model" if other.adapter != origin.adapter else "salt_changed"
        return ((reason, num_tokens),)

    def _compared(
        self, session: Session, hashes: Sequence[bytes], tokens: Sequence[int] | None
    ) -> KnownPrompt:
        """A prompt beside its session's last turn, and beside all that was seen. Pure."""
        block_tokens = self._context.block_tokens
        node, seen = self._context.tree.match(hashes)
        past = self._pasts.get(session)
        if past is None:
            seen = self._evictions.depth(hashes, seen)
            return KnownPrompt(hashes, seen * block_tokens)
        is_at_tail = node is session.tail
        shared = seen if is_at_tail else self._table.num_shared(session, hashes)
        if shared == seen > past.num_blocks >= session.prompt_blocks:
            shared = seen = past.num_blocks  # the path ends with a block that was not computed
        known = KnownPrompt(
            hashes, repeated_tokens=shared * block_tokens, against_turn=session.num_turns
        )
        if shared < session.prompt_blocks:
            known.mutated_at_tokens = shared * block_tokens
            known.changed_tokens = past.prompt_tokens
            seen = self._evictions.depth(hashes, seen)
        elif shared < past.num_blocks:
            known.repeated_tokens = max(known.repeated_tokens, past.prompt_tokens)
            known.answered_tokens = past.num_blocks * block_tokens
        else:
            computed_tokens = past.num_blocks * block_tokens
            repeated = computed_tokens + _num_repeated(past, tokens, computed_tokens)
            known.repeated_tokens = max(known.repeated_tokens, repeated)
        known.seen_tokens = seen * block_tokens
        return known

    def started(self, turn: Turn, cached_tokens: int) -> None:
        """Take in how many tokens of its prompt a turn found. Mutates the turn."""
        known = turn.known
        if known is None or known.cached_tokens is not None:
            return
        if self._step is not None and turn.missing_blocks:
            self._step.taken_by = turn.session.number
            self._step = None
        known.cached_tokens = cached_tokens
        block_tokens = self._context.block_tokens
        depth = cached_tokens // block_tokens
        num_failed = self._context.tier.num_failed(known.hashes, depth)
        known.seen_tokens = max(known.seen_tokens, (depth + num_failed) * block_tokens)
        if cached_tokens < known.seen_tokens:
            known.lost = self._lost(known, depth, num_failed)
        known.hashes = ()

    def ended(
        self, turn: Turn, lengths: TurnLengths, rest: Sequence[int] | None
    ) -> Attribution | None:
        """Attribute a turn's missing tokens; None if it has not started. Mutates.

        Args:
            turn: The turn.
            lengths: Of the turn.
            rest: Token ids after `lengths.num_blocks` blocks; None if the host knows none.
        """
        block_tokens = self._context.block_tokens
        prompt_tokens = lengths.prompt_tokens
        num_rest = lengths.num_tokens - lengths.num_blocks * block_tokens
        end = None if rest is None else array("q", rest)
        self._pasts[turn.session] = _Past(prompt_tokens, lengths.num_blocks, end, num_rest)
        known = turn.known
        if known is None or known.cached_tokens is None:
            return None
        cached_tokens = known.cached_tokens
        ends = known.reasons(prompt_tokens, block_tokens)
        parts = missed_tokens(cached_tokens, prompt_tokens, ends)
        missed: dict[MissReason, int] = {}
        lost_s: dict[MissReason, float] = {}
        for reason, first, num_tokens in parts:
            missed[reason] = missed.get(reason, 0) + num_tokens
            if reason in AVOIDABLE_REASONS:
                cost_s = self._context.costs.prefill_s(num_tokens, first)
                lost_s[reason] = lost_s.get(reason, 0.0) + cost_s
        cache_tokens = self._context.capacity_blocks * block_tokens
        expected_s = self._expected_s(known.eviction)
        attribution = Attribution(
            *(prompt_tokens, cached_tokens, cache_tokens, missed, lost_s, known, expected_s)
        )
        self._keep(turn, attribution, lengths.num_tokens - prompt_tokens)
        return attribution

    def last_of(self, session: Session) -> Sequence[PastTurn]:
        """A session's last turns, oldest first. Pure."""
        return self._last.get(session, ())

    def clear(self) -> None:
        """Forget all blocks and turns, after the host dropped all content. Mutates."""
        self._evictions.clear()
        self._step = None
        self._pasts = self._context.per_session()
        self._marked_tokens = self._context.per_session()
        self._last = self._context.per_session()
        self._num_resets += 1

    # Private.

    def _keep(self, turn: Turn, attribution: Attribution, output_tokens: int) -> None:
        """Keep a turn that ends, while its session still has the pause before it."""
        session = turn.session
        gap_s = max(turn.arrived_s - session.paused_at_s, 0.0) if session.num_turns > 1 else 0.0
        last = self._last.setdefault(session, [])
        last.append(
            PastTurn(
                *(session.num_turns, attribution, output_tokens, gap_s),
                *(turn.waited_s, turn.delayed_by),
            )
        )
        del last[:-_MAX_LAST]

    def _lost(
        self, known: KnownPrompt, depth: int, num_failed: int
    ) -> Sequence[tuple[MissReason, int]]:
        """Why the engine had not all tokens that were seen, in order. Mutates `known`.

        Args:
            known: What was known of the prompt.
            depth: Its blocks that the engine had (count).
            num_failed: Blocks after them that a failed load has lost (count).
        """
        hashes, block_tokens = known.hashes, self._context.block_tokens
        seen = known.seen_tokens // block_tokens
        ends: list[tuple[MissReason, int]] = []
        if num_failed:
            depth += num_failed
            ends.append(("tier_load_failed", depth * block_tokens))
        num_stored = self._context.tier.num_stored(hashes, depth)
        if num_stored:
            depth = min(depth + num_stored, seen)
            ends.append(("offload_declined", depth * block_tokens))
        while depth < seen:
            found = self._eviction_of(hashes, depth)
            if found is None:
                # Not evicted: a turn that waits, runs or was aborted has not computed it.
                ends.append(("not_admitted", known.seen_tokens))
                break
            eviction, end = found
            known.eviction = known.eviction or eviction
            depth = min(end, seen)
            ends.append(("evicted", depth * block_tokens))
        return ends

    def _eviction_of(self, hashes: Sequence[bytes], depth: int) -> tuple[Eviction, int] | None:
        """The eviction that took a path's block, and the depth where it ends; or None.

        The search goes back to the path's start: blocks before it may have been computed again.
        """
        for first in range(depth, -1, -1):
            eviction = self._evictions.get(hashes[first])
            if eviction is None:
                continue
            if not eviction.num_blocks:
                return eviction, len(hashes)
            if first + eviction.num_blocks > depth:
                return eviction, first + eviction.num_blocks
        return None

    def _expected_s(self, eviction: Eviction | None) -> float | None:
        """When the session of evicted blocks was expected back, from then on (s)."""
        idle_s = None if eviction is None else eviction.idle_s
        if eviction is None or idle_s is None or eviction.gap is None:
            return None
        if eviction.expected_gap_s is not None:
            return max(eviction.expected_gap_s - idle_s, 0.0)
        returns = self._context.returns
        return returns.residual_quantile_s(eviction.gap, idle_s, _MEDIAN, speed=eviction.speed)


def _num_repeated(past: _Past, tokens: Sequence[int] | None, first: int) -> int:
    """Tokens after the last turn's blocks that a prompt repeats (count).

    All where token ids are not known.
    """
    if past.rest is None or tokens is None:
        return past.num_rest
    following = tokens[first : first + past.num_rest]
    count = 0
    for ours, theirs in zip(past.rest, following, strict=False):
        if ours != theirs:
            break
        count += 1
    return count
