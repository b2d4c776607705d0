"""The oracle of a simulated run: its future, read from its sessions."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from holdfast.sim.blocks import BlockGrid
from holdfast.traces.record import Session

__all__ = ["TraceOracle", "request_id"]


def request_id(session_index: int, turn_index: int) -> str:
    """Return the request id of a turn in a run."""
    return f"{session_index}-{turn_index}"


class TraceOracle:
    """Knows the true gap and prompts after each turn, scaled as in the run.

    Args:
        sessions: The run's sessions, in the order of their numbers.
        grids: The block grid of each session.
        time_scale: Simulated seconds per recorded second of a gap.
    """

    def __init__(
        self, sessions: Sequence[Session], grids: Sequence[BlockGrid], time_scale: float
    ) -> None:
        self._sessions = sessions
        self._grids = grids
        self._gaps_s: dict[str, float] = {}
        self._positions: dict[str, tuple[int, int]] = {}
        for number, session in enumerate(sessions):
            for index, turn in enumerate(session.turns):
                self._positions[request_id(number, index)] = number, index
                if index:
                    self._gaps_s[request_id(number, index - 1)] = turn.gap_s * time_scale

    def gap_after_s(self, request_id: str) -> float:
        """Time from a turn's end to its session's next request (s; inf after the last)."""
        return self._gaps_s.get(request_id, math.inf)

    def session_id_of(self, request_id: str) -> str:
        """The session id of a turn's request."""
        number, _ = self._positions[request_id]
        return self._sessions[number].session_id

    def prompts_after(self, request_id: str) -> Iterator[Sequence[bytes]]:
        """Yield the prefix hashes of each later turn of the session."""
        number, index = self._positions[request_id]
        turns = self._sessions[number].turns
        return (self._grids[number].keys(turns[i]) for i in range(index + 1, len(turns)))
