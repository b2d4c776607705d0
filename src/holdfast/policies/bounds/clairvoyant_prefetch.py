"""A bound: Holdfast with true return times for what is brought back ahead of time."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from holdfast.cache.prefix_tree import Node
from holdfast.core.turn import Turn
from holdfast.policies.base import Need, PolicyContext, PolicySpec
from holdfast.policies.bounds.true_returns import TrueReturns
from holdfast.policies.ours.holdfast import Holdfast

__all__ = ["ClairvoyantPrefetch"]


class ClairvoyantPrefetch(Holdfast):
    """Evicts and admits as Holdfast does, and knows who is back next.

    Sessions that are away are brought back in the order of their true returns, as far as links and
    room allow. Bounds what a better choice of what to prefetch could gain.
    """

    spec: ClassVar[PolicySpec] = PolicySpec(
        name="clairvoyant-prefetch",
        summary="Holdfast, which prefetches in the order of true returns: a bound on prefetching.",
        source="Belady, IBM Systems Journal 5(2), 1966",
        differs="Eviction and admission go by predictions.",
        needs=frozenset({Need.FUTURE}),
    )

    def __init__(self, context: PolicyContext) -> None:
        super().__init__(context)
        self._true_returns = TrueReturns(context, self.per_session())

    def turn_ended(self, turn: Turn) -> None:
        """Look up when the session will be back."""
        self._true_returns.turn_ended(turn)

    def coming(self) -> Iterable[Node[Any]]:
        """Chains of those that return, the next one first."""
        return (session.tail for session in self._true_returns.next_back())
