"""One turn of a session, as admission sees it: age, prompt and demand for blocks."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from holdfast.core.lineage import LineageReason
from holdfast.core.miss import Attribution, KnownPrompt
from holdfast.core.session import Session
from holdfast.core.tenants import Tenant

__all__ = ["Turn"]


@dataclass(slots=True, eq=False)
class Turn:
    """One turn in the engine, waiting or running.

    Attributes:
        request_id: The engine's id.
        session: The session that it continues.
        priority: The user's explicit priority, lower first.
        sequence: Order of arrival.
        tenant: The fairness domain of the request.
        arrived_s: When it arrived (s, host's clock).
        due_s: When its wait bound ends (s, host's clock); nothing is admitted before a due turn.
        cold_s: Engine time of the turn if its whole prompt is computed (s).
        outstanding_s: What is left of that for later turns to wait for (s).
        because: How its session was found, or why it is new; see `LineageReason`.
        known: What was known of its prompt when it arrived; None where misses are not attributed.
        attribution: Why tokens of its prompt were missing; None until it ends.
        waited_s: Time from its arrival to its first start (s); 0 before.
        delayed_by: What it waited for last before it was admitted, see `DelayReason`; "" if the
            first decision admitted it.
        was_running: Whether the engine has preempted it.
        is_loading: Whether a prefetch of blocks of the prompt is in flight.
        resident_blocks: Leading blocks of the prompt in the KV cache (count).
        missing_blocks: Blocks of the prompt that are not in the KV cache (count).
        loadable_blocks: Missing blocks that a lower tier stores (count).
        demand_blocks: Free blocks that it takes from others: missing blocks, own blocks without a
            reservation, output (count).
        footprint_blocks: Blocks that it fills: prompt and expected output (count).
    """

    request_id: str
    session: Session
    priority: int
    sequence: int
    tenant: Tenant = field(default_factory=Tenant)
    arrived_s: float = 0.0
    due_s: float = math.inf
    cold_s: float = 0.0
    outstanding_s: float = 0.0
    because: LineageReason = "no_match"
    known: KnownPrompt | None = None
    attribution: Attribution | None = None
    waited_s: float = 0.0
    delayed_by: str = ""
    was_running: bool = False
    is_loading: bool = False
    resident_blocks: int = 0
    missing_blocks: int = 0
    loadable_blocks: int = 0
    demand_blocks: int = 0
    footprint_blocks: int = 0

    def is_due(self, now_s: float) -> bool:
        """Whether its wait bound has ended. Pure."""
        return now_s >= self.due_s

    @property
    def computed_blocks(self) -> int:
        """Blocks of the prompt that must be computed (count). Pure."""
        return self.missing_blocks - self.loadable_blocks

    @property
    def is_warm(self) -> bool:
        """Whether at least half of the prompt is resident. Pure."""
        return self.missing_blocks <= self.resident_blocks

    def rank(self, now_s: float) -> tuple[float, ...]:
        """Order of admission: the smallest first. Pure.

        By priority; then due, preempted, warm, cold; warm turns by fewest missing blocks, cold ones
        by least service of the tenant, then of the session, then by arrival; see `Tenants`.
        """
        if now_s >= self.due_s:
            return self.priority, 0, 0, self.sequence
        if self.was_running:
            return self.priority, 1, 0, self.sequence
        if self.missing_blocks <= self.resident_blocks:
            return self.priority, 2, self.missing_blocks, self.sequence
        served_s = self.tenant.served_s, self.session.account.served_s
        return self.priority, 3, *served_s, self.sequence
