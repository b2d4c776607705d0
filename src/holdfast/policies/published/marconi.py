"""Marconi: recency and FLOP efficiency."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar

from msgspec import Meta

from holdfast.cache.prefix_tree import Node
from holdfast.core.events import Event, RescoreBegun, TurnArrived, TurnEnded
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

__all__ = ["Marconi", "MarconiSettings"]

_SHORTEST_S = 1e-6


class MarconiSettings(PolicySettings, frozen=True, kw_only=True):
    """Settings of `Marconi`.

    Attributes:
        alpha: Weight of FLOP efficiency (0 to 2, the range in which the paper tunes it).
        rescore_steps: Engine steps between rescores of all nodes (count, >= 1).
    """

    alpha: Annotated[float, Meta(ge=0, le=2)] = 1.0
    rescore_steps: Annotated[int, Meta(ge=1)] = 8


class Marconi(EvictionPolicy):
    """The lowest recency + alpha * FLOP efficiency goes first, both scaled to [0, 1].

    Recency is 1 / (now - last access). FLOP efficiency is what a node saves relative to its parent,
    by its bytes. Both are scaled between the least and the most of all nodes that can be evicted,
    those with at most one child.

    Source: Pan et al., Marconi, arXiv 2411.19379, MLSys 2025: utility, min-max scaled.
    """

    spec: ClassVar[PolicySpec] = PolicySpec(
        name="marconi",
        summary="Evicts the prefix-tree node with the lowest recency plus FLOP efficiency.",
        source="Marconi, arXiv 2411.19379",
        differs="Attention layers only, for which efficiency is the sum of a node's start and end; "
        "alpha is set, where the paper tunes it once by replay; only ends of paths are evicted; "
        "nodes are scaled and rescored every 8 engine steps.",
        settings=MarconiSettings,
    )
    settings: MarconiSettings

    def __init__(self, context: PolicyContext, settings: MarconiSettings) -> None:
        super().__init__(context, settings)
        self.rescore_interval_steps = settings.rescore_steps
        self._accessed_s: dict[Session, float] = context.per_session()
        self._recencies = self._depths = (0.0, 0.0)

    def observe(self, event: Event) -> None:
        """Note accesses; find the scales before a rescore. Mutates."""
        match event:
            case TurnArrived(time_s=time_s, turn=turn) | TurnEnded(time_s=time_s, turn=turn):
                self._accessed_s[turn.session] = time_s
            case RescoreBegun():
                paused = list(self.context.paused())
                self._recencies = _range_of([self._recency(session) for session in paused])
                self._depths = _range_of([_depth(node) for node in _evictable(paused)])

    def session_priority(self, session: Session) -> float:
        """Scaled recency, 0 to 1."""
        return _scaled(self._recency(session), self._recencies)

    def priority(self, node: Node[Any]) -> Priority:
        """The last access of any user, and the FLOPs that the node saves by its bytes."""
        recency = max((user.retention_priority for user in users_of(node)), default=0.0)
        efficiency = _scaled(_depth(node), self._depths)
        return PriorityClass.LIVE, recency + self.settings.alpha * efficiency

    def _recency(self, session: Session) -> float:
        age_s = self.context.now_s - self._accessed_s.get(session, 0.0)
        return 1.0 / max(age_s, _SHORTEST_S)


def _depth(node: Node[Any]) -> float:
    """FLOP efficiency of a node but for a factor and a summand that all nodes have.

    A path of n tokens costs 24 d^2 n + 4 d n^2 operations a layer, so blocks from `start` to `end`
    save 24 d^2 + 4 d (start + end) for each token, and each has as many bytes.
    """
    return float(node.start + node.end)


def _evictable(sessions: list[Session]) -> Iterator[Node[Any]]:
    """Nodes of the sessions' paths with at most one child, each once."""
    seen: set[Node[Any]] = set()
    for session in sessions:
        for node in session.tail.path():
            if node in seen:
                break
            seen.add(node)
            if len(node.children) < 2 and node.free_blocks.num_blocks:
                yield node


def _range_of(values: list[float]) -> tuple[float, float]:
    return (min(values), max(values)) if values else (0.0, 0.0)


def _scaled(value: float, within: tuple[float, float]) -> float:
    """Where a value lies between two others, 0 to 1; 0 where these are equal."""
    low, high = within
    return min(max((value - low) / (high - low), 0.0), 1.0) if high > low else 0.0
