"""SAGA: a weighted sum of idleness, reuse and size, with a time to live."""

from __future__ import annotations

from collections import defaultdict
from typing import Any, ClassVar

from holdfast.cache.prefix_tree import Node
from holdfast.core.events import Event, PauseExplained, TurnArrived, TurnEnded
from holdfast.core.session import Session
from holdfast.core.turn import Turn
from holdfast.policies.base import (
    EvictionPolicy,
    PolicyContext,
    PolicySpec,
    Priority,
    PriorityClass,
    users_of,
)

__all__ = ["Saga"]

_IDLE_WEIGHT, _REUSE_WEIGHT, _SIZE_WEIGHT = 0.3, 0.5, 0.2
_TTL_QUANTILE = 0.95
_MAX_TTL_S = 300.0
_LOW_LOAD, _LOAD_RANGE = 0.7, 0.2


class Saga(EvictionPolicy):
    """Evicts the highest 0.3 idle/idle_max + 0.5 (1 - P_reuse) + 0.2 size/size_max.

    P_reuse is the share of pauses of this kind that ended in a return, times the share of the
    context that such a return kept. Past its time to live, the 95 % quantile of its kind's gaps,
    cut down to half as the cache fills from 70 to 90 % and never over 300 s, a session goes
    before all others.

    Source: SAGA, arXiv 2605.00528, HPDC 2026: weights, time to live, 300 s limit.
    """

    spec: ClassVar[PolicySpec] = PolicySpec(
        name="saga",
        summary="Evicts by a weighted sum of idleness, reuse probability and size, with a time to "
        "live per tool.",
        source="SAGA, arXiv 2605.00528",
        differs="Workflow edges are (what ended the turn -> a return), counted online; memory load "
        "is the paused sessions' share of the cache, and size is relative to it; no routing "
        "between machines; least recently used while the prediction guard objects.",
    )
    rescore_interval_steps = 3
    uses_predictions = True

    def __init__(self, context: PolicyContext) -> None:
        super().__init__(context)
        self._returned: defaultdict[str, float] = defaultdict(lambda: 1.0)
        self._paused: defaultdict[str, float] = defaultdict(lambda: 1.0)
        self._kept: defaultdict[str, float] = defaultdict(lambda: 1.0)
        self._last_blocks: dict[Session, int] = context.per_session()
        self._counted: dict[Session, str] = context.per_session()

    def observe(self, event: Event) -> None:
        """Count pauses and returns by what began the pause. Mutates."""
        match event:
            case TurnArrived(turn=turn):
                self._count_return(turn)
            case TurnEnded(turn=turn):
                self._last_blocks[turn.session] = max(turn.session.prompt_blocks, 1)
                self._counted.pop(turn.session, None)
            case PauseExplained(session=session):
                self._count_pause(session)

    def _count_return(self, turn: Turn) -> None:
        """Count the edge, and how much of the context the new prompt kept."""
        session = turn.session
        if session.num_turns > 1 and session.gap is not None:
            edge = _edge(session)
            self._returned[edge] += 1
            before = self._last_blocks.get(session, 0)
            if before:
                kept = min(before, session.prompt_blocks) / before
                self._kept[edge] += 0.1 * (kept - self._kept[edge])

    def _count_pause(self, session: Session) -> None:
        """Count the pause, once, under what is known best about it."""
        earlier = self._counted.get(session)
        if earlier is not None:
            self._paused[earlier] -= 1
        self._counted[session] = edge = _edge(session)
        self._paused[edge] += 1

    def session_priority(self, session: Session) -> float:
        """Minus the eviction score, in [-1, 0]; -2 past the time to live.

        While predictions are not trusted: by recency, in (-2, -1].
        """
        if session.state.is_ended:
            return -3.0
        if session.state.is_busy:
            return 0.0
        idle_s = self.context.now_s - session.paused_at_s
        if not self.context.trusts_predictions:
            return 1.0 / (1.0 + max(idle_s, 0.0)) - 2.0
        longest = next(self.context.paused(), session)
        idle_max_s = max(self.context.now_s - longest.paused_at_s, 1e-9)
        if idle_s > self._time_to_live_s(session):
            return -2.0
        edge = _edge(session)
        reuse = min(self._returned[edge] / self._paused[edge], 1.0) * self._kept[edge]
        size = session.tail.end / max(self.context.capacity_blocks, 1)
        return -(
            _IDLE_WEIGHT * min(idle_s / idle_max_s, 1.0)
            + _REUSE_WEIGHT * (1.0 - reuse)
            + _SIZE_WEIGHT * min(size, 1.0)
        )

    def priority(self, node: Node[Any]) -> Priority:
        """The best user's."""
        priorities = [user.retention_priority for user in users_of(node)]
        return (PriorityClass.LIVE, max(priorities)) if priorities else (PriorityClass.UNOWNED, 0.0)

    def _time_to_live_s(self, session: Session) -> float:
        if not self.context.returns.num_observed:
            return _MAX_TTL_S
        load = sum(s.tail.end for s in self.context.paused()) / max(self.context.capacity_blocks, 1)
        pressure = min(max((load - _LOW_LOAD) / _LOAD_RANGE, 0.0), 1.0)
        quantile_s = self.context.returns.residual_quantile_s(session.gap, 0.0, _TTL_QUANTILE)
        return min(quantile_s * (1.0 - 0.5 * pressure), _MAX_TTL_S)


def _edge(session: Session) -> str:
    return str(session.gap.tool or session.gap.kind)
