"""CacheWise with true durations, the paper's own upper bound."""

from __future__ import annotations

import math
from typing import ClassVar

from holdfast.core.sessions import Session
from holdfast.policies.admission.waiting import WaitingTurn
from holdfast.policies.base import Need, PolicySpec, Scene
from holdfast.policies.published.cachewise import CacheWise

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
    )

    def __init__(self, scene: Scene) -> None:
        super().__init__(scene)
        assert scene.outlook is not None
        self._outlook = scene.outlook
        self._returns_at_s: dict[Session, float] = self.per_session()

    def turn_ended(self, turn: WaitingTurn) -> None:
        """Look up when the session will be back."""
        gap_s = self._outlook.gap_after_s(turn.request_id)
        self._returns_at_s[turn.session] = self.scene.now_s + gap_s

    def residual_s(self, session: Session) -> float:
        """True time until the session is back (s)."""
        return max(self._returns_at_s.get(session, math.inf) - self.scene.now_s, 0.0)
