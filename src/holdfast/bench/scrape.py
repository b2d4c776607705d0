"""An engine's counters, read from its Prometheus page before and after a run."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from holdfast.core.results import Counters

__all__ = ["EngineCounters", "counters_between", "parse_metrics", "scrape_metrics"]

logger = logging.getLogger(__name__)

_SCRAPE_TIMEOUT_S = 15.0
_QUERIES = "vllm:prefix_cache_queries_total"
_HITS = "vllm:prefix_cache_hits_total"
_PREEMPTIONS = "vllm:num_preemptions_total"
_EVICTED = "holdfast_evicted_blocks_total"
_CACHED = "vllm:prompt_tokens_cached_by_source_total"
_OWN_CACHE = "device"
_FALLBACKS = "holdfast_fallbacks_total"
_ENGINE_STEPS = "holdfast_engine_steps_total"
_DECISION_S = "holdfast_decision_seconds_total"
_SCHEDULER_S = "holdfast_scheduler_seconds_total"
_CACHE_CONFIG = "vllm:cache_config_info"


@dataclass(frozen=True, slots=True)
class EngineCounters:
    """A snapshot of an engine's metrics.

    Attributes:
        totals: Value of each metric, summed over its labels.
        kv_tokens: Size of the KV cache; None where the engine does not report it.
        cached_by_source: Prompt tokens that were not computed, by source; "device" is the KV
            cache. Empty where the engine does not report them.
    """

    totals: Mapping[str, float]
    kv_tokens: int | None = None
    cached_by_source: Mapping[str, float] = field(default_factory=dict)

    @property
    def policy(self) -> str:
        """Name of the policy that these metrics indicate, once the engine has worked."""
        # Stock engines may have Holdfast's counters; only its scheduler spends time on decisions.
        if self.totals.get(_DECISION_S):
            return "holdfast"
        if any(name.startswith("vllm:") for name in self.totals):
            return "vllm-default"
        return "unknown"


def parse_metrics(text: str) -> EngineCounters:
    """Read a Prometheus text page; pure.

    Raises:
        ValueError: The text is not in that format.
    """
    totals: dict[str, float] = {}
    kv_tokens: int | None = None
    cached: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            totals[sample.name] = totals.get(sample.name, 0.0) + sample.value
            if sample.name == _CACHE_CONFIG:
                kv_tokens = _kv_tokens(sample.labels) or kv_tokens
            elif sample.name == _CACHED:
                source = sample.labels.get("source", "")
                cached[source] = cached.get(source, 0.0) + sample.value
    return EngineCounters(totals, kv_tokens, cached)


def _kv_tokens(labels: Mapping[str, str]) -> int | None:
    blocks, block_size = labels.get("num_gpu_blocks", ""), labels.get("block_size", "")
    if blocks.isdecimal() and block_size.isdecimal():
        return int(blocks) * int(block_size)
    return None


async def scrape_metrics(http: aiohttp.ClientSession, url: str) -> EngineCounters | None:
    """Fetch `url`/metrics; None, with a log line, where the page cannot be read."""
    try:
        timeout = aiohttp.ClientTimeout(total=_SCRAPE_TIMEOUT_S)
        async with http.get(f"{url}/metrics", timeout=timeout) as response:
            text = await response.text()
            if response.status != 200:
                logger.warning("%s/metrics answered %d: no engine counters", url, response.status)
                return None
        return parse_metrics(text)
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        logger.warning("%s/metrics cannot be read (%r): no engine counters", url, error)
        return None


def counters_between(before: EngineCounters | None, after: EngineCounters | None) -> Counters:
    """The counts between two snapshots, unknown after a restart in between; pure."""
    if before is None or after is None:
        return Counters()

    def gained(name: str) -> float | None:
        if name not in after.totals:
            return None
        difference = after.totals[name] - before.totals.get(name, 0.0)
        return difference if difference >= 0 else None

    cached = {
        source: number - before.cached_by_source.get(source, 0.0)
        for source, number in after.cached_by_source.items()
    }
    if any(number < 0 for number in cached.values()):
        cached = {}
    engine_steps = gained(_ENGINE_STEPS) or None
    return Counters(
        cache_query_tokens=gained(_QUERIES),
        # vLLM does not count loads from below the KV cache as hits.
        cache_hit_tokens=sum(cached.values()) if cached else gained(_HITS),
        evicted_blocks=gained(_EVICTED),
        preemptions=gained(_PREEMPTIONS),
        loaded_tokens=sum(cached.values()) - cached.get(_OWN_CACHE, 0.0) if cached else None,
        host_tokens=cached.get("host"),
        disk_tokens=cached.get("disk"),
        fallbacks=gained(_FALLBACKS) if engine_steps else None,
        engine_steps=engine_steps,
        policy_cpu_s=gained(_DECISION_S) if engine_steps else None,
        scheduler_cpu_s=gained(_SCHEDULER_S) if engine_steps else None,
        kv_tokens=after.kv_tokens,
    )
