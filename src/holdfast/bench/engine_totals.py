"""Explains an engine's sums, from its `/metrics`."""

from __future__ import annotations

import urllib.error
import urllib.request
from typing import Final

from prometheus_client.parser import text_string_to_metric_families

from holdfast.errors import EndpointError
from holdfast.report.explanation import Explanation, explain_totals

__all__ = ["engine_explanation"]

_TIMEOUT_S: Final = 10.0
_MAX_BYTES: Final = 64 << 20


def engine_explanation(url: str) -> Explanation:
    """Explain what an engine has counted since it started.

    Args:
        url: Its address, without a path.

    Raises:
        EndpointError: It cannot be reached, or is no engine with Holdfast.
    """
    metrics_url = f"{url.rstrip('/')}/metrics"
    try:
        with urllib.request.urlopen(metrics_url, timeout=_TIMEOUT_S) as answer:
            text = answer.read(_MAX_BYTES).decode("utf-8", "replace")
    except (OSError, ValueError) as error:
        raise EndpointError(
            f"{metrics_url}: {getattr(error, 'reason', error)}",
            hint="give the address of an engine, such as http://127.0.0.1:8000",
        ) from error
    cached = 0.0
    missed: dict[str, int] = {}
    lost_s: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            reason = sample.labels.get("reason", "")
            if sample.name == "holdfast_cached_tokens_total":
                cached += sample.value
            elif sample.name == "holdfast_missed_tokens_total":
                missed[reason] = missed.get(reason, 0) + int(sample.value)
            elif sample.name == "holdfast_lost_seconds_total":
                lost_s[reason] = lost_s.get(reason, 0.0) + sample.value
    if not missed:
        raise EndpointError(
            f"{metrics_url} has no holdfast_missed_tokens_total",
            hint="serve with `holdfast serve`; stock vLLM does not attribute misses",
        )
    return explain_totals(int(cached), missed, lost_s)
