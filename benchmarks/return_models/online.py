"""Models that start with nothing and count what they see."""

from __future__ import annotations

import bisect
from collections import defaultdict

from holdfast.predict.return_time import ReturnTimeModel
from holdfast.predict.session_speed import SpeedFactor
from return_models.base import SHORTEST_S, Model, Pause

__all__ = ["Empirical", "Holdfast", "MedianResidual", "MovingAverage", "WaitedLongest"]

_EWMA_GAIN = 0.3


class Holdfast(Model):
    """The model that policies use, ranked as Holdfast's eviction ranks."""

    def __init__(self, *, has_speed: bool = True) -> None:
        self._model = ReturnTimeModel()
        self._has_speed = has_speed
        self._speeds: defaultdict[str, SpeedFactor] = defaultdict(SpeedFactor)

    def observe(self, pause: Pause) -> None:
        """See `Model`."""
        self._model.observe(pause.features, pause.gap_s, speed=self._speed(pause))

    def quantile_s(self, pause: Pause, elapsed_s: float, level: float) -> float:
        """See `Model`."""
        return self._model.residual_quantile_s(
            pause.features, elapsed_s, level, scale_s=1.0, speed=self._speed(pause)
        )

    def rank_s(self, pause: Pause, elapsed_s: float) -> float:
        """See `Model`."""
        return elapsed_s + self.quantile_s(pause, 0.0, 0.5)

    def _speed(self, pause: Pause) -> SpeedFactor | None:
        return self._speeds[pause.session] if self._has_speed else None


class MedianResidual(Holdfast):
    """The same model, ranked by the median of what is left."""

    def rank_s(self, pause: Pause, elapsed_s: float) -> float:
        """See `Model`."""
        return self.quantile_s(pause, elapsed_s, 0.5)


class Empirical(Model):
    """The gaps seen so far, all together or by tool."""

    def __init__(self, *, by_tool: bool) -> None:
        self._by_tool = by_tool
        self._gaps: defaultdict[str, list[float]] = defaultdict(list)

    def observe(self, pause: Pause) -> None:
        """See `Model`."""
        for key in {self._key(pause), ""}:
            bisect.insort(self._gaps[key], pause.gap_s)

    def quantile_s(self, pause: Pause, elapsed_s: float, level: float) -> float:
        """See `Model`."""
        gaps = self._gaps[self._key(pause)] or self._gaps[""]
        return residual_quantile_s(gaps, elapsed_s, level)

    def _key(self, pause: Pause) -> str:
        return f"{pause.features.kind}/{pause.features.tool}" if self._by_tool else ""


def residual_quantile_s(gaps: list[float], elapsed_s: float, level: float) -> float:
    """Quantile of what is left of the sorted `gaps` that are longer than `elapsed_s`."""
    first = bisect.bisect_right(gaps, elapsed_s)
    if first == len(gaps):
        return max(elapsed_s, 1.0)
    return gaps[first + int(level * (len(gaps) - first))] - elapsed_s


class MovingAverage(Model):
    """A session's own exponentially weighted mean gap; of all sessions before it has one."""

    def __init__(self) -> None:
        self._means_s: dict[str, float] = {}

    def observe(self, pause: Pause) -> None:
        """See `Model`."""
        for key in (pause.session, ""):
            before_s = self._means_s.get(key, pause.gap_s)
            self._means_s[key] = before_s + _EWMA_GAIN * (pause.gap_s - before_s)

    def quantile_s(self, pause: Pause, elapsed_s: float, level: float) -> float:
        """See `Model`."""
        del level
        return max(self._mean_s(pause) - elapsed_s, SHORTEST_S)

    def rank_s(self, pause: Pause, elapsed_s: float) -> float:
        """See `Model`."""
        return self._mean_s(pause) - elapsed_s

    def _mean_s(self, pause: Pause) -> float:
        return self._means_s.get(pause.session, self._means_s.get("", 1.0))


class WaitedLongest(Model):
    """No model: who has been away longer returns later. Least recently used, as a ranking."""

    def observe(self, pause: Pause) -> None:
        """Nothing to learn."""

    def quantile_s(self, pause: Pause, elapsed_s: float, level: float) -> float:
        """See `Model`."""
        del pause, level
        return max(elapsed_s, 1.0)

    def rank_s(self, pause: Pause, elapsed_s: float) -> float:
        """See `Model`."""
        del pause
        return elapsed_s
