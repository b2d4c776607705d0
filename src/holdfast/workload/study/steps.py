"""Sessions turn by turn: what each prompt keeps, what it adds, and who had sent it before.

A step holds only the blocks that a prompt adds, so that many sessions can be held at once.
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

_NOBODY = -1


@dataclass(frozen=True, slots=True)
class Step:
    """One turn.

    Attributes:
        turn: As recorded, without its blocks.
        num_kept: Leading blocks that the session's previous prompt has as well.
        added: The blocks behind them.
        num_own: Leading blocks that any earlier prompt of the session has, >= `num_kept`.
        num_family: Of the blocks behind those, the ones last sent by its parent, its sub-agents or
            theirs.
        num_foreign: Of the blocks behind those, the ones last sent by somebody else.
    """

    turn: Turn
    num_kept: int
    added: Blocks
    num_own: int
    num_family: int
    num_foreign: int

    @property
    def num_blocks(self) -> int:
        """Full blocks of the prompt."""
        return self.num_kept + len(self.added)

    def after(self, path: Blocks) -> Blocks:
        """The prompt's blocks, from those of the previous prompt. Pure."""
        return np.concatenate((path[: self.num_kept], self.added))


@dataclass(frozen=True, slots=True)
class SteppedSession:
    """A session's steps, with its place among the others.

    Attributes:
        index: Counts the sessions of a study.
        family: Equal for a main agent and all sub-agents under it.
        parent: The session that called this one; None for main agents, and where not known.
        parent_turn: Index of the parent's turn that did, where known.
        block_tokens: Tokens in each block.
        start_s: Recorded arrival, where there is one.
        agent: Type of the agent; "" where not known.
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
        """The blocks of each prompt, in order."""
        path = np.empty(0, dtype=np.int64)
        for step in self.steps:
            path = step.after(path)
            yield path


class Stepper:
    """Takes sessions one after the other; remembers which blocks were sent, and who sent them last.

    Blocks of different readings never count as equal, whatever their ids.
    """

    def __init__(self) -> None:
        self._interner = PrefixInterner()
        self._last_sender = np.full(1, _NOBODY, dtype=np.int64)
        self._family_of = np.empty(1, dtype=np.int64)
        self._index_of: dict[tuple[int, str], int] = {}
        self._num_sessions = 0

    def follow(self, session: Session, reading: int = 0) -> SteppedSession:
        """Take the next session of a reading (>= 0); remembers its blocks."""
        index = self._num_sessions
        self._num_sessions += 1
        parent = self._index_of.get((reading, session.parent_id or ""))
        family = index if parent is None else int(self._family_of[parent])
        self._family_of = reach(self._family_of, index + 1, _NOBODY)
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
            chain = trail.extend(turn.block_ids)
            num_kept = common_prefix_length(chain, before)
            added = np.array(chain[num_kept:], dtype=np.int64)
            path = np.concatenate((path[:num_kept], added))
            self._last_sender = reach(self._last_sender, self._interner.next_id, _NOBODY)
            senders = self._last_sender[path]
            num_own = leading(senders == index)
            others = senders[num_own:]
            others = others[: leading(others != _NOBODY)]
            num_family = int(np.count_nonzero(self._family_of[others] == self._family_of[index]))
            self._last_sender[path[num_own:]] = index
            bare = replace(turn, block_ids=())
            yield Step(bare, num_kept, added, num_own, num_family, len(others) - num_family)
            before = chain


def leading(flags: NDArray[np.bool_]) -> int:
    """How many flags are set before the first that is not; pure."""
    return int(np.argmin(flags)) if not flags.all() else len(flags)


def reach(values: NDArray[np.int64], size: int, fill: int) -> NDArray[np.int64]:
    """`values`, or a longer copy when there are fewer than `size`, filled up with `fill`."""
    if len(values) >= size:
        return values
    grown = np.full(max(size, 2 * len(values)), fill, dtype=np.int64)
    grown[: len(values)] = values
    return grown
