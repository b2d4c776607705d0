"""CacheSage (CacheScout): eviction by the next agents, from learned transitions."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Annotated, Any, ClassVar

from msgspec import Meta

from holdfast.cache.prefix_tree import Node
from holdfast.core.events import Event, TurnArrived, TurnEnded
from holdfast.core.session import Session
from holdfast.policies.base import (
    EvictionPolicy,
    PolicyContext,
    PolicySettings,
    PolicySpec,
    Priority,
    PriorityClass,
    users_of,
)

__all__ = ["CacheSage", "CacheSageSettings"]


class CacheSageSettings(PolicySettings, frozen=True, kw_only=True):
    """Settings of `CacheSage`: an independent replication's, as the papers give none.

    Attributes:
        smoothing: Added to each count of a transition, epsilon (>= 0).
        min_edge: Least probability of a transition that is an edge, tau (0 to 1).
        max_hops: Hops at which an agent is not expected any more, E_max (count, >= 1).
        decay_per_step: Rate at which recency decays, lambda (1/step, >= 0).
        floor: Least value of either factor, delta (> 0).
        fingerprint_blocks: First blocks of a prompt that tell agents apart (count, >= 1).
        rescore_steps: Engine steps between rescores of all idle sessions (count, >= 1). Ours.
    """

    smoothing: Annotated[float, Meta(ge=0)] = 0.01
    min_edge: Annotated[float, Meta(ge=0, le=1)] = 0.1
    max_hops: Annotated[int, Meta(ge=1)] = 6
    decay_per_step: Annotated[float, Meta(ge=0)] = 0.005
    floor: Annotated[float, Meta(gt=0)] = 0.01
    fingerprint_blocks: Annotated[int, Meta(ge=1)] = 2
    rescore_steps: Annotated[int, Meta(ge=1)] = 8


class CacheSage(EvictionPolicy):
    """The lowest (p + d) (exp(-l age) + d) goes first.

    An agent is known by the first two blocks of its prompt. Transitions between agents are counted
    where the agent changes; p falls with the hops from the agent that ran last, along transitions
    of probability 0.1 and more; age is in engine steps.

    Source: Zhang et al., CacheSage/CacheScout, arXiv 2605.27744 and 2608.14624: score of a block.
    """

    spec: ClassVar[PolicySpec] = PolicySpec(
        name="cachesage",
        summary="Evicts by how soon a block's agent runs again, from learned transitions.",
        source="CacheSage/CacheScout, arXiv 2605.27744, 2608.14624",
        differs="Eviction only, without a preference for blocks that a lower tier stores; the "
        "constants are an independent replication's, as the papers give none; only transitions "
        "that were seen are edges; the block's own size is the same for all; rescored every 8 "
        "engine steps.",
        settings=CacheSageSettings,
    )
    settings: CacheSageSettings

    def __init__(self, context: PolicyContext, settings: CacheSageSettings) -> None:
        super().__init__(context, settings)
        self.rescore_interval_steps = settings.rescore_steps
        self._agent_of: dict[Session, bytes] = context.per_session()
        self._seen_step: dict[Session, int] = context.per_session()
        self._counts: defaultdict[bytes, defaultdict[bytes, float]] = defaultdict(
            lambda: defaultdict(float)
        )
        self._current: bytes | None = None
        self._hops: dict[bytes, int] = {}

    def observe(self, event: Event) -> None:
        """Count transitions between agents, and note when sessions were used. Mutates."""
        match event:
            case TurnArrived(turn=turn):
                self._seen_step[turn.session] = self.context.num_steps
                self._count_transition(turn.session)
            case TurnEnded(turn=turn):
                self._seen_step[turn.session] = self.context.num_steps

    def session_priority(self, session: Session) -> float:
        """Nearness of the agent's next call times recency, > 0."""
        most, floor = self.settings.max_hops, self.settings.floor
        hops = min(self._hops.get(self._agent_of.get(session, b""), most), most)
        age_steps = self.context.num_steps - self._seen_step.get(session, 0)
        recency = math.exp(-self.settings.decay_per_step * age_steps)
        return (1.0 - hops / most + floor) * (recency + floor)

    def priority(self, node: Node[Any]) -> Priority:
        """The highest of the users' retention priorities."""
        priorities = (user.retention_priority for user in users_of(node))
        return PriorityClass.LIVE, max(priorities, default=0.0)

    def _count_transition(self, session: Session) -> None:
        agent = self._agent_of[session] = self._agent(session)
        if self._current is not None and agent != self._current:
            self._counts[self._current][agent] += 1.0
        if agent != self._current:
            self._current = agent
            self._hops = self._hops_from(agent)

    def _hops_from(self, agent: bytes) -> dict[bytes, int]:
        hops = {agent: 0}
        frontier = [agent]
        while frontier and len(hops) <= len(self._counts):
            following = []
            for node in frontier:
                row = self._counts[node]
                total = sum(row.values()) + self.settings.smoothing * len(self._counts)
                for other, count in row.items():
                    if other not in hops and self._is_edge(count, total):
                        hops[other] = hops[node] + 1
                        following.append(other)
            frontier = following
        return hops

    def _is_edge(self, count: float, total: float) -> bool:
        return (count + self.settings.smoothing) / total >= self.settings.min_edge

    def _agent(self, session: Session) -> bytes:
        """The fingerprint of a session's agent: the first prefix hashes of its path."""
        most = self.settings.fingerprint_blocks
        first: list[bytes] = []
        for node in reversed(list(session.tail.path())):
            first += node.hashes[: most - len(first)]
            if len(first) == most:
                break
        return b"".join(first)
