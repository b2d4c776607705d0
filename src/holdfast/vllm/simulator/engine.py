"""vLLM's scheduler as the simulator's engine, under any policy.

Process: the caller's. Checked on vLLM 0.28 ... 0.33.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from holdfast.config import HoldfastConfig
from holdfast.core.commands import Command
from holdfast.core.results import Counters
from holdfast.errors import HoldfastError
from holdfast.policies.base import Oracle
from holdfast.policies.engine_modes import ENGINE_MODES, STOCK
from holdfast.policies.registry import policy_spec
from holdfast.sim.engine import SimOutcome, SimRequest, SimStep
from holdfast.vllm.control.messages import encode
from holdfast.vllm.offload.no_offload import NoOffloadController
from holdfast.vllm.scheduler import HoldfastScheduler
from holdfast.vllm.simulator.workerless import EnginePlan, EngineShape, WorkerlessEngine
from holdfast.vllm.stock import CountedAsyncScheduler

if TYPE_CHECKING:
    from holdfast.vllm.offload.controller import OffloadController
    from holdfast.vllm.simulator.disk_tier import SimulatedDisk
    from holdfast.vllm.simulator.host_tier import HostLink

__all__ = ["SimulatedEngine"]

_MOST_REPEATS_WHILE_WAITING = 8
_NO_OFFLOAD = NoOffloadController()  # of vLLM's own scheduler


class SimulatedEngine(WorkerlessEngine):
    """A scheduler on a virtual clock.

    Args:
        policy: Who decides.
        shape: Size of the engine; the policy says whether it has a prefix cache.
        clock: Gives the simulated time (s).
        oracle: The future, for bounds.
        config: Holdfast's settings; its policy is replaced. Errors of a policy are raised.
        host_block_s: Time to copy a block to or from host memory (s), where the shape has any.
        disk_block_s: Time to read or to write a block on the disk below it (s).

    Raises:
        PolicyError: There is no such policy.
    """

    def __init__(
        self,
        policy: str,
        shape: EngineShape,
        clock: Callable[[], float],
        oracle: Oracle | None = None,
        config: HoldfastConfig | None = None,
        host_block_s: float = 0.0,
        disk_block_s: float = 0.0,
    ) -> None:
        policy_spec(policy)
        has_prefix_cache = ENGINE_MODES.get(policy, STOCK).has_prefix_cache
        super().__init__(
            _scheduler_cls(policy, clock, oracle, config or HoldfastConfig()),
            replace(
                shape,
                has_prefix_cache=has_prefix_cache,
                host_blocks=shape.host_blocks if has_prefix_cache else 0,
                host_policy="lru" if policy in ENGINE_MODES else "HostPolicy",
                disk_blocks=shape.disk_blocks if has_prefix_cache else 0,
            ),
            clock,
            host_block_s,
            disk_block_s,
        )
        self._num_preemptions = 0
        self._num_extra_steps = 0
        self._is_settled = False
        self._plan: EnginePlan | None = None

    def command(self, command: Command) -> None:
        """Take in a command; see `SimEngine`. vLLM's own scheduler ignores it."""
        if isinstance(self.scheduler, HoldfastScheduler):
            self.scheduler(encode(command))

    def submit(self, request: SimRequest) -> None:
        """Take in a request; see `SimEngine`."""
        self._is_settled = False
        self.add(
            self.request(
                request.request_id,
                list(request.block_keys),
                request.prompt_tokens,
                request.output_tokens,
                extra_args=dict(request.hints) or None,
                session_id=request.session_id,
            )
        )

    def plan_step(self, most_repeats: int = 1) -> SimStep:
        """Plan a step; see `SimEngine`."""
        repeats = self._repeats(most_repeats)
        self.scheduler.steps_a_call = repeats
        self._plan = plan = self.plan(repeats)
        requests = self.scheduler.requests
        scheduled: dict[str, int] = plan.output.num_scheduled_tokens
        drafts = plan.output.scheduled_spec_decode_tokens
        # An asynchronous scheduler counts a step's tokens as computed once they are planned.
        work, decodes = [], []
        for number, num_tokens in scheduled.items():
            context = requests[number].num_computed_tokens - num_tokens
            if number in drafts:
                decodes.append((1, context + (num_tokens - 1) // 2))
            else:
                work.append((num_tokens, context))
        cached = {
            new.req_id: new.num_computed_tokens
            for new in plan.output.scheduled_new_reqs
            if not self.is_ours(new.req_id)
        }
        loaded = {name: self._take_loaded_tokens(name) for name in cached}
        self._num_extra_steps += repeats - 1
        self._is_settled = not plan.output.scheduled_new_reqs
        return SimStep(work, decodes, repeats, cached, loaded, plan.stall_s)

    def end_step(self) -> SimOutcome:
        """The step's time is over; see `SimEngine`."""
        assert self._plan is not None
        requests = self.scheduler.requests
        ending = [requests[i] for i in self._plan.output.num_scheduled_tokens]
        step = self.answer(self._plan)
        finished = set(step.finished)
        self._num_preemptions += sum(r.num_preemptions for r in ending if r.request_id in finished)
        self._is_settled = self._is_settled and not finished
        self._plan = None
        return SimOutcome(step.started, step.finished, step.num_output_tokens)

    def drop_content(self) -> None:
        """Empty the prefix cache of an engine without requests; what was learned is kept.

        Raises:
            HoldfastError: The engine still has requests.
        """
        if not self.scheduler.reset_prefix_cache():
            raise HoldfastError("the engine still has requests, so its cache cannot be dropped")

    def _take_loaded_tokens(self, request_id: str) -> int:
        """Tokens that were loaded from the host tier for a request."""
        if self._link is None:
            return 0
        return self._link.take_loaded(request_id) * self.shape.block_size_tokens

    def _num_loaded_tokens(self, tier: HostLink | SimulatedDisk | None) -> int | None:
        return None if tier is None else tier.num_loaded_blocks * self.shape.block_size_tokens

    @property
    def _offload(self) -> OffloadController | NoOffloadController:
        return getattr(self.scheduler, "offload", _NO_OFFLOAD)

    def _repeats(self, most: int) -> int:
        """Steps that would only decode one token more for each running request."""
        scheduler = self.scheduler
        running = scheduler.running
        if most < 2 or not running:
            return 1
        if self._offload.is_prefetching:
            return 1
        if scheduler.get_request_counts()[1]:
            if not self._is_settled:
                return 1
            most = min(most, _MOST_REPEATS_WHILE_WAITING)
        most = min(most, self.shape.max_num_batched_tokens // len(running))
        for request in running:
            if not request.num_output_tokens:
                return 1
            most = min(most, request.max_tokens - request.num_output_tokens)
        return max(most, 1)

    def counters(self) -> Counters:
        """What was counted since the engine was built; see `SimEngine`."""
        counted: dict[str, float] = self.scheduler.counted
        by_metric: dict[str, float] = {}
        for key, value in counted.items():
            metric = key.partition("/")[0]
            by_metric[metric] = by_metric.get(metric, 0.0) + value
        shape = self.shape
        return Counters(
            evicted_blocks=by_metric.get("holdfast_evicted_blocks"),
            preemptions=self._num_preemptions,
            loaded_tokens=self._num_loaded_tokens(self._link),
            prefetches=dict(self._offload.prefetches) if self._offload.has_tiers else None,
            disk_loaded_tokens=self._num_loaded_tokens(self._disk),
            fallbacks=by_metric.get("holdfast_fallbacks", 0.0),
            engine_steps=by_metric["holdfast_engine_steps"] + self._num_extra_steps,
            policy_cpu_s=by_metric.get("holdfast_decision_seconds"),
            scheduler_cpu_s=by_metric.get("holdfast_scheduler_seconds"),
            kv_tokens=(shape.num_blocks - 1) * shape.block_size_tokens,
        )


def _scheduler_cls(
    policy: str,
    clock: Callable[[], float],
    oracle: Oracle | None,
    config: HoldfastConfig,
) -> type[Any]:
    if policy in ENGINE_MODES:
        return CountedAsyncScheduler

    class PolicyScheduler(HoldfastScheduler):
        """Holdfast's scheduler with one policy, on the simulation's clock."""

    PolicyScheduler.clock = staticmethod(clock)
    PolicyScheduler.oracle = oracle
    PolicyScheduler.settings = replace(config, policy=policy, strict=True)
    return PolicyScheduler
