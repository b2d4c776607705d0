"""Reservations in the cache that paused sessions hold, and what it costs to take one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from holdfast.core.offload_port import OffloadPort
from holdfast.core.session import Session
from holdfast.core.turn import Budget
from holdfast.policies.base import Policy, PolicyContext
from holdfast.predict.copy_retention import CopyRetention
from holdfast.runtime.session_blocks import SessionBlocks

__all__ = ["Reservations"]


class Reservations:
    """What admission asks about sessions that are away.

    Args:
        away: Those that may come back.
        chains: Who holds what.
        scene: Knows what computing takes.

    Attributes:
        survival: Whether copies last until their sessions are back.
    """

    def __init__(
        self, away: Iterable[Session], chains: SessionBlocks, context: PolicyContext
    ) -> None:
        self._away = away
        self._chains = chains
        self._context = context
        self.survival = CopyRetention()

    def room(
        self, blocks: int, slots: int, num_running: int, policy: Policy, tier: OffloadPort
    ) -> Budget:
        """What the engine can still give, to a policy that decides over it. Pure.

        Args:
            blocks: Free blocks without a claim (count; may be negative).
            slots: Turns that may still start (count).
            num_running: Turns running (count).
            policy: Says how long a session has been away.
            tier: What lies below the cache.
        """
        return Budget(
            now_s=self._context.now_s,
            blocks=blocks,
            slots=slots,
            num_running=num_running,
            restore_s=lambda session, num_blocks: self._restore_s(session, num_blocks, tier),
            places=lambda: self._held(policy),
            freed_by=self._chains.freed_by,
            away_s=policy.away_s,
        )

    def returned(self, session: Session, hashes: Sequence[bytes], tier: OffloadPort) -> None:
        """Learn what became of copies: a session is back, with a prompt of these hashes. Mutates.

        Before the prompt becomes its chain.
        """
        num_lost = 0
        for node in session.prompt_tail.path():
            if node.free_blocks.num_blocks:
                break
            num_lost += len(node.hashes)
        if num_lost:
            known = hashes[: session.prompt_tail.end]
            first = len(known) - num_lost
            self.survival.observe(tier.num_stored(known, first, num_lost), num_lost)

    def _held(self, policy: Policy) -> list[Session]:
        held = [session for session in self._away if session.has_reservation]
        return sorted(held, key=lambda s: (s.priority or 0, policy.away_s(s)), reverse=True)

    def _restore_s(self, session: Session, num_blocks: int, tier: OffloadPort) -> float:
        """Engine time to bring back a session's last blocks, computed or copied (s).

        A copy that is there now may be gone by then.
        """
        computed_s = self._context.restore_s(num_blocks, max(session.tail.end - num_blocks, 0))
        if tier.num_stored(session.prompt_tail.hashes[-1:], 0, 1):
            copied_s = min(computed_s, tier.load_s(num_blocks))
            return computed_s + self.survival.share * (copied_s - computed_s)
        return computed_s
