"""What an engine does now, from two readings of its metrics and its state."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

from holdfast.core.metric_table import METRIC_OF
from holdfast.core.miss import REPEATED_REASONS
from holdfast.core.seen_state import SeenSession, SeenState

__all__ = [
    *(
        "EngineReading",
        "EngineView",
        "MetricValue",
        "down",
        "listing_order",
        "total_view",
        "view_of",
    ),
]

# vLLM's own metrics; a version without one leaves its figure unknown.
_RUNNING: Final = "vllm:num_requests_running"
_WAITING: Final = "vllm:num_requests_waiting"
_USED_SHARE: Final = "vllm:kv_cache_usage_perc"
_CACHE_CONFIG: Final = "vllm:cache_config_info"
_BY_SOURCE: Final = "vllm:prompt_tokens_cached_by_source_total"
_QUERIES: Final = "vllm:prefix_cache_queries_total"
_HITS: Final = "vllm:prefix_cache_hits_total"
_OWN_CACHE: Final = "device"
_LISTED: Final = ("waiting", "running", "at_tool", "human_away")


class MetricValue(msgspec.Struct, frozen=True):
    """One value of a page of metrics, with its labels."""

    name: str
    labels: Mapping[str, str]
    value: float


class EngineReading(msgspec.Struct, frozen=True):
    """One look at an engine.

    Attributes:
        at_s: When (s, any clock that goes forward).
        metrics: All values of `/metrics`.
        states: Answer of the control routes, one for each data-parallel engine; empty without it.
        routes: Why there is no such answer; "" where there is one.
    """

    at_s: float
    metrics: Sequence[MetricValue]
    states: Sequence[SeenState] = ()
    routes: str = ""


class EngineView(msgspec.Struct, kw_only=True):
    """An engine now; None for what it does not report. Rates are of the last interval.

    Attributes:
        url: Its address.
        error: Why it cannot be read now; "" while it can.
        policy: Name of its policy.
        sessions: Sessions by state (counts).
        running: Requests that run (count).
        waiting: Requests that wait (count).
        held: Those that admission keeps queued (count).
        capacity_blocks: KV blocks of the cache (count).
        used_blocks: Blocks of running requests (count).
        reserved_blocks: Reserved ones (count); None without the control routes.
        cached_tokens: Prompt tokens that hit in the interval (count).
        missed: Missing prompt tokens of the interval by reason (counts).
        hit_ratio: Of the interval; of the last turns where it had none.
        possible_hit_ratio: The same with an infinite cache.
        is_recent: Whether both are of the interval.
        evicted_blocks_per_s: Evictions.
        loaded_tokens_per_s: Prompt tokens loaded from tiers, by tier.
        prefetches_per_s: Prefetches by outcome.
        offload_is_paying: Whether KV offload is enabled.
        alarms: Alarms and fallbacks since the start, by kind (counts).
        interval_s: Length of the interval (s); 0 at the first look.
        listed: The sessions, those that wait first.
        has_more: Whether there are more sessions than listed.
        routes: Why sessions are not listed; "" where they are.
    """

    url: str
    error: str = ""
    policy: str = ""
    sessions: dict[str, int] = {}
    running: int | None = None
    waiting: int | None = None
    held: int | None = None
    capacity_blocks: int | None = None
    used_blocks: int | None = None
    reserved_blocks: int | None = None
    cached_tokens: float = 0.0
    missed: dict[str, float] = {}
    hit_ratio: float | None = None
    possible_hit_ratio: float | None = None
    is_recent: bool = False
    evicted_blocks_per_s: float | None = None
    loaded_tokens_per_s: dict[str, float] = {}
    prefetches_per_s: dict[str, float] = {}
    offload_is_paying: bool | None = None
    alarms: dict[str, int] = {}
    interval_s: float = 0.0
    listed: list[SeenSession] = []
    has_more: bool = False
    routes: str = ""


class _Page:
    """The values of one reading by name and label. Pure."""

    def __init__(self, metrics: Iterable[MetricValue]) -> None:
        self._by_name: dict[str, list[MetricValue]] = {}
        for one in metrics:
            self._by_name.setdefault(one.name, []).append(one)

    def total(self, name: str) -> float | None:
        values = self._by_name.get(name)
        return None if values is None else sum(one.value for one in values)

    def count(self, name: str) -> int | None:
        total = self.total(name)
        return None if total is None else round(total)

    def lowest(self, name: str) -> float | None:
        return min((one.value for one in self._by_name.get(name, ())), default=None)

    def by(self, name: str, label: str) -> dict[str, float]:
        sums: Counter[str] = Counter()
        for one in self._by_name.get(name, ()):
            sums[one.labels.get(label, "")] += one.value  # type: ignore[assignment]
        return dict(sums)

    def labels(self, name: str) -> list[Mapping[str, str]]:
        return [one.labels for one in self._by_name.get(name, ()) if one.value]


def _name(metric: str) -> str:
    return METRIC_OF[metric].sample


def view_of(url: str, before: EngineReading | None, after: EngineReading) -> EngineView:
    """What an engine does now. Pure.

    Args:
        url: Its address.
        before: The reading before; None at the first. After a restart, when counters are lower
            than before, there is no interval either.
        after: The last reading.
    """
    page = _Page(after.metrics)
    policies = page.labels(_name("holdfast_policy_info"))
    view = EngineView(
        url=url,
        policy=policies[0].get("policy", "") if policies else "stock",
        sessions={k: round(v) for k, v in page.by(_name("holdfast_sessions"), "state").items()},
        running=page.count(_RUNNING),
        waiting=page.count(_WAITING),
        held=page.count(_name("holdfast_requests_held")),
        routes=after.routes,
    )
    paying = page.lowest(_name("holdfast_offload_is_paying"))
    view.offload_is_paying = None if paying is None else paying > 0
    _add_alarms(view, page)
    _add_blocks(view, page, after.states)
    _add_sessions(view, after.states)
    if before is not None and after.at_s > before.at_s:
        _add_rates(view, _Page(before.metrics), page, after.at_s - before.at_s)
    if not view.is_recent:
        view.hit_ratio = page.lowest(_name("holdfast_hit_ratio"))
        view.possible_hit_ratio = page.lowest(_name("holdfast_possible_hit_ratio"))
    return view


def down(url: str, error: str, last: EngineView | None) -> EngineView:
    """The view of an engine that cannot be read now. Pure."""
    return EngineView(url=url, error=error, policy="" if last is None else last.policy)


def total_view(views: Sequence[EngineView]) -> EngineView:
    """All engines together; those that cannot be read count as nothing. Pure."""
    known = [view for view in views if not view.error]
    total = EngineView(url="all", interval_s=max((v.interval_s for v in known), default=0.0))
    blocks = ("capacity_blocks", "used_blocks", "reserved_blocks")
    for name in ("running", "waiting", "held", *blocks):
        setattr(total, name, _sum(getattr(view, name) for view in known))
    total.evicted_blocks_per_s = _sum(view.evicted_blocks_per_s for view in known)
    for name in ("sessions", "missed", "loaded_tokens_per_s", "prefetches_per_s", "alarms"):
        setattr(total, name, _added(getattr(view, name) for view in known))
    total.cached_tokens = sum(view.cached_tokens for view in known)
    _add_hit_ratios(total)
    return total


def _add_rates(view: EngineView, before: _Page, after: _Page, interval_s: float) -> None:
    cached = _gained(before, after, _name("holdfast_cached_tokens"))
    missed = _gained_by(before, after, _name("holdfast_missed_tokens"), "reason")
    evicted = _gained(before, after, _name("holdfast_evicted_blocks"))
    loaded = _gained_by(before, after, _BY_SOURCE, "source")
    prefetches = _gained_by(before, after, _name("holdfast_prefetches"), "outcome")
    gains = [cached or 0.0, evicted or 0.0, *missed.values(), *loaded.values()]
    if min(gains) < 0 or min(prefetches.values(), default=0.0) < 0:
        return  # the engine has started again
    view.interval_s = interval_s
    if cached is not None or evicted is not None:  # no label of evictions before the first one
        view.evicted_blocks_per_s = (evicted or 0.0) / interval_s
    loaded.pop(_OWN_CACHE, None)
    view.loaded_tokens_per_s = {tier: n / interval_s for tier, n in loaded.items() if n}
    view.prefetches_per_s = {outcome: n / interval_s for outcome, n in prefetches.items()}
    if cached is not None:
        view.cached_tokens, view.missed = cached, missed
        _add_hit_ratios(view)
    else:
        queries = _gained(before, after, _QUERIES)
        hits = _gained(before, after, _HITS)
        if queries and hits is not None:
            view.hit_ratio, view.is_recent = hits / queries, True


def _add_hit_ratios(view: EngineView) -> None:
    """The hit ratios of the interval's tokens, if there were any."""
    total = view.cached_tokens + sum(view.missed.values())
    if total:
        repeated = sum(view.missed.get(reason, 0.0) for reason in REPEATED_REASONS)
        view.hit_ratio = view.cached_tokens / total
        view.possible_hit_ratio = (view.cached_tokens + repeated) / total
        view.is_recent = True


def _add_alarms(view: EngineView, page: _Page) -> None:
    alarms = page.by(_name("holdfast_alarms"), "kind")
    alarms["fallback"] = page.total(_name("holdfast_fallbacks")) or 0.0
    alarms["oversized"] = page.total(_name("holdfast_oversized_requests")) or 0.0
    view.alarms = {kind: round(number) for kind, number in alarms.items() if number}


def _add_blocks(view: EngineView, page: _Page, states: Sequence[SeenState]) -> None:
    """Blocks by the control routes, else by vLLM's metrics."""
    if states:
        view.capacity_blocks = sum(state.engine.capacity_blocks for state in states)
        free = sum(state.engine.free_blocks for state in states)
        view.used_blocks = max(view.capacity_blocks - free, 0)
        view.reserved_blocks = sum(state.engine.reserved_blocks for state in states)
        return
    numbers = [labels.get("num_gpu_blocks", "") for labels in page.labels(_CACHE_CONFIG)]
    known = [int(number) for number in numbers if number.isdecimal()]
    share = page.lowest(_USED_SHARE)
    if known:
        view.capacity_blocks = sum(known)
        view.used_blocks = None if share is None else round(share * view.capacity_blocks)


def _add_sessions(view: EngineView, states: Sequence[SeenState]) -> None:
    live = [one for state in states for one in state.sessions if one.state in _LISTED]
    view.listed = sorted(live, key=listing_order)
    view.has_more = any(state.next_after is not None for state in states)


def listing_order(session: SeenSession) -> tuple[float, ...]:
    """Order of a list: waiting ones, longest first; then by state and size. Pure."""
    waited_s = 0.0 if session.starts_after is None else session.starts_after.waited_s
    return _LISTED.index(session.state), -waited_s, -session.context_blocks


def _gained(before: _Page, after: _Page, name: str) -> float | None:
    now = after.total(name)
    return None if now is None else now - (before.total(name) or 0.0)


def _gained_by(before: _Page, after: _Page, name: str, label: str) -> dict[str, float]:
    then = before.by(name, label)
    return {key: value - then.get(key, 0.0) for key, value in after.by(name, label).items()}


def _sum(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _added(parts: Iterable[Mapping[str, float]]) -> dict[str, float]:
    total: Counter[str] = Counter()
    for part in parts:
        total.update(part)
    return dict(total)
