"""CacheWise with true pause lengths, the paper's own upper bound."""

from __future__ import annotations

from typing import ClassVar

from holdfast.core.session import Session
from holdfast.policies.base import Need, PolicyContext, PolicySpec
from holdfast.policies.bounds.true_returns import TrueReturns
from holdfast.policies.published.cachewise import CacheWise, CacheWiseSettings

__all__ = ["CacheWiseOracle"]


class CacheWiseOracle(CacheWise):
    """CacheWise's order with the pause's true length in place of its expectation.

    Source: "CacheWise*" in Tiwari et al., arXiv 2606.16824.
    """

    spec: ClassVar[PolicySpec] = PolicySpec(
        name="cachewise-oracle",
        summary="CacheWise with true pause lengths.",
        source='"CacheWise*", arXiv 2606.16824',
        differs="A session that does not return counts as infinitely far away.",
        needs=frozenset({Need.FUTURE}),
        settings=CacheWiseSettings,
    )

    uses_predictions = False

    def __init__(self, context: PolicyContext, settings: CacheWiseSettings) -> None:
        super().__init__(context, settings)
        self._true_returns = context.shared(TrueReturns)

    def residual_s(self, session: Session) -> float:
        """True time until the session returns (s)."""
        return self._true_returns.left_s(session)
