"""The scheduler's interface to the tiers.

Process: scheduler. Checked on vLLM 0.32 and 0.33.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, Final

from holdfast.core.session import Session
from holdfast.runtime.runtime import AgentRuntime
from holdfast.vllm.cache_layout import CacheLayout
from holdfast.vllm.compat import holding_requests, loading_requests
from holdfast.vllm.metrics import EngineMetrics
from holdfast.vllm.offload.host_tier import HostTier
from holdfast.vllm.offload.prefetch.prefetcher import Prefetcher
from holdfast.vllm.offload.transfer_gate import TransferGate
from holdfast.vllm.requests import RequestTracker
from holdfast.vllm.step_meter import StepMeter

__all__ = ["OffloadController"]

_KNOWN_PER_STORED: Final = 2


class OffloadController:
    """Host tier, transfer gate and prefetcher of one scheduler.

    With several cache groups it prefetches nothing: the blocks that must be resident differ by
    group.

    Args:
        scheduler: vLLM's, with its offloading connector.
        runtime: Gets the tier as its offload port, and remembers as many more blocks as that holds.
        tier: The host tier.
        prefetches: Whether to prefetch.

    Attributes:
        has_tiers: True; see `NoOffloadController`.
        tier: The host tier.
        gate: The transfer gate; None before it is installed.
    """

    has_tiers: Final = True

    def __init__(
        self, scheduler: Any, runtime: AgentRuntime, tier: HostTier, *, prefetches: bool
    ) -> None:
        runtime.tier = self.tier = tier
        self._scheduler = scheduler
        self._runtime = runtime
        self._connector = scheduler.connector
        self._clock: Callable[[], float] = getattr(scheduler, "clock", float)
        self.gate: TransferGate | None = None
        runtime.max_known_blocks += _KNOWN_PER_STORED * tier.capacity_blocks
        self._prefetcher: Prefetcher | None = None
        if prefetches and len(scheduler.kv_cache_config.kv_cache_groups) == 1:
            self._prefetcher = Prefetcher(scheduler, runtime, tier)

    def install_gate(
        self,
        tracker: RequestTracker,
        layout: CacheLayout,
        meter: StepMeter,
        metrics: EngineMetrics,
        guard: Callable[[str, Callable[[], Any]], Any],
    ) -> None:
        """Put a `TransferGate` into the connector, if that is ours. Mutates the connector.

        Only once and before any request.
        """
        connector = self._connector
        if hasattr(connector, "gate"):
            self.gate = connector.gate = TransferGate(
                connector.connector_scheduler,
                *(self.tier, self._runtime, tracker, layout, meter, metrics, guard),
            )

    @property
    def is_prefetching(self) -> bool:
        """Whether a prefetch is in flight."""
        return self._prefetcher is not None and self._prefetcher.is_busy

    @property
    def wants_step(self) -> bool:
        """Whether an engine without requests should step; see `Prefetcher.wants_step`."""
        return self._prefetcher is not None and self._prefetcher.wants_step

    def search_soon(self) -> None:
        """Prefetch what has just become certain; see `Prefetcher.search_soon`. Mutates."""
        if self._prefetcher is not None:
            self._prefetcher.search_soon()

    @property
    def prefetches(self) -> Counter[str]:
        """Prefetches by outcome (counts)."""
        return Counter() if self._prefetcher is None else self._prefetcher.outcomes

    def holding_requests(self) -> list[Any]:
        """Waiting requests that have blocks: their loads are in flight or have just ended."""
        return holding_requests(self._scheduler)

    def loading_requests(self) -> list[str]:
        """Ids of waiting requests whose loads are in flight."""
        return loading_requests(self._scheduler)

    @property
    def is_short(self) -> bool:
        """Whether a request whose load has ended waits for blocks.

        Prefetches must not take them: they could do so for ever.
        """
        loading = self.loading_requests()
        return any(r.request_id not in loading for r in self.holding_requests())

    def before_step(
        self,
        num_steps: int,
        queued: Callable[[], Iterable[Session]],
        free_blocks: Callable[[], int],
    ) -> None:
        """Start prefetches before a step; see `Prefetcher.step`. Mutates the scheduler."""
        if self._prefetcher is not None:
            self._prefetcher.step(num_steps, queued, free_blocks)

    def arrived(self, request: Any) -> None:
        """Count the prefetches that an arriving request needs. Mutates."""
        if self._prefetcher is not None:
            self._prefetcher.needed(request.block_hashes, was_queued=False)

    def started(self, request: Any) -> None:
        """Count the prefetches that an admitted request needs. Mutates."""
        if self._prefetcher is not None:
            self._prefetcher.needed(request.block_hashes, was_queued=True)

    def step_planned(self, output: Any) -> None:
        """Record the copies that a planned step starts. Mutates."""
        self.tier.step_planned(output.kv_connector_metadata, self._clock())

    def step_ended(self, model_output: Any) -> float:
        """Learn from the copies that a step reports; see `HostTier.step_ended`. Mutates."""
        return self.tier.step_ended(model_output.kv_connector_output, self._clock())

    def halt_prefetches(self) -> bool:
        """Stop prefetching so that all blocks become free; see `Prefetcher.halt`. Mutates."""
        return self._prefetcher is None or self._prefetcher.halt()

    def content_dropped(self) -> None:
        """Prefetch again after the KV cache was emptied. Mutates."""
        if self._prefetcher is not None:
            self._prefetcher.resume()

    def fall_back(self) -> None:
        """Stop prefetches, lift the gate's limits, evict from the tier by age. Mutates."""
        self.tier.detach()
        if self.gate is not None:
            self.gate.lift_limits()
        if self._prefetcher is not None:
            self._prefetcher.close()
