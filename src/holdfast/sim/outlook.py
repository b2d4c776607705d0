"""The future of a run, read from its sessions; for policies that are bounds."""

from __future__ import annotations

import math
from collections.abc import Sequence

from holdfast.traces.record import Session

__all__ = ["TraceOutlook", "request_id"]


def request_id(session_index: int, turn_index: int) -> str:
    """The id of a turn's request in a run."""
    return f"{session_index}-{turn_index}"


class TraceOutlook:
    """True gaps after each turn, scaled as they are replayed."""

    def __init__(self, sessions: Sequence[Session], time_scale: float) -> None:
        self._gaps_s: dict[str, float] = {}
        for number, session in enumerate(sessions):
            for index, turn in enumerate(session.turns[1:]):
                self._gaps_s[request_id(number, index)] = turn.gap_s * time_scale

    def gap_after_s(self, request_id: str) -> float:
        """Time from a turn's end to its session's next request (s; inf after the last)."""
        return self._gaps_s.get(request_id, math.inf)
