"""Sessions as steps: blocks that each prompt keeps and adds, by last sender.

A step holds only the blocks that a prompt adds, so many sessions fit in memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from holdfast.traces.lineage import PrefixInterner
from holdfast.traces.record import Session, Turn, common_prefix_length

__all__ = ["Blocks", "Step", "SteppedSession", "Stepper", "leading", "reach"]

Blocks = NDArray[np.int64]
"""Numbers of blocks, from 0; equal number = equal prefix up to and including that block."""

_NO_SENDER = -1


@dataclass(frozen=True, slots=True)
class Step:
    """One turn.

    Attributes:
        turn: The recorded turn, without its blocks.
        num_kept: Leading blocks shared with the session's previous prompt.
        added: The blocks after them.
        num_own: Leading blocks that any earlier prompt of the session has, >= `num_kept`.
        num_family: Reused blocks after those that its parent, its sub-agents or theirs sent last.
        num_foreign: Reused blocks after those that another family sent last.
    """

    turn: Turn
    num_kept: int
    added: Blocks
    num_own: int
    num_family: int
    num_foreign: int

    @property
    def num_blocks(self) -> int:
        """Number of full blocks of the prompt."""
        return self.num_kept + len(self.added)

    def after(self, path: Blocks) -> Blocks:
        """The prompt's blocks, given those of the previous prompt. Pure."""
        return np.concatenate((path[: self.num_kept], self.added))


@dataclass(frozen=True, slots=True)
class SteppedSession:
    """A session's steps and its relation to other sessions.

    Attributes:
        index: Number of the session in the study, from 0.
        family: Equal for a main agent and all its sub-agents.
        parent: The session that called this one; None for main agents and where unknown.
        parent_turn: Index of the parent's turn with the call, where known.
        block_tokens: Tokens in each block.
        start_s: Recorded arrival; None without one.
        agent: Type of the agent; "" where unknown.
        steps: At least one.
    """

    index: int
    family: int
    parent: int | None
    parent_turn: int | None
    block_tokens: int
    start_s: float | None
    agent: str
    steps: tuple[Step, ...]

    def paths(self) -> Iterator[Blocks]:
        """Yield the blocks of each prompt, in order."""
        path = np.empty(0, dtype=np.int64)
        for step in self.steps:
            path = step.after(path)
            yield path


class Stepper:
    """Turns sessions into steps; remembers the last sender of each block.

    Blocks of different readings are never equal, even with equal ids.
    """

    def __init__(self) -> None:
        self._interner = PrefixInterner()
        self._last_sender = np.full(1, _NO_SENDER, dtype=np.int64)
        self._family_of = np.empty(1, dtype=np.int64)
        self._index_of: dict[tuple[int, str], int] = {}
        self._num_sessions = 0

    def follow(self, session: Session, reading: int = 0) -> SteppedSession:
        """Return the steps of the next session of a reading (>= 0); remembers its blocks."""
        index = self._num_sessions
        self._num_sessions += 1
        parent = self._index_of.get((reading, session.parent_id or ""))
        family = index if parent is None else int(self._family_of[parent])
        self._family_of = reach(self._family_of, index + 1, _NO_SENDER)
        self._family_of[index] = family
        self._index_of[reading, session.session_id] = index
        return SteppedSession(
            index=index,
            family=family,
            parent=parent,
            parent_turn=session.parent_turn,
            block_tokens=session.block_size_tokens,
            start_s=session.start_s,
            agent=session.agent,
            steps=tuple(self._steps(session, index, reading)),
        )

    def _steps(self, session: Session, index: int, reading: int) -> Iterator[Step]:
        trail = self._interner.trail(reading)
        before: tuple[int, ...] = ()
        path = np.empty(0, dtype=np.int64)
        for turn in session.turns:
            ids = trail.extend(turn.block_ids)
            num_kept = common_prefix_length(ids, before)
            added = np.array(ids[num_kept:], dtype=np.int64)
            path = np.concatenate((path[:num_kept], added))
            self._last_sender = reach(self._last_sender, self._interner.next_id, _NO_SENDER)
            senders = self._last_sender[path]
            num_own = leading(senders == index)
            others = senders[num_own:]
            others = others[: leading(others != _NO_SENDER)]
            num_family = int(np.count_nonzero(self._family_of[others] == self._family_of[index]))
            self._last_sender[path[num_own:]] = index
            bare = replace(turn, block_ids=())
            yield Step(bare, num_kept, added, num_own, num_family, len(others) - num_family)
            before = ids


def leading(flags: NDArray[np.bool_]) -> int:
    """Count the set flags before the first unset one; pure."""
    return int(np.argmin(flags)) if not flags.all() else len(flags)


def reach(values: NDArray[np.int64], size: int, fill: int) -> NDArray[np.int64]:
    """Return `values`, or a copy padded with `fill` to at least `size`."""
    if len(values) >= size:
        return values
    grown = np.full(max(size, 2 * len(values)), fill, dtype=np.int64)
    grown[: len(values)] = values
    return grown
