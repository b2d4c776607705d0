"""Marconi: recency and FLOP efficiency."""

from __future__ import annotations

from typing import Any, ClassVar

from holdfast.cache.prefix_tree import Node
from holdfast.core.events import Event, TurnArrived, TurnEnded
from holdfast.core.session import Session
from holdfast.policies.base import (
    EvictionPolicy,
    PolicyContext,
    PolicySpec,
    Priority,
    PriorityClass,
    users_of,
)

__all__ = ["Marconi"]

_ALPHA = 1.0


class Marconi(EvictionPolicy):
    """The lowest recency + alpha * FLOP efficiency goes first, both scaled to [0, 1].

    Recency is 1 / (now - last access). FLOP efficiency is what a node saves relative to its parent,
    by its bytes: attention over the depth before it, and the dense part that is the same for all.

    Source: Pan et al., Marconi, arXiv 2411.19379, MLSys 2025: utility of nodes with at most one
    child, min-max scaled.
    """

    spec: ClassVar[PolicySpec] = PolicySpec(
        name="marconi",
        summary="Evicts the prefix-tree node with the lowest recency plus FLOP efficiency.",
        source="Marconi, arXiv 2411.19379",
        differs="Attention layers only; alpha is 1 where the paper tunes it by replay; recency is "
        "relative to a use 1 ms ago and efficiency to the deepest context, not to the least and "
        "the most of all nodes; only ends of paths are evicted; nodes are rescored every 8 engine "
        "steps.",
    )
    rescore_interval_steps = 8

    def __init__(self, context: PolicyContext) -> None:
        super().__init__(context)
        self._accessed_s: dict[Session, float] = context.per_session()
        self._deepest_blocks = 1
        self._age_min_s = 1e-3

    def observe(self, event: Event) -> None:
        """Note when a session's path is accessed. Mutates."""
        match event:
            case TurnArrived(turn=turn) | TurnEnded(turn=turn):
                self._access(turn.session)

    def session_priority(self, session: Session) -> float:
        """Scaled recency, 0 to 1."""
        age_s = max(self.context.now_s - self._accessed_s.get(session, 0.0), self._age_min_s)
        return self._age_min_s / age_s

    def priority(self, node: Node[Any]) -> Priority:
        """The last access of any user, and the FLOPs that the node's depth saves."""
        recency = max((user.retention_priority for user in users_of(node)), default=0.0)
        # A token at depth n costs 24 d^2 dense and 4 n d attention operations a layer, for the same
        # bytes: scaled from the shallowest node to the deepest, only the depth remains.
        efficiency = (node.start + node.end) / 2 / self._deepest_blocks
        return PriorityClass.LIVE, recency + _ALPHA * min(efficiency, 1.0)

    def _access(self, session: Session) -> None:
        before_s = self._accessed_s.get(session)
        if before_s is not None and self.context.now_s > before_s:
            self._age_min_s = min(self._age_min_s, self.context.now_s - before_s)
        self._accessed_s[session] = self.context.now_s
        self._deepest_blocks = max(self._deepest_blocks, session.tail.end)
