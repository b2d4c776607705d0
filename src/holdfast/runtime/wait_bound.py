"""The wait bound: how long others may pass a turn, by work ahead or by an SLO."""

from __future__ import annotations

import math
from dataclasses import dataclass

from holdfast.core.tenants import Tenant
from holdfast.core.turn import Turn

__all__ = ["WaitBound"]

_HALF_DONE = 0.5  # of a running turn's work, on average


@dataclass(slots=True)
class _Ahead:
    """Turns of a tenant in the engine: how many, and their engine time (s)."""

    num_turns: int = 0
    cold_s: float = 0.0


class WaitBound:
    """Adds up the engine time of all turns in the engine, with all prompts computed.

    By tenant only the turn's own tenant counts, at its part of the engine: turns of a flood are due
    late, and those of others as if the flood were as short as they are. With one tenant, or several
    that send alike, the two are the same.

    Args:
        max_wait_ratio: Longest wait of a turn before no turn may pass it, in units of the engine
            time of all that it found ahead of it (> 0). 1 is about what it would have waited first
            come, first served, with a cache that thrashes.
        ttft_target_s: Time to first token that the slowest turns should not exceed (s, > 0); a turn
            is due early enough to compute its whole prompt within it. None for none.
        by_tenant: Whether a turn waits for its tenant's turns only.
    """

    def __init__(
        self,
        max_wait_ratio: float,
        ttft_target_s: float | None = None,
        *,
        by_tenant: bool = False,
    ) -> None:
        self._by_tenant: dict[Tenant, _Ahead] | None = {} if by_tenant else None
        self._max_wait_ratio = max_wait_ratio
        self._ttft_target_s = math.inf if ttft_target_s is None else ttft_target_s
        self._cold_s = 0.0

    def enter(self, turn: Turn, cold_s: float) -> None:
        """Add a turn that has arrived, and bound its wait. Mutates it.

        Args:
            turn: The turn.
            cold_s: Engine time of the turn, its whole prompt computed (s).
        """
        turn.cold_s = turn.outstanding_s = cold_s
        self._cold_s += cold_s
        longest_s = max(self._ttft_target_s - cold_s, 0.0)
        ahead_s = self._ahead_s(turn.tenant, cold_s)
        turn.due_s = turn.arrived_s + min(self._max_wait_ratio * ahead_s, longest_s)

    def start(self, turn: Turn) -> None:
        """Count half of a turn that runs. Mutates it."""
        self._count(turn, _HALF_DONE * turn.cold_s)

    def preempt(self, turn: Turn) -> None:
        """Count a turn in full that waits again. Mutates it."""
        self._count(turn, turn.cold_s)

    def leave(self, turn: Turn) -> None:
        """Remove a turn that has ended. Mutates it."""
        self._count(turn, 0.0)
        if self._by_tenant is not None and (ahead := self._by_tenant.get(turn.tenant)):
            ahead.num_turns -= 1
            if ahead.num_turns <= 0:
                del self._by_tenant[turn.tenant]

    def clear(self) -> None:
        """Remove all turns. Mutates."""
        self._cold_s = 0.0
        if self._by_tenant is not None:
            self._by_tenant.clear()

    def _ahead_s(self, tenant: Tenant, cold_s: float) -> float:
        """Engine time of what a new turn finds ahead of it, itself included (s)."""
        if self._by_tenant is None:
            return self._cold_s
        ahead = self._by_tenant.setdefault(tenant, _Ahead())
        ahead.num_turns += 1
        ahead.cold_s += cold_s
        weights = sum(other.weight for other in self._by_tenant)
        return ahead.cold_s * weights / tenant.weight

    def _count(self, turn: Turn, outstanding_s: float) -> None:
        if self._by_tenant is not None and (ahead := self._by_tenant.get(turn.tenant)):
            ahead.cold_s += outstanding_s - turn.outstanding_s
        self._cold_s += outstanding_s - turn.outstanding_s
        turn.outstanding_s = outstanding_s
