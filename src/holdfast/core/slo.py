"""A service level objective: limits that an answer keeps or misses."""

from __future__ import annotations

from dataclasses import dataclass

from holdfast.core.results import TurnRecord
from holdfast.errors import ConfigError

__all__ = ["Slo"]


@dataclass(frozen=True, slots=True)
class Slo:
    """Limits on a turn; None sets none.

    Attributes:
        ttft_s: Longest time to first token (s).
        itl_s: Longest mean time between tokens (s).
    """

    ttft_s: float | None = None
    itl_s: float | None = None

    def __post_init__(self) -> None:
        for name in ("ttft_s", "itl_s"):
            limit_s = getattr(self, name)
            if limit_s is not None and not limit_s > 0:
                raise ConfigError(f"slo {name} is {limit_s!r}; expected seconds > 0")

    @property
    def is_set(self) -> bool:
        """Whether there is any limit."""
        return self.ttft_s is not None or self.itl_s is not None

    def is_met(self, turn: TurnRecord) -> bool:
        """Whether an answered turn keeps all limits. Pure."""
        return _within(turn.ttft_s, self.ttft_s) and _within(turn.itl_s, self.itl_s)


def _within(value_s: float | None, limit_s: float | None) -> bool:
    return limit_s is None or value_s is None or value_s <= limit_s
