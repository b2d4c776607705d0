"""CacheSage (CacheScout): eviction by the next agents, from learned transitions."""

from __future__ import annotations

import math
from collections import defaultdict
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

__all__ = ["CacheSage"]

_SMOOTHING = 0.01
_EDGE = 0.1
_MAX_HOPS = 6
_DECAY = 0.005
_FLOOR = 0.01
_FINGERPRINT_BLOCKS = 2


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
        "constants (tau 0.1, 6 hops, lambda 0.005, delta and epsilon 0.01) are an independent "
        "replication's, as the papers give none; only transitions that were seen are edges; the "
        "block's own size is the same for all; rescored every 8 engine steps.",
    )
    rescore_interval_steps = 8

    def __init__(self, context: PolicyContext) -> None:
        super().__init__(context)
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
        hops = min(self._hops.get(self._agent_of.get(session, b""), _MAX_HOPS), _MAX_HOPS)
        reuse = 1.0 - hops / _MAX_HOPS
        age_steps = self.context.num_steps - self._seen_step.get(session, 0)
        return (reuse + _FLOOR) * (math.exp(-_DECAY * age_steps) + _FLOOR)

    def priority(self, node: Node[Any]) -> Priority:
        """The highest of the users' retention priorities."""
        priorities = (user.retention_priority for user in users_of(node))
        return PriorityClass.LIVE, max(priorities, default=0.0)

    def _count_transition(self, session: Session) -> None:
        agent = self._agent_of[session] = _agent(session)
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
                total = sum(row.values()) + _SMOOTHING * len(self._counts)
                for other, count in row.items():
                    if other not in hops and (count + _SMOOTHING) / total >= _EDGE:
                        hops[other] = hops[node] + 1
                        following.append(other)
            frontier = following
        return hops


def _agent(session: Session) -> bytes:
    """The fingerprint of a session's agent: the first prefix hashes of its path."""
    first: list[bytes] = []
    for node in reversed(list(session.tail.path())):
        first += node.hashes[: _FINGERPRINT_BLOCKS - len(first)]
        if len(first) == _FINGERPRINT_BLOCKS:
            break
    return b"".join(first)
