"""A session's gaps relative to those of other sessions of the same kind."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["SpeedFactor"]

# The prior counts as much as a parent does in the hierarchy of gap distributions.
_WEIGHT = 8.0
_MEMORY = 0.9  # of a gap's weight, for each gap after it
_LEAST_SURVIVAL = 1e-6


@dataclass(slots=True)
class SpeedFactor:
    """A session's frailty, learned from its gaps.

    A session with one long pause tends to have further long ones, whatever the tool. The model:
    every session multiplies all hazards by a factor of its own, which is gamma-distributed over
    sessions and learned in closed form. A session without gaps is exactly as its kind.

    Source: gamma frailty, Clayton, Biometrika 65(1), 1978.
    Differs: the distribution of the kind is the marginal one, not that of the average session, so
    that learning about sessions keeps it calibrated; old gaps count for less.

    Attributes:
        num_gaps: Gaps observed, earlier ones discounted (>= 0).
        hazard: Sum of their cumulative hazards among gaps of their kind, likewise discounted.
    """

    num_gaps: float = 0.0
    hazard: float = 0.0

    def add(self, kind_survival: float) -> None:
        """Learn a gap that a share `kind_survival` (0 to 1) of its kind exceeds. Mutates."""
        hazard = _hazard(max(kind_survival, _LEAST_SURVIVAL))
        self.num_gaps = _MEMORY * self.num_gaps + 1.0
        self.hazard = _MEMORY * self.hazard + hazard

    def survival(self, kind_survival: float) -> float:
        """Return P(gap > t) of this session, given that of its kind (0 to 1). Pure."""
        if kind_survival <= 0.0:
            return 0.0
        total_hazard = _WEIGHT + self.hazard
        return float(
            (total_hazard / (total_hazard + _hazard(kind_survival))) ** (_WEIGHT + self.num_gaps)
        )

    def kind_survival(self, survival: float) -> float:
        """Return P(gap > t) of the kind, given that of this session. Pure."""
        if survival <= 0.0:
            return 0.0
        total_hazard = _WEIGHT + self.hazard
        hazard = total_hazard * (survival ** (-1.0 / (_WEIGHT + self.num_gaps)) - 1.0)
        return float((1.0 + hazard / _WEIGHT) ** -_WEIGHT)


def _hazard(survival: float) -> float:
    """Return the cumulative hazard at which a share `survival` of sessions remains."""
    return float(_WEIGHT * (survival ** (-1.0 / _WEIGHT) - 1.0))
