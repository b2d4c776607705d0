"""Reused tokens by how long ago they were last used, summed up for some times of holding."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["ReuseAges"]


class ReuseAges:
    """Sums that are exact at each of the times, and take no more memory than the times do.

    Args:
        hold_s: Times of holding, ascending.
    """

    def __init__(self, hold_s: Sequence[float]) -> None:
        self._hold_s = list(hold_s)
        # By the first time that is not shorter than the age; rows are others' tokens, and own ones.
        self._tokens = np.zeros((2, len(hold_s) + 1))
        self._token_s = np.zeros(len(hold_s) + 1)

    def add(self, tokens: float, age_s: float, *, is_own: bool) -> None:
        """Take tokens that were reused; `is_own` where the same session had sent them."""
        place = bisect_left(self._hold_s, age_s)
        self._tokens[int(is_own), place] += tokens
        self._token_s[place] += tokens * age_s

    def total(self, *, own_only: bool) -> float:
        """All tokens, or those that were the session's own. Pure."""
        return float(self._chosen(own_only).sum())

    def kept(self, *, own_only: bool) -> NDArray[np.float64]:
        """Tokens reused within each of the times. Pure."""
        kept: NDArray[np.float64] = np.cumsum(self._chosen(own_only))[:-1]
        return kept

    def held_token_s(self) -> NDArray[np.float64]:
        """Tokens times seconds until they were reused, or each of the times had passed. Pure."""
        tokens = self._chosen(own_only=False)
        later = tokens.sum() - np.cumsum(tokens)[:-1]
        held: NDArray[np.float64] = np.cumsum(self._token_s)[:-1] + later * self._hold_s
        return held

    def _chosen(self, own_only: bool) -> NDArray[np.float64]:
        own: NDArray[np.float64] = self._tokens[1]
        return own if own_only else own + self._tokens[0]
