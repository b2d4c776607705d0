"""The last admission decision: why the turns that wait were not admitted."""

from __future__ import annotations

from holdfast.core.start_delay import StartDelay, order_reason
from holdfast.core.turn import Turn
from holdfast.policies.admission import Admission

__all__ = ["LastAdmission"]


class LastAdmission:
    """Remembers one decision; answers are as of then. Not thread-safe."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget it. Mutates."""
        self._now_s = 0.0
        self._blocks = 0
        self._is_full = False
        self._admitted: frozenset[Turn] = frozenset()
        self._lacking: dict[Turn, None] = {}

    def note(self, admission: Admission, now_s: float, blocks: int, slots: int) -> None:
        """Take in a decision, and tell admitted turns what they waited for. Mutates.

        Args:
            admission: What was decided.
            now_s: When (s, host's clock).
            blocks: Free blocks without a reservation (count; may be negative).
            slots: Turns that could still start (count).
        """
        for turn in admission.admitted:
            if turn.arrived_s < self._now_s and turn not in self._admitted:
                turn.delayed_by = self.delay_of(turn).reason
        self._now_s, self._blocks = now_s, max(blocks, 0)
        self._admitted = frozenset(admission.admitted)
        self._lacking = dict.fromkeys(admission.lacking)
        self._is_full = len(admission.admitted) >= slots

    def note_full(self, now_s: float) -> None:
        """Take in that nothing was decided, as the engine runs all that it may. Mutates."""
        self._now_s, self._is_full = now_s, True
        self._admitted, self._lacking = frozenset(), {}

    def delay_of(self, turn: Turn) -> StartDelay:
        """Why a turn of the engine has not started. Pure.

        A turn that no decision has seen is as good as admitted.
        """
        if turn in self._lacking:
            return StartDelay("blocks", turn.demand_blocks, self._blocks)
        if turn in self._admitted:
            return StartDelay("admitted")
        if turn.is_loading:
            return StartDelay("prefetch", turn.demand_blocks, self._blocks)
        if self._is_full:
            return StartDelay("slots")
        first = self._first
        if first is None or turn.arrived_s > self._now_s:
            return StartDelay("admitted")
        reason = order_reason(turn, first, self._now_s)
        return StartDelay(reason, turn.demand_blocks, self._blocks, first.session.number)

    @property
    def _first(self) -> Turn | None:
        """The turn that later ones do not pass: one that is due, else the first cold one."""
        due = next((turn for turn in self._lacking if turn.is_due(self._now_s)), None)
        cold = next((turn for turn in self._lacking if not turn.is_warm), None)
        return due or cold or next(iter(self._lacking), None)
