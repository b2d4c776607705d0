"""The scheduler's desk for tiers: what it tells them and asks of them, in one place.

Process: scheduler. Checked on vLLM 0.32 and 0.33.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, Final

from holdfast.core.session import Session
from holdfast.runtime.runtime import AgentRuntime
from holdfast.vllm.cache_layout import CacheLayout
from holdfast.vllm.metrics import EngineMetrics
from holdfast.vllm.offload.host_tier import HostTier
from holdfast.vllm.offload.prefetch.prefetcher import Prefetcher
from holdfast.vllm.offload.transfer_gate import TransferGate
from holdfast.vllm.requests import RequestTracker
from holdfast.vllm.step_meter import StepMeter

__all__ = ["OffloadController"]

_KNOWN_PER_STORED: Final = 2


class OffloadController:
    """Host tier and prefetching of one scheduler.

    With several cache groups nothing is prefetched: what must be there differs by group.

    Args:
        scheduler: vLLM's, with its offloading connector.
        runtime: Knows the sessions; it is given the tier, and remembers as much more as that holds.
        tier: The host tier.
        prefetches: Whether blocks are brought closer ahead of time.

    Attributes:
        tier: The host tier.
        gate: Says which turns copy; None before it is installed.
    """

    def __init__(
        self, scheduler: Any, runtime: AgentRuntime, tier: HostTier, *, prefetches: bool
    ) -> None:
        runtime.tier = self.tier = tier
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
        desk: RequestTracker,
        grain: CacheLayout,
        meter: StepMeter,
        metrics: EngineMetrics,
        guard: Callable[[str, Callable[[], Any]], Any],
    ) -> None:
        """Put a `TransferGate` between scheduler and connector, where that is ours. Mutates.

        Once, before any request.
        """
        connector = self._connector
        if hasattr(connector, "gate"):
            self.gate = connector.gate = TransferGate(
                connector.connector_scheduler,
                *(self.tier, self._runtime, desk, grain, meter, metrics, guard),
            )

    @property
    def is_prefetching(self) -> bool:
        """Whether blocks are on their way that no request asked for."""
        return self._prefetcher is not None and self._prefetcher.is_busy

    @property
    def prefetches(self) -> Counter[str]:
        """Chains that were brought closer ahead of time, by outcome (counts)."""
        return Counter() if self._prefetcher is None else self._prefetcher.outcomes

    def step(
        self,
        num_steps: int,
        waiting: Callable[[], Iterable[Session]],
        spare_blocks: Callable[[], int],
    ) -> None:
        """An engine step is about to be planned; see `Prefetcher.step`. Mutates the scheduler."""
        if self._prefetcher is not None:
            self._prefetcher.step(num_steps, waiting, spare_blocks)

    def arrived(self, request: Any) -> None:
        """A request is here. Mutates."""
        if self._prefetcher is not None:
            self._prefetcher.needed(request.block_hashes, waited=False)

    def started(self, request: Any) -> None:
        """A request was let in. Mutates."""
        if self._prefetcher is not None:
            self._prefetcher.needed(request.block_hashes, waited=True)

    def planned(self, output: Any) -> None:
        """A step was planned: take note of the copies that it begins. Mutates."""
        self.tier.planned(output.kv_connector_metadata, self._clock())

    def ended(self, model_output: Any) -> float:
        """A step has ended: learn from its copies; see `HostTier.ended`. Mutates."""
        return self.tier.ended(model_output.kv_connector_output, self._clock())

    def make_way(self) -> bool:
        """Blocks are to be free: stop prefetching for a while; see `Prefetcher.halt`. Mutates."""
        return self._prefetcher is None or self._prefetcher.halt()

    def content_dropped(self) -> None:
        """The cache is empty, and prefetching goes on. Mutates."""
        if self._prefetcher is not None:
            self._prefetcher.resume()

    def let_go(self) -> None:
        """Holdfast is out: nothing is prefetched, and the tier goes on by age. Mutates."""
        self.tier.let_go()
        if self.gate is not None:
            self.gate.let_go()
        if self._prefetcher is not None:
            self._prefetcher.drain()
