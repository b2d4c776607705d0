"""One replay of sessions against one endpoint, and its figures."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from holdfast.bench.client import Client, Timeouts
from holdfast.bench.load import Load, LoadRecords, SendOptions
from holdfast.bench.prompts import DEFAULT_ALPHABET, Alphabet, PromptBuilder
from holdfast.bench.scrape import EngineCounters, counters_between, scrape_metrics
from holdfast.core.results import RunResult, TurnRecord
from holdfast.core.run_summary import summarize_run
from holdfast.traces.record import Session

__all__ = ["MetricsProvider", "Replay", "ReplayTarget", "replay_sessions"]

MetricsProvider = Callable[[], Awaitable[EngineCounters | None]]
"""Takes a snapshot of an engine's counters; None where it has none."""

# Engines and Holdfast publish their counters with a delay of at most this.
_METRICS_SETTLE_S = 1.0


@dataclass(frozen=True, slots=True)
class ReplayTarget:
    """An endpoint, and how to send to it.

    Attributes:
        url: Base URL of an OpenAI-compatible server, with or without `/v1`.
        model: Name to send; None asks the endpoint.
        policy: Name of its scheduling policy; None takes it from its metrics.
        alphabet: Token ids that its model has.
        timeouts: Its time limits; None for the defaults.
        metrics: Source of its counters; None reads its Prometheus page.
    """

    url: str
    model: str | None = None
    policy: str | None = None
    alphabet: Alphabet = DEFAULT_ALPHABET
    timeouts: Timeouts | None = None
    metrics: MetricsProvider | None = None

    @property
    def label_or_url(self) -> str:
        """The endpoint's name before its metrics are known."""
        return self.policy or self.url


@dataclass(frozen=True, slots=True)
class Replay:
    """A finished or stopped run.

    Attributes:
        result: Its figures.
        records: The turns and sessions that the figures are of.
        model: The name that was sent.
    """

    result: RunResult
    records: LoadRecords
    model: str


async def replay_sessions(
    target: ReplayTarget,
    sessions: Sequence[Session],
    options: SendOptions,
    *,
    seed: int = 0,
    stop: asyncio.Event | None = None,
    on_turn: Callable[[TurnRecord], None] | None = None,
    on_start: Callable[[LoadRecords], None] | None = None,
) -> Replay:
    """Replay `sessions` against `target` and compute the figures.

    Args:
        target: The endpoint.
        sessions: Started in this order.
        options: Decide how they are sent.
        seed: Recorded with the result; the order of `sessions` is already decided.
        stop: Once set, the run ends early and its result is marked partial.
        on_turn: Called with each turn as it ends.
        on_start: Called with the records before the first request, so that they outlive a
            cancellation.

    Raises:
        ConfigError: The prompts cannot be built with the scale and the vocabulary.
        EndpointError: The endpoint cannot be reached at all. Later errors are recorded in turns.
    """
    async with Client(target.url, timeouts=target.timeouts) as client:
        model = target.model or await client.model_name()

        async def page() -> EngineCounters | None:
            return await scrape_metrics(client.http, client.url)

        metrics = target.metrics or page
        prompts = PromptBuilder(options.token_scale, target.alphabet)
        load = Load(client, model, sessions, options, prompts, on_turn)
        if on_start is not None:
            on_start(load.records)
        before = await metrics()
        records = await load.run(stop)
        await asyncio.sleep(_METRICS_SETTLE_S if before is not None else 0.0)
        after = await metrics()
    result = summarize_run(
        records.turns,
        records.sessions,
        policy=target.policy or ("unknown" if after is None else after.policy),
        seed=seed,
        concurrency=options.concurrency,
        makespan_s=records.makespan_s,
        partial=records.partial,
        counters=counters_between(before, after),
    )
    return Replay(result, records, model)
