"""SAGA: a weighted sum of idleness, reuse and size, with a time to live."""

from __future__ import annotations

from collections import defaultdict
from typing import Annotated, Any, ClassVar

from msgspec import Meta

from holdfast.cache.prefix_tree import Node
from holdfast.core.events import Event, PauseExplained, TurnArrived, TurnEnded
from holdfast.core.session import Session
from holdfast.core.turn import Turn
from holdfast.policies.base import (
    EvictionPolicy,
    PolicyContext,
    PolicySettings,
    PolicySpec,
    Priority,
    PriorityClass,
    users_of,
)

__all__ = ["Saga", "SagaSettings"]

_Share = Annotated[float, Meta(ge=0, le=1)]


class SagaSettings(PolicySettings, frozen=True, kw_only=True):
    """Settings of `Saga`; the defaults are the paper's, but for two.

    Attributes:
        idle_weight: Weight of idleness, the paper's alpha (0 to 1).
        reuse_weight: Weight of the probability of no reuse, beta (0 to 1).
        size_weight: Weight of size, gamma (0 to 1).
        ttl_quantile: Quantile of a kind's gaps that is the time to live (0 to 1). Of an
            independent reproduction: the paper states none.
        max_ttl_s: Longest time to live (s, > 0).
        low_load: Load of the cache at which the time to live begins to fall (0 to 1).
        high_load: Load at which it has fallen to half (0 to 1, above `low_load`).
        rescore_steps: Engine steps between rescores of all idle sessions (count, >= 1). Ours.
    """

    idle_weight: _Share = 0.3
    reuse_weight: _Share = 0.5
    size_weight: _Share = 0.2
    ttl_quantile: _Share = 0.95
    max_ttl_s: Annotated[float, Meta(gt=0)] = 300.0
    low_load: _Share = 0.7
    high_load: _Share = 0.9
    rescore_steps: Annotated[int, Meta(ge=1)] = 3

    def __post_init__(self) -> None:
        if not self.low_load < self.high_load:
            raise ValueError(f"high_load is {self.high_load}, not above low_load {self.low_load}")


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
        "is the paused sessions' share of the cache; no order of requests and no routing between "
        "machines; least recently used while the prediction guard objects.",
        settings=SagaSettings,
    )
    uses_predictions = True
    settings: SagaSettings

    def __init__(self, context: PolicyContext, settings: SagaSettings) -> None:
        super().__init__(context, settings)
        self.rescore_interval_steps = settings.rescore_steps
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
        largest = max((s.tail.end for s in self.context.paused()), default=1)
        return -(
            self.settings.idle_weight * min(idle_s / idle_max_s, 1.0)
            + self.settings.reuse_weight * (1.0 - reuse)
            + self.settings.size_weight * min(session.tail.end / max(largest, 1), 1.0)
        )

    def priority(self, node: Node[Any]) -> Priority:
        """The best user's."""
        priorities = [user.retention_priority for user in users_of(node)]
        return (PriorityClass.LIVE, max(priorities)) if priorities else (PriorityClass.UNOWNED, 0.0)

    def _time_to_live_s(self, session: Session) -> float:
        if not self.context.returns.num_observed:
            return self.settings.max_ttl_s
        load = sum(s.tail.end for s in self.context.paused()) / max(self.context.capacity_blocks, 1)
        low, high = self.settings.low_load, self.settings.high_load
        pressure = min(max((load - low) / (high - low), 0.0), 1.0)
        quantile = self.settings.ttl_quantile
        quantile_s = self.context.returns.residual_quantile_s(session.gap, 0.0, quantile)
        return min(quantile_s * (1.0 - 0.5 * pressure), self.settings.max_ttl_s)


def _edge(session: Session) -> str:
    return str(session.gap.tool or session.gap.kind)
