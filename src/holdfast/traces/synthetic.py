"""Generated sessions that behave like recorded Claude Code ones, for when no trace is at hand.

Every quantity is drawn from the percentiles in `claude_code_tables`. Sessions share system prompts
and tool schemas as the recorded ones do. Left out: sessions that resume another's whole context.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, islice
from typing import TypeVar

import numpy as np

from holdfast.errors import ConfigError
from holdfast.traces import claude_code_tables as tables
from holdfast.traces.record import EndedBy, Session, Trigger, Turn

__all__ = ["BLOCK_SIZE_TOKENS", "generate_sessions", "iterate_sessions"]

BLOCK_SIZE_TOKENS = 64
# Where the tables change from short to long sessions, and from early to late turns.
_SHORT_SESSION_TURNS = 10
_LONG_FIRST_PROMPT_TURNS = 30
_LATE_TURN = 5
# Part of a system prompt that the variants of one client version have in common.
_FAMILY_RATIO = 0.3
# The smallest prompt recorded, rounded.
_MIN_PROMPT_TOKENS = 3_300
_Key = TypeVar("_Key", bound=str)


def generate_sessions(num_sessions: int, seed: int) -> tuple[Session, ...]:
    """Generate sessions; equal arguments give equal sessions, and more add to the same ones.

    Raises:
        ConfigError: `num_sessions` is below 1.
    """
    if num_sessions < 1:
        raise ConfigError(f"number of sessions is {num_sessions!r}; expected at least 1")
    return tuple(islice(iterate_sessions(seed), num_sessions))


def iterate_sessions(seed: int) -> Iterator[Session]:
    """Generate sessions without end; block ids are unique across them except for shared heads."""
    rng = random.Random(seed)
    block_ids = count()
    heads = _heads(rng, block_ids)
    weights = [weight for family in tables.HEAD_WEIGHTS for weight in family]
    for index in count():
        (head,) = rng.choices(heads, weights)
        yield _SessionWriter(rng, block_ids, head).write(index, seed)


def _heads(rng: random.Random, block_ids: Iterator[int]) -> list[tuple[int, ...]]:
    heads: list[tuple[int, ...]] = []
    for family in tables.HEAD_WEIGHTS:
        sizes = [int(_draw(rng, tables.HEAD_TOKENS)) // BLOCK_SIZE_TOKENS for _ in family]
        common = tuple(islice(block_ids, int(min(sizes) * _FAMILY_RATIO)))
        heads.extend(common + tuple(islice(block_ids, size - len(common))) for size in sizes)
    return heads


@dataclass(slots=True)
class _Context:
    """A prompt: its length and its full blocks."""

    num_tokens: int
    blocks: tuple[int, ...]


class _SessionWriter:
    """Writes one session turn by turn."""

    def __init__(self, rng: random.Random, block_ids: Iterator[int], head: tuple[int, ...]) -> None:
        self._rng = rng
        self._block_ids = block_ids
        self._num_turns = max(1, round(_draw(rng, tables.NUM_TURNS)))
        is_short = self._num_turns < _SHORT_SESSION_TURNS
        self._user_ratio = _draw(
            rng, tables.SHORT_USER_RATIO if is_short else tables.LONG_USER_RATIO
        )
        self._break_ratio = _draw(
            rng, tables.SHORT_BREAK_RATIO if is_short else tables.LONG_BREAK_RATIO
        )
        # Sessions that end early never meet their limit, so it is drawn from those that went far.
        self._limit_tokens = int(_quantile(tables.PEAK_PROMPT_TOKENS, rng.uniform(60, 100)))
        self._head = head

    def write(self, index: int, seed: int) -> Session:
        is_long = self._num_turns >= _LONG_FIRST_PROMPT_TURNS
        first_tokens = round(
            _draw(
                self._rng,
                tables.LONG_FIRST_PROMPT_TOKENS if is_long else tables.SHORT_FIRST_PROMPT_TOKENS,
            )
        )
        contexts = [self._extended(_Context(0, ()), first_tokens, self._head)]
        triggers: list[Trigger] = ["user"]
        for _ in range(self._num_turns - 1):
            trigger: Trigger = "user" if self._rng.random() < self._user_ratio else "tool_result"
            contexts.append(self._next_context(contexts, trigger))
            triggers.append(trigger)
        turns = tuple(
            self._turn(context, trigger, following, is_first=position == 0)
            for position, (context, trigger, following) in enumerate(
                zip(contexts, triggers, [*triggers[1:], None], strict=True)
            )
        )
        return Session(
            f"synthetic-{seed}-{index:04d}", BLOCK_SIZE_TOKENS, turns, f"synthetic:{seed}"
        )

    def _turn(
        self, context: _Context, trigger: Trigger, following: Trigger | None, *, is_first: bool
    ) -> Turn:
        after_user = trigger == "user"
        gap_s = _draw(self._rng, tables.HUMAN_GAP_S if after_user else tables.TOOL_GAP_S)
        output_tokens = _draw(
            self._rng,
            tables.OUTPUT_AFTER_USER_TOKENS if after_user else tables.OUTPUT_AFTER_TOOL_TOKENS,
        )
        return Turn(
            gap_s=0.0 if is_first else round(gap_s, 2),
            prompt_tokens=context.num_tokens,
            output_tokens=round(output_tokens),
            block_ids=context.blocks,
            trigger=trigger,
            ended_by=self._ended_by(following),
        )

    def _ended_by(self, following: Trigger | None) -> EndedBy:
        if following is None:
            return _choose(self._rng, tables.LAST_ENDED_BY_WEIGHTS)
        return _choose(self._rng, tables.ENDED_BY_WEIGHTS[following])

    def _next_context(self, contexts: Sequence[_Context], trigger: Trigger) -> _Context:
        last = contexts[-1]
        growth = round(_draw(self._rng, _growth_table(trigger, len(contexts))))
        kind = "extend"
        if self._rng.random() < self._break_ratio:
            kind = _choose(self._rng, tables.BREAK_WEIGHTS)
        if kind == "return":
            distance = round(_draw(self._rng, tables.RETURN_DISTANCE_TURNS))
            if distance <= len(contexts) and contexts[-distance].num_tokens < self._limit_tokens:
                return self._extended(contexts[-distance], growth)
            kind = "side"
        if kind == "extend" and last.num_tokens + growth > self._limit_tokens:
            kind = "compact"
        if kind == "compact":
            return self._replaced(last, tables.COMPACT_KEPT_RATIO, tables.COMPACT_SIZE_RATIO)
        if kind == "side":
            return self._replaced(last, tables.SIDE_KEPT_RATIO, tables.SIDE_SIZE_RATIO)
        return self._extended(last, growth)

    def _replaced(
        self, last: _Context, kept_table: Sequence[float], size_table: Sequence[float]
    ) -> _Context:
        size = round(last.num_tokens * _draw(self._rng, size_table))
        size = max(_MIN_PROMPT_TOKENS, min(self._limit_tokens, size))
        kept = int(len(last.blocks) * _draw(self._rng, kept_table))
        blocks = last.blocks[: min(kept, size // BLOCK_SIZE_TOKENS)]
        base = _Context(len(blocks) * BLOCK_SIZE_TOKENS, blocks)
        return self._extended(base, size - base.num_tokens)

    def _extended(
        self, context: _Context, num_tokens: int, opening: tuple[int, ...] = ()
    ) -> _Context:
        total_tokens = context.num_tokens + num_tokens
        num_blocks = total_tokens // BLOCK_SIZE_TOKENS
        known = (context.blocks + opening)[:num_blocks]
        fresh = tuple(islice(self._block_ids, num_blocks - len(known)))
        return _Context(total_tokens, known + fresh)


def _growth_table(trigger: Trigger, turn_index: int) -> Sequence[float]:
    if trigger == "user":
        return tables.GROWTH_AFTER_USER_TOKENS
    if turn_index < _LATE_TURN:
        return tables.EARLY_GROWTH_AFTER_TOOL_TOKENS
    return tables.LATE_GROWTH_AFTER_TOOL_TOKENS


def _choose(rng: random.Random, weights: Mapping[_Key, int]) -> _Key:
    (chosen,) = rng.choices(list(weights), list(weights.values()))
    return chosen


def _draw(rng: random.Random, table: Sequence[float]) -> float:
    return _quantile(table, rng.uniform(0.0, 100.0))


def _quantile(table: Sequence[float], percent: float) -> float:
    """Value at a percentile, linear between the table's entries and flat beyond the last."""
    return float(np.interp(percent, tables.PERCENTS, table))
