"""Numbered replays of a run's sessions, as an engine sees them."""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.sim.blocks import BlockGrid
from holdfast.traces.record import Session, Turn

__all__ = ["Replays", "request_id"]


def request_id(number: int, turn_index: int) -> str:
    """Return the request id of a replay's turn."""
    return f"{number}-{turn_index}"


class Replays:
    """Maps numbers to replays: n replays session n modulo the number of sessions.

    A session that is replayed again shares no block with its earlier replay.

    Args:
        sessions: The run's sessions.
        token_scale: Replayed tokens per recorded token.
        engine_block_tokens: Tokens in a block of the engine.
        output_scale: Further factor on the length of answers.
        roots: For each session the index of the session whose agent tree it belongs to; None where
            each is its own.
        is_isolated: Whether trees share no blocks with each other.

    Attributes:
        sessions: The run's sessions.

    Raises:
        ConfigError: The token scale does not fit the blocks.
    """

    def __init__(
        self,
        sessions: Sequence[Session],
        token_scale: float,
        engine_block_tokens: int,
        *,
        output_scale: float = 1.0,
        roots: Sequence[int] | None = None,
        is_isolated: bool = False,
    ) -> None:
        self.sessions = sessions
        self._grids = [BlockGrid.of(each, token_scale, engine_block_tokens) for each in sessions]
        self._output_scale = output_scale
        self._roots = range(len(sessions)) if roots is None else roots
        self._is_isolated = is_isolated

    def session(self, number: int) -> Session:
        """The session of a replay."""
        return self.sessions[number % len(self.sessions)]

    def session_id(self, number: int) -> str:
        """The id of a replay: its session's, with the round from the second one on."""
        replayed, index = divmod(number, len(self.sessions))
        session_id = self.sessions[index].session_id
        return f"{session_id}@{replayed + 1}" if replayed else session_id

    def workflow_id(self, number: int) -> str:
        """The id of the workflow that a replay is a part of: its tree's root's."""
        index = number % len(self.sessions)
        return self.session_id(number - index + self._roots[index])

    def turn(self, number: int, turn_index: int) -> Turn:
        """A turn of a replay."""
        return self.session(number).turns[turn_index]

    def salt(self, number: int) -> bytes:
        """What the block keys of a replay end with; equal for replays that share blocks."""
        replayed, index = divmod(number, len(self.sessions))
        if self._is_isolated:
            return (replayed * len(self.sessions) + self._roots[index]).to_bytes(4, "big")
        return replayed.to_bytes(4, "big") if replayed else b""

    def keys(self, number: int, turn_index: int) -> list[bytes]:
        """The block keys of a turn's prompt."""
        return self._grid(number).keys(self.turn(number, turn_index), self.salt(number))

    def block_tokens(self, number: int) -> int:
        """Replayed tokens per block of the trace."""
        return self._grid(number).scale.block_tokens

    def prompt_tokens(self, number: int, turn_index: int) -> int:
        """Length of a turn's prompt, >= 1."""
        return self._grid(number).scale.prompt_tokens(self.turn(number, turn_index))

    def output_tokens(self, number: int, turn_index: int) -> int:
        """Length of a turn's answer, >= 1."""
        scaled = self._grid(number).scale.output_tokens(self.turn(number, turn_index))
        return max(1, round(scaled * self._output_scale))

    def peak_tokens(self, number: int) -> int:
        """Largest prompt plus answer of a replay."""
        turns = range(len(self.session(number).turns))
        return max(self.prompt_tokens(number, i) + self.output_tokens(number, i) for i in turns)

    def _grid(self, number: int) -> BlockGrid:
        return self._grids[number % len(self._grids)]
