"""A join: the wait of an agent for the sub-agents that one of its turns called."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["Join"]

_MAX_CHILDREN = 1024


@dataclass(slots=True, eq=False)
class Join:
    """One agent's wait; it lasts as long as the agent's pause.

    All counts follow from which sub-agents run and which have ended, so none can be negative.

    Attributes:
        began_s: When the agent's turn ended (s, host's clock).
        num_called: Sub-agents that the turn called, as its answer tells (count).
        ended_s: When a sub-agent last ended (s, host's clock); None before the first.
        active_s: When one last sent a turn, or ended, or one of their own did (s, host's clock).
        is_trusted: Whether such pauses have lasted until all sub-agents had ended.
    """

    began_s: float
    num_called: int = 0
    ended_s: float | None = None
    active_s: float = 0.0
    is_trusted: bool = True
    _running: dict[int, float] = field(default_factory=dict)
    _ended: set[int] = field(default_factory=set)

    def enter(self, number: int, began_s: float) -> None:
        """Add a sub-agent that runs, or runs again; beyond a limit it is ignored. Mutates.

        Args:
            number: The number of its session.
            began_s: When it began (s, host's clock).
        """
        if len(self._running) + len(self._ended) < _MAX_CHILDREN or number in self._ended:
            self._ended.discard(number)
            self._running.setdefault(number, began_s)

    def leave(self, number: int, now_s: float) -> bool:
        """Note that a sub-agent has ended; false if it did not run. Mutates."""
        if self._running.pop(number, None) is None:
            return False
        self._ended.add(number)
        self.ended_s = self.active_s = now_s
        return True

    def __contains__(self, number: int) -> bool:
        """Whether a session is one of the sub-agents, running or ended."""
        return number in self._running or number in self._ended

    @property
    def num_running(self) -> int:
        """Sub-agents that have begun and not ended (count)."""
        return len(self._running)

    @property
    def num_sub_agents(self) -> int:
        """Sub-agents called, or seen if those are more (count)."""
        return max(self.num_called, len(self._running) + len(self._ended))

    @property
    def num_awaited(self) -> int:
        """Sub-agents that have not ended, of `num_sub_agents` (count)."""
        return self.num_sub_agents - len(self._ended)

    @property
    def is_over(self) -> bool:
        """Whether sub-agents were seen and all have ended: the agent is about to return."""
        return bool(self._ended) and not self.num_awaited

    def running_since_s(self) -> tuple[float, float]:
        """When the first and the last of the awaited began (s). Pure.

        One that was not seen yet counts from the call.
        """
        began_s = list(self._running.values())
        if self.num_awaited > len(began_s):
            began_s.append(self.began_s)
        return min(began_s), max(began_s)
