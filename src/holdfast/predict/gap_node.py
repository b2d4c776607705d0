"""A node of the hierarchy of gap distributions."""

from __future__ import annotations

import numpy as np

from holdfast.predict.gap_curve import BINS, Floats, GapCurve, heavy_tail, shifted

__all__ = ["GapNode", "Learning"]

# Instead of old weights shrinking, new ones grow; before they overflow, all are scaled down.
_LARGEST_UNIT = 1e90

# A node's distribution is rebuilt when its weight has grown by this share: that bounds the work an
# observation causes in the nodes below, and early observations count at once.
_REBUILD_RATIO = 1 / 32


class Learning:
    """Learning rates of nodes.

    Attributes:
        parent_weight: Weight of the parent's distribution of gaps (observations).
        return_weight: Weight of the parent's share of returns (observations).
        growth: Factor by which each observation outweighs the one before it.
        epoch: Number of changes to nodes so far; results cached at the same epoch are valid.
    """

    __slots__ = ("epoch", "growth", "parent_weight", "return_weight")

    def __init__(
        self, *, parent_weight: float, return_weight: float, half_life_observations: float
    ) -> None:
        self.parent_weight = parent_weight
        self.return_weight = return_weight
        self.growth = float(2.0 ** (1.0 / half_life_observations))
        self.epoch = 0


class GapNode:
    """Gaps of one kind, tool or argument class, and their distribution.

    The root's prior is a heavy-tailed distribution at the median of its observations; every other
    node's prior is its parent's distribution, moved by `offset_bins`.
    """

    __slots__ = (
        "_based_on",
        "_curve",
        "_curve_epoch",
        "_learning",
        "_masses",
        "_share",
        "_share_epoch",
        "_unapplied",
        "counts",
        "ended",
        "offset_bins",
        "parent",
        "prior_return",
        "total",
        "unit",
    )

    def __init__(
        self,
        learning: Learning,
        parent: GapNode | None,
        *,
        offset_bins: int = 0,
        prior_return: float | None = None,
    ) -> None:
        self.parent = parent
        self.offset_bins = offset_bins
        self.prior_return = prior_return
        self.counts: Floats = np.zeros(BINS)
        self.total = 0.0
        self.ended = 0.0
        self.unit = 1.0
        self._learning = learning
        self._unapplied = 0.0
        self._masses: Floats | None = None
        self._based_on: Floats | None = None
        self._curve: GapCurve | None = None
        self._curve_epoch = -1
        self._share = 1.0
        self._share_epoch = -1

    def add(self, gap_bin: int) -> None:
        """Count a gap that ended. Mutates."""
        self._age()
        self.counts[gap_bin] += self.unit
        self.total += self.unit
        self._unapplied += self.unit
        if self._unapplied >= self.total * _REBUILD_RATIO:
            self._masses = None
            self._unapplied = 0.0
            self._learning.epoch += 1

    def add_end(self) -> None:
        """Count a pause from which the session never returned. Mutates."""
        self._age()
        self.ended += self.unit
        self._learning.epoch += 1

    def restore(self, counts: dict[int, float], ended: float) -> None:
        """Replace the observations by saved counts per bin and ends. Mutates.

        Raises:
            ValueError: A bin or a count is out of range.
        """
        if not all(0 <= b < BINS and 0.0 <= n < _LARGEST_UNIT for b, n in counts.items()):
            raise ValueError("a saved gap count is out of range")
        if not 0.0 <= ended < _LARGEST_UNIT:
            raise ValueError("a saved count of pauses without a return is out of range")
        self.counts[:] = 0.0
        for gap_bin, count in counts.items():
            self.counts[gap_bin] = count
        self.total = float(self.counts.sum())
        self.ended = ended
        self.unit = 1.0
        self._masses = None
        self._learning.epoch += 1

    def masses(self) -> Floats:
        """Return the probability of each bin, given that the session returns."""
        base = None if self.parent is None else self.parent.masses()
        if self._masses is None or self._based_on is not base:
            self._masses = self._blended(base)
            self._based_on = base
            self._curve = None
        return self._masses

    def curve(self) -> GapCurve:
        """Return the node's distribution, ready for queries; rebuilt when needed."""
        if self._curve is None or self._curve_epoch != self._learning.epoch:
            masses = self.masses()
            if self._curve is None:
                self._curve = GapCurve(masses)
            self._curve_epoch = self._learning.epoch
        return self._curve

    def return_share(self) -> float:
        """Return the probability that a pause of this kind ends in a return."""
        if self._share_epoch != self._learning.epoch:
            prior = self.prior_return
            if prior is None:
                prior = 1.0 if self.parent is None else self.parent.return_share()
            weight = self._learning.return_weight * self.unit
            self._share = (self.total + weight * prior) / (self.total + self.ended + weight)
            self._share_epoch = self._learning.epoch
        return self._share

    def _age(self) -> None:
        self.unit *= self._learning.growth
        if self.unit > _LARGEST_UNIT:
            scale = 1.0 / self.unit
            self.counts *= scale
            self.total *= scale
            self.ended *= scale
            self._unapplied *= scale
            self.unit = 1.0

    def _blended(self, base: Floats | None) -> Floats:
        prior = shifted(base, self.offset_bins) if base is not None else self._heavy_tail()
        weight = self._learning.parent_weight * self.unit
        blended: Floats = (self.counts + weight * prior) / (self.total + weight)
        return blended

    def _heavy_tail(self) -> Floats:
        # At the median of the gaps above zero: a gap of zero tells nothing about the scale.
        counts = self.counts.copy()
        counts[0] = 0.0
        below = np.cumsum(counts)
        if below[-1] <= 0.0:
            return heavy_tail(0.0)
        return heavy_tail(float(np.searchsorted(below, below[-1] / 2)))
