"""How a session's own gaps compare with those of others of their kind."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["SpeedFactor"]

# As many gaps as a parent's opinion counts for in the hierarchy of kinds.
_WEIGHT = 8.0
_MEMORY = 0.9  # of a gap's weight, for each gap after it
_LEAST_SURVIVAL = 1e-6


@dataclass(slots=True)
class SpeedFactor:
    """A session's frailty, in what has been seen of it.

    A session that lets one pause last tends to let the next one last, whatever the tool: the
    quantiles of its gaps, each among gaps of its kind, depend on each other. Here as if every
    session multiplied all hazards by a factor of its own, which is gamma-distributed over sessions
    and is learned in closed form. Without a gap seen a session is as its kind is, exactly.

    Source: gamma frailty, Clayton, Biometrika 65(1), 1978.
    Differs: the distribution of the kind is the marginal one, not that of the average session, so
    that learning about sessions leaves it calibrated; gaps long ago count for less.

    Attributes:
        num_gaps: Gaps seen, earlier ones discounted (>= 0).
        hazard: Their hazards summed, likewise: how long they were, among gaps of their kind.
    """

    num_gaps: float = 0.0
    hazard: float = 0.0

    def add(self, kind_survival: float) -> None:
        """A gap was longer than all but a share `kind_survival` (0 to 1) of its kind. Mutates."""
        hazard = _hazard(max(kind_survival, _LEAST_SURVIVAL))
        self.num_gaps = _MEMORY * self.num_gaps + 1.0
        self.hazard = _MEMORY * self.hazard + hazard

    def survival(self, kind_survival: float) -> float:
        """P(gap of this session > t), where that of its kind is `kind_survival` (0 to 1). Pure."""
        if kind_survival <= 0.0:
            return 0.0
        known = _WEIGHT + self.hazard
        return float((known / (known + _hazard(kind_survival))) ** (_WEIGHT + self.num_gaps))

    def kind_survival(self, survival: float) -> float:
        """The inverse of `survival`. Pure."""
        if survival <= 0.0:
            return 0.0
        known = _WEIGHT + self.hazard
        hazard = known * (survival ** (-1.0 / (_WEIGHT + self.num_gaps)) - 1.0)
        return float((1.0 + hazard / _WEIGHT) ** -_WEIGHT)


def _hazard(survival: float) -> float:
    """Hazard that leaves `survival` over all sessions, whatever their factors."""
    return float(_WEIGHT * (survival ** (-1.0 / _WEIGHT) - 1.0))
