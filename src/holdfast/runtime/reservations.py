"""Reservations of idle sessions, and the budget that admission decides with."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from holdfast.core.offload_port import OffloadPort
from holdfast.core.own_order import reorder_within
from holdfast.core.session import Session
from holdfast.policies.admission import Budget
from holdfast.policies.base import AdmissionPolicy, PolicyContext
from holdfast.predict.copy_retention import CopyRetention
from holdfast.runtime.session_blocks import SessionBlocks

__all__ = ["Reservations"]


class Reservations:
    """Answers what admission asks about idle sessions.

    Args:
        idle: Sessions that may return.
        blocks: Which blocks each session has.
        context: Knows what computing costs.

    Attributes:
        retention: Whether copies are still stored when their sessions return.
    """

    def __init__(
        self, idle: Iterable[Session], blocks: SessionBlocks, context: PolicyContext
    ) -> None:
        self._idle = idle
        self._blocks = blocks
        self._context = context
        self.retention = CopyRetention()

    def budget(
        self,
        blocks: int,
        slots: int,
        num_running: int,
        admission: AdmissionPolicy,
        growth_blocks: int = 0,
    ) -> Budget:
        """What the engine can still give away. Pure.

        Args:
            blocks: Free blocks without a reservation (count; may be negative).
            slots: Turns that may still start (count).
            num_running: Turns running (count).
            admission: Knows how long a session counts as idle.
            growth_blocks: Free blocks that running turns are expected to grow into (count).
        """
        return Budget(
            now_s=self._context.now_s,
            blocks=blocks,
            growth_blocks=growth_blocks,
            slots=slots,
            num_running=num_running,
            restore_s=self._restore_s,
            reservations=lambda: self._reserved(admission),
            freed_by=self._blocks.freed_by,
        )

    def returned(self, session: Session, hashes: Sequence[bytes], tier: OffloadPort) -> None:
        """Learn whether copies were retained, from a session that returns. Mutates.

        Args:
            session: The session, before the prompt becomes its path.
            hashes: Prefix hashes of its new prompt.
            tier: The store below the KV cache.
        """
        num_lost = 0
        for node in session.prompt_tail.path():
            if node.free_blocks.num_blocks:
                break
            num_lost += len(node.hashes)
        first = session.prompt_tail.end - num_lost
        known = hashes[: session.prompt_tail.end]
        num_asked = len(known) - first  # fewer than were lost if the prompt is shorter
        if num_lost and num_asked > 0:
            self.retention.observe(tier.num_stored(known, first, num_asked), num_asked)

    def _reserved(self, admission: AdmissionPolicy) -> list[Session]:
        reserved = [session for session in self._idle if session.has_reservation]
        now_s = self._context.now_s
        reserved.sort(
            key=lambda s: (s.priority or 0, s.retained_until_s <= now_s, admission.idle_s(s)),
            reverse=True,
        )
        if not any(session.own_priority for session in reserved):
            return reserved
        return reorder_within(
            reserved,
            lambda s: (s.tenant, s.priority or 0, s.retained_until_s <= now_s),
            lambda s: -s.own_priority,
        )

    def _restore_s(self, session: Session, num_blocks: int) -> float:
        """Engine time to restore a session's last blocks, computed or loaded (s).

        A copy that is stored now may be gone when the session returns.
        """
        tier = self._context.tier
        computed_s = self._context.restore_s(num_blocks, max(session.tail.end - num_blocks, 0))
        if tier.num_stored(session.prompt_tail.hashes[-1:], 0, 1):
            loaded_s = min(computed_s, tier.load_s(num_blocks))
            return computed_s + self.retention.share * (loaded_s - computed_s)
        return computed_s
