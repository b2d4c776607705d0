"""Counts the tokens of each prompt that are new to its session or to the run."""

from __future__ import annotations

from typing import Final

from holdfast.traces.record import Session, common_prefix_length

__all__ = ["NewTokens", "kept_blocks"]

# Sessions rarely return to older branches (99 % within 26 turns in recorded ones).
_LOOK_BACK_TURNS: Final = 32


def kept_blocks(session: Session, turn_index: int) -> int:
    """Count leading blocks that an earlier prompt of the session has; pure."""
    turns = session.turns
    ids = turns[turn_index].block_ids
    earlier = turns[max(0, turn_index - _LOOK_BACK_TURNS) : turn_index]
    return max((common_prefix_length(ids, turn.block_ids) for turn in earlier), default=0)


class NewTokens:
    """Counts leading blocks of prompts that any session of a run sent before."""

    def __init__(self) -> None:
        self._sent: set[int] = set()

    def note_sent(self, session: Session, turn_index: int) -> int:
        """Remember the prompt's blocks; return how many leading ones were sent before.

        A sent block implies sent predecessors, so a bisection finds the first new one.
        """
        ids = session.turns[turn_index].block_ids
        low, high = 0, len(ids)
        while low < high:
            middle = (low + high) // 2
            if ids[middle] in self._sent:
                low = middle + 1
            else:
                high = middle
        self._sent.update(ids[low:])
        return low
