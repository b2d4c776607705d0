"""Percentiles of durations of which some had not ended when they were looked at."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from holdfast.core.results import Distribution
from holdfast.errors import ConfigError

__all__ = ["censored_distribution"]

_PERCENTS = (50, 90, 95, 99)


def censored_distribution(ended_s: Sequence[float], open_s: Sequence[float]) -> Distribution | None:
    """Summarise durations, open ones by the time they have lasted so far. Pure.

    None without any. Percentiles are Kaplan-Meier's; one beyond the last known end is at least the
    longest time seen, which stands for it. The mean takes open durations as they are so far.

    Args:
        ended_s: Durations that have ended (s).
        open_s: Times for which the others have lasted (s).

    Source: Kaplan and Meier, JASA 53(282), 1958; scipy's `ecdf`.

    Raises:
        ConfigError: Some are open and scipy is not installed.
    """
    if not open_s:
        return Distribution.from_values(ended_s)
    try:
        from scipy.stats import CensoredData, ecdf
    except ImportError as error:
        raise ConfigError("a window needs scipy", hint="pip install 'holdfast[sim]'") from error
    mean = float(np.mean([*ended_s, *open_s]))
    longest_s = max(*ended_s, *open_s) if ended_s else max(open_s)
    if not ended_s:
        return Distribution(longest_s, longest_s, longest_s, longest_s, longest_s)
    reached = ecdf(CensoredData(uncensored=ended_s, right=open_s)).cdf
    values = []
    for percent in _PERCENTS:
        # Rounding must not move a percentile that a step reaches exactly.
        at = np.searchsorted(reached.probabilities, percent / 100 - 1e-12)
        values.append(float(reached.quantiles[at]) if at < reached.quantiles.size else longest_s)
    p50, p90, p95, p99 = values
    return Distribution(mean=mean, p50=p50, p95=p95, p99=p99, p90=p90)
