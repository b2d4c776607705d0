"""A bound on prefetching: Holdfast, told which session returns next."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from holdfast.cache.prefix_tree import Node
from holdfast.policies.base import Need, PolicyContext, PolicySpec
from holdfast.policies.bounds.true_returns import TrueReturns
from holdfast.policies.ours.holdfast import Holdfast

__all__ = ["ClairvoyantPrefetch"]


class ClairvoyantPrefetch(Holdfast):
    """Evicts and admits as Holdfast does, and prefetches in the order of true returns.

    Bounds what a better choice of what to prefetch could gain, as far as links and free blocks
    allow.
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
        self._true_returns = context.shared(TrueReturns)

    def candidates(self) -> Iterable[Node[Any]]:
        """Paths of sessions that return, the next one first."""
        return (session.tail for session in self._true_returns.next_back())
