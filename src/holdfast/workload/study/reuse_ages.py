"""Sums reused tokens by the time since their last use."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["ReuseAges"]


class ReuseAges:
    """Sums of reused tokens by age, exact at each holding time.

    Args:
        hold_s: Holding times, ascending.
    """

    def __init__(self, hold_s: Sequence[float]) -> None:
        self._hold_s = list(hold_s)
        # By the first holding time >= the age; rows: other sessions' tokens, own tokens.
        self._tokens = np.zeros((2, len(hold_s) + 1))
        self._token_s = np.zeros(len(hold_s) + 1)

    def add(self, tokens: float, age_s: float, *, is_own: bool) -> None:
        """Add reused tokens; `is_own` if the same session sent them last."""
        index = bisect_left(self._hold_s, age_s)
        self._tokens[int(is_own), index] += tokens
        self._token_s[index] += tokens * age_s

    def total(self, *, own_only: bool) -> float:
        """All reused tokens, or the sessions' own only. Pure."""
        return float(self._chosen(own_only).sum())

    def kept(self, *, own_only: bool) -> NDArray[np.float64]:
        """Tokens reused within each holding time. Pure."""
        kept: NDArray[np.float64] = np.cumsum(self._chosen(own_only))[:-1]
        return kept

    def held_token_s(self) -> NDArray[np.float64]:
        """Token-seconds until the reuse or the end of each holding time. Pure."""
        tokens = self._chosen(own_only=False)
        later = tokens.sum() - np.cumsum(tokens)[:-1]
        held: NDArray[np.float64] = np.cumsum(self._token_s)[:-1] + later * self._hold_s
        return held

    def _chosen(self, own_only: bool) -> NDArray[np.float64]:
        own: NDArray[np.float64] = self._tokens[1]
        return own if own_only else own + self._tokens[0]
