"""When sessions' tools start and have finished, as an application says it."""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heappop, heappush

from holdfast.core.commands import ToolFinished, ToolStarted
from holdfast.traces.record import Turn

__all__ = ["ToolEvents"]


class ToolEvents:
    """What a client with the SDK tells the engine about its tools.

    It knows that a tool runs when the answer with the call has ended, and the tool's result when
    the recording has it, at the latest when the next turn is sent. Tools in the background are not
    told. A turn whose tool is known by name only counts as one tool.

    Args:
        time_scale: Simulated seconds per recorded second.
    """

    def __init__(self, time_scale: float = 1.0) -> None:
        self._time_scale = time_scale
        self._running: dict[str, int] = {}  # by session, the number of its pause
        self._ends: list[tuple[float, int, str]] = []
        self._num_pauses = 0

    @property
    def next_s(self) -> float:
        """When the next tools have finished (s, simulated clock); inf if unknown."""
        return self._ends[0][0] if self._ends else float("inf")

    def paused(self, session_id: str, turn: Turn, now_s: float) -> Iterator[ToolStarted]:
        """Yield what is told at the end of a turn. Mutates.

        Args:
            session_id: The session.
            turn: The turn; another one of the session follows.
            now_s: When its answer has ended (s, simulated clock).
        """
        spans = [span for span in turn.tools if not span.is_background]
        names = [span.name for span in spans]
        if not turn.tools and turn.ended_by == "tool" and turn.tool_name:
            names = [turn.tool_name]
        if not names:
            return
        self._num_pauses += 1
        self._running[session_id] = self._num_pauses
        ends_s = [span.end_s for span in spans if span.end_s is not None]
        if spans and len(ends_s) == len(spans):
            end_s = now_s + self._time_scale * max(ends_s)
            heappush(self._ends, (end_s, self._num_pauses, session_id))
        for name in names:
            yield ToolStarted(tenant="", session_id=session_id, tool=name)

    def finished(self, now_s: float) -> Iterator[ToolFinished]:
        """Yield what is told of tools that have finished by now (s). Mutates."""
        while self._ends and self._ends[0][0] <= now_s:
            _, number, session_id = heappop(self._ends)
            if self._running.get(session_id) == number:
                yield from self.returned(session_id)

    def returned(self, session_id: str) -> Iterator[ToolFinished]:
        """Yield what is told before a session's next turn. Mutates."""
        if self._running.pop(session_id, None) is not None:
            yield ToolFinished(tenant="", session_id=session_id)
