"""Turns of a workload without their blocks: what capacity is planned by."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Final

import msgspec
import numpy as np

from holdfast.traces.record import Session, common_prefix_length

__all__ = ["COLUMNS", "MAX_TURNS", "TurnSample", "TurnSampleMeter"]

MAX_TURNS: Final = 1_000
"""Turns that a study keeps."""

_MAX_HEAD_BLOCKS: Final = 1 << 20

COLUMNS: Final = (
    *("session", "prompt_tokens", "kept_tokens", "output_tokens"),
    *("gap_ms", "peak_tokens"),
)


class TurnSample(msgspec.Struct, frozen=True, kw_only=True):
    """Turns of all sessions, evenly over their gaps if they are many.

    A column has the values of all turns, in one string and separated by spaces, so that a study
    stays small.

    Attributes:
        num_sessions: Sessions of the workload (count).
        num_turns: Turns of the workload (count).
        shared_head_tokens: Leading tokens of a session's first prompt that another session's first
            prompt had, on average.
        session: Number of each turn's session.
        prompt_tokens: Length of each prompt.
        kept_tokens: Leading tokens that the session's last prompt had too; 0 for first turns.
        output_tokens: Length of each answer, at least 1.
        gap_ms: Time from the last answer to the turn (ms); 0 for first turns.
        peak_tokens: Longest prompt and answer of the turn's session.
    """

    num_sessions: int
    num_turns: int
    shared_head_tokens: float
    session: str
    prompt_tokens: str
    kept_tokens: str
    output_tokens: str
    gap_ms: str
    peak_tokens: str

    def check(self) -> None:
        """Check that each column has a number for each turn.

        Raises:
            ValueError: One has not.
        """
        lengths = {name: len(self.column(name)) for name in COLUMNS}
        if len(set(lengths.values())) != 1:
            raise ValueError(f"turns: columns of {lengths}; expected one length")

    def column(self, name: str) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        """One of `COLUMNS` as numbers. Pure.

        Raises:
            ValueError: It holds something else.
        """
        return np.array(getattr(self, name).split(), dtype=np.float64)


class TurnSampleMeter:
    """Accumulates sessions, or turns that were observed on an engine."""

    def __init__(self) -> None:
        self._columns = {name: array("q") for name in COLUMNS}
        self._num_sessions = 0
        self._heads: set[int] = set()
        self._shared_tokens = 0

    def add(self, session: Session, reading: int = 0) -> None:
        """Add a recorded session; its block ids are comparable within its reading."""
        rows = []
        before: Sequence[int] = ()
        block_tokens = session.block_size_tokens
        for index, turn in enumerate(session.turns):
            num_kept = common_prefix_length(before, turn.block_ids)
            kept = min(num_kept * block_tokens, max(turn.prompt_tokens - 1, 0))
            gap_s = turn.gap_s if index else 0.0
            rows.append((turn.prompt_tokens, kept, turn.output_tokens, gap_s))
            before = turn.block_ids
        head = [hash((reading, block)) for block in session.turns[0].block_ids]
        num_shared = next((i for i, one in enumerate(head) if one not in self._heads), len(head))
        if len(self._heads) < _MAX_HEAD_BLOCKS:
            self._heads.update(head)
        self.add_turns(rows, num_shared * block_tokens)

    def add_turns(
        self, turns: Sequence[tuple[int, int, int, float]], shared_tokens: int = 0
    ) -> None:
        """Add turns of one more session.

        Args:
            turns: Of each the length of its prompt, the leading tokens that the prompt before had,
                the length of the answer, and the gap before it (s).
            shared_tokens: Leading tokens of the first prompt that another session's had (count).
        """
        peak = max((prompt + max(output, 1) for prompt, _, output, _ in turns), default=0)
        for prompt, kept, output, gap_s in turns:
            row = (self._num_sessions, prompt, kept, max(output, 1), round(gap_s * 1e3), peak)
            for name, value in zip(COLUMNS, row, strict=True):
                self._columns[name].append(value)
        self._num_sessions += 1
        self._shared_tokens += shared_tokens

    def result(self, most: int | None = None) -> TurnSample:
        """The turns added so far, at most so many of them."""
        columns = {name: np.array(values) for name, values in self._columns.items()}
        num_turns = len(columns["session"])
        if most is not None and num_turns > most:
            order = np.lexsort((columns["prompt_tokens"], columns["gap_ms"]))
            chosen = np.sort(order[np.linspace(0, num_turns - 1, most).astype(int)])
            columns = {name: values[chosen] for name, values in columns.items()}
        return TurnSample(
            num_sessions=self._num_sessions,
            num_turns=num_turns,
            shared_head_tokens=self._shared_tokens / max(self._num_sessions, 1),
            **{name: " ".join(map(str, values)) for name, values in columns.items()},
        )
