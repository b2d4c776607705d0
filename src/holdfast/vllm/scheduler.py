"""The scheduler for `--scheduler-cls holdfast.vllm.scheduler.HoldfastScheduler`.

Process: scheduler (engine core). Checked on vLLM 0.28 ... 0.33.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from vllm.v1.request import RequestStatus

from holdfast.cache.eviction_queue import EvictionQueue
from holdfast.cache.prefix_tree import Node
from holdfast.config import HoldfastConfig, load_config
from holdfast.core.commands import Command, CommandOutcome, ToolFinished
from holdfast.core.session import Session, SessionState
from holdfast.core.tenants import Fairness, Tenants
from holdfast.policies.base import Oracle, Priority, PriorityClass
from holdfast.runtime.runtime import AgentRuntime
from holdfast.vllm.cache_layout import cache_layout
from holdfast.vllm.compat import engine_number, uses_priority
from holdfast.vllm.control.engine_control import EngineControl
from holdfast.vllm.control.state import EngineState
from holdfast.vllm.learned_file import learned_file_of
from holdfast.vllm.offload.attach import offload_controller_of
from holdfast.vllm.oversized import OversizedRequests
from holdfast.vllm.reports import EngineReports
from holdfast.vllm.request_queue import AdmissionQueue
from holdfast.vllm.requests import RequestTracker
from holdfast.vllm.step_meter import StepMeter
from holdfast.vllm.stock_queues import restore_free_queue, restore_request_queue
from holdfast.vllm.turn_reader import TurnReader
from holdfast.vllm.versions import check_scheduler, engine_version
from holdfast.vllm.warm_ups import warm_ups_of
from holdfast.vllm.warming_scheduler import WarmingScheduler

__all__ = ["HoldfastScheduler"]

logger = logging.getLogger(__name__)

_WAITING_PER_SKIPPED_STEP = 128
_EVICTED_PER_STALE = 16
_MAX_STALE_A_STEP = 8
_KNOWN_PER_CACHED = 8

T = TypeVar("T")


class HoldfastScheduler(WarmingScheduler):
    """vLLM's scheduler with Holdfast's eviction order, admission and prefetch.

    Batches, chunks and preemption stay vLLM's. Each call into Holdfast is guarded: an error is
    counted and logged once, and vLLM's own order is used from then on.

    Attributes:
        clock: Monotonic clock (s); replaced by drivers with a clock of their own.
        oracle: The future, set by drivers that know it.
        settings: Holdfast's settings, set by drivers; None reads the environment.
        offload: The offload controller; a null object without tiers.
        knows_tokens: Whether prompts have their token ids; drivers may know prefix hashes only.
        steps_a_call: Engine steps that a call of `schedule` stands for; drivers may take several.
    """

    clock: Callable[[], float] = staticmethod(time.monotonic)
    oracle: Oracle | None = None
    settings: HoldfastConfig | None = None
    knows_tokens = True
    steps_a_call = 1

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        check_scheduler(engine_version())
        super().__init__(*args, **kwargs)
        config = self._config = self.settings or load_config(None, os.environ)
        number = engine_number(self)
        self._reports = EngineReports(config, number, lambda: self.clock(), self.vllm_config)
        self._metrics = self._reports.metrics
        self._learned = learned_file_of(config.learned_file, number)
        learned = self._learned.start()
        self._pool = self.kv_cache_manager.block_pool
        self._spare_blocks = int(config.headroom_ratio * len(self._pool.blocks))
        self._is_active = bool(self._pool.enable_caching)
        self._runtime = AgentRuntime(
            max_sessions=config.max_sessions,
            max_wait_ratio=config.max_wait_ratio,
            ttft_target_s=config.ttft_p99_target_s,
            max_known_blocks=_KNOWN_PER_CACHED * len(self._pool.blocks),
            policy=config.policy,
            predictions=config.predictions,
            oracle=self.oracle,
            returns=learned,
            agent_calls=learned.agent_calls,
            agent_runs=learned.agent_runs,
            tenants=Tenants(Fairness(by=config.fairness, weights=config.weights)),
        )
        self._runtime.listener = self._reports.observe
        self.offload = offload_controller_of(
            self, self._runtime, self._stored_priority, prefetches=config.prefetch
        )
        self._hash_block_tokens = cache_layout(self).hash_block_tokens
        self._reader = TurnReader(
            self.vllm_config.model_config, self._runtime, self._reports.pause_explained
        )
        self._oversized = OversizedRequests(self)
        self._orders_requests = self._must_fall_back = False
        self._num_steps = self._admitted_at_step = 0
        self._num_evicted = 0  # since the last step
        self._meter = StepMeter(self._runtime.costs)
        if self._is_active:
            self._install(config)
        else:
            logger.warning("Holdfast is inactive; remove --no-enable-prefix-caching to use it")
        state = EngineState(self, self._runtime, number, config.policy, lambda: self._tracker.turns)
        self._control = EngineControl(state, self._reports, self._take_command)
        self._metrics.watch(self._take_census)

    def _install(self, config: HoldfastConfig) -> None:
        pool = self._pool
        self._queue = EvictionQueue(
            pool.free_block_queue.get_all_free_blocks(),
            len(pool.blocks),
            self._runtime.tree,
            self._priority_of,
            self._note_evicted,
        )
        pool.free_block_queue = self._queue
        layout = cache_layout(self)
        self._runtime.attach(self._queue, len(pool.blocks) - 1, self._hash_block_tokens)
        if config.eviction == "lru":
            self._queue.use_lru()
        self._tracker = RequestTracker(self._runtime, self._queue, pool, layout)
        self._runtime.hints.retention.share = config.retain_share
        self._tracker.configure(reads_hints=config.hints, heeds_priority=uses_priority(self))
        self.offload.install_gate(self._tracker, layout, self._meter, self._metrics, self._guard)
        self.warm_ups = warm_ups_of(self, self._runtime, self._queue, config)
        self._orders_requests = (
            config.admission == "policy" and self._runtime.policies.orders_requests
        )
        if self._orders_requests:
            self.waiting = AdmissionQueue()

    # What vLLM calls.

    def add_request(self, request: Any) -> None:
        """Take in a request; see vLLM."""
        if self._is_active and request.request_id not in self.requests:
            self._guard("add_request", lambda: self._arrive(request))
        super().add_request(request)

    def schedule(self, *args: Any, **kwargs: Any) -> Any:
        """Plan one engine step; see vLLM."""
        started_s = time.perf_counter()
        self._learned.keep()
        if self._is_active:
            self._guard("schedule", self._prepare)
            self._metrics.decided(time.perf_counter() - started_s)
        if self._must_fall_back:
            self._fall_back()
        output = super().schedule(*args, **kwargs)
        if self._is_active:
            decided_s = time.perf_counter()
            self._guard("started", lambda: self._note_planned(output))
            self._metrics.decided(time.perf_counter() - decided_s)
        self._metrics.scheduled(time.perf_counter() - started_s)
        return output

    def update_from_output(
        self, scheduler_output: Any, model_runner_output: Any, *args: Any, **kwargs: Any
    ) -> Any:
        """Take in what a step computed; see vLLM."""
        if self._is_active:
            self._guard("meter", lambda: self._note_ended(scheduler_output, model_runner_output))
        outputs = super().update_from_output(scheduler_output, model_runner_output, *args, **kwargs)
        if self._oversized:
            self._guard("oversized", lambda: self._oversized.end(outputs))
        if self._is_active:
            self._guard("warm_up", self.warm_ups.start)
        return outputs

    @property
    def counted(self) -> dict[str, float]:
        """What was counted, as `EngineMetrics.snapshot` gives it."""
        self._take_census()
        return self._metrics.snapshot()

    def reset_prefix_cache(self, *args: Any, **kwargs: Any) -> bool:
        """Drop all cached content; see vLLM.

        False, and nothing is preempted, while a prefetch still writes blocks; try again then.
        """
        if self._is_active and self._guard("make_way", self._is_prefetching):
            return False
        is_reset: bool = super().reset_prefix_cache(*args, **kwargs)
        if is_reset and self._is_active:
            self._guard("reset_prefix_cache", self._forget_content)
        return is_reset

    def has_requests(self) -> bool:
        """Whether the engine has work, prefetches included; see vLLM."""
        return bool(super().has_requests()) or self.offload.wants_step

    def __call__(self, request: bytes) -> bytes:
        """Answer a request of the control routes; a utility call of vLLM's reaches it."""
        self._runtime.tick(self.clock())
        return self._control.answer(request, is_active=self._is_active)

    def shutdown(self) -> None:
        """End the engine core's side; see vLLM."""
        self._learned.close()
        self._reports.close()
        super().shutdown()

    def _preempt_request(self, request: Any, *args: Any, **kwargs: Any) -> None:
        super()._preempt_request(request, *args, **kwargs)
        if self._is_active:
            self._guard("preempt", lambda: self._preempted(request))

    def _free_request(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        if self._is_active:
            self._guard("finish", lambda: self._leave(request))
        return super()._free_request(request, *args, **kwargs)

    # Observe.

    def _take_command(self, command: Command) -> CommandOutcome | None:
        self._guard("findings", self._reader.deliver)
        outcome = self._guard("command", lambda: self._runtime.command(command))
        if isinstance(command, ToolFinished):
            self.offload.search_soon()
        return outcome

    def _arrive(self, request: Any) -> None:
        self._runtime.tick(self.clock())
        # An idle engine takes no steps: the turn end of this very session may be unread.
        self._guard("findings", self._reader.deliver)
        turn, notes = self._tracker.arrive(request, knows_tokens=self.knows_tokens)
        self.offload.arrived(request)
        self.warm_ups.arrived(turn.session, request, self._tracker.hints_of(request.request_id))
        self._reader.arrived(turn, request)
        self._reports.turn_arrived(turn, request.num_prompt_tokens, notes)
        self._check_size(request)

    def _preempted(self, request: Any) -> None:
        self._tracker.preempted(request.request_id)
        self._check_size(request)

    def _check_size(self, request: Any) -> None:
        if self._oversized.check(request):
            self._metrics.oversized()

    def _leave(self, request: Any) -> None:
        self._runtime.tick(self.clock())
        self.warm_ups.ended(request.request_id)
        left = self._tracker.leave(request, None, knows_tokens=self.knows_tokens)
        if left is None:
            return
        turn, hints = left
        self._reports.turn_ended(turn, request.num_output_tokens, request.trace_headers)
        self._reports.hints_carried_out(self._runtime.hints.take_notes())
        if hints.turn_end is None and request.status != RequestStatus.FINISHED_ABORTED:
            self._reader.answered(turn, request)

    def _note_planned(self, output: Any) -> None:
        now_s = self.clock()
        self._queue.settle()
        self._meter.step_planned(output, self.requests, now_s, self.steps_a_call)
        self.offload.step_planned(output)
        request_ids = [
            *(new.req_id for new in output.scheduled_new_reqs),
            *output.scheduled_cached_reqs.resumed_req_ids,
            *self.offload.loading_requests(),
        ]
        for request_id in request_ids:
            turn = self._tracker.turn_of(request_id)
            if turn is None or turn.session.state is SessionState.RUNNING:
                continue
            self._tracker.start(turn)
            self.offload.started(self.requests[request_id])
            self._reports.turn_started(turn)

    def _note_ended(self, output: Any, model_output: Any) -> None:
        copying_s = self.offload.step_ended(model_output)
        self._meter.step_ended(output, self.clock(), copying_s)

    def _is_prefetching(self) -> bool:
        """Whether prefetches still write blocks; no more begin until the cache is empty."""
        self._runtime.tick(self.clock())
        is_writing = not self.offload.halt_prefetches()
        if is_writing:
            logger.info("prefix cache not reset: a prefetch still writes blocks; try again")
        return is_writing

    def _forget_content(self) -> None:
        self.offload.content_dropped()
        self._queue.forget_content()
        self._runtime.content_dropped()
        for request_id in self._tracker.forget():
            request = self.requests.get(request_id)
            if request is not None:
                self._arrive(request)

    # Decide.

    def _prepare(self) -> None:
        self._runtime.tick(self.clock())
        self._num_steps += 1
        num_stale = -(-self._num_evicted // _EVICTED_PER_STALE)
        self._num_evicted = 0
        self._runtime.step(self.steps_a_call, min(num_stale, _MAX_STALE_A_STEP))
        self._guard("findings", self._reader.deliver)
        self._reports.hints_carried_out(self._runtime.hints.take_notes())
        if self._orders_requests and len(self.waiting):
            # The more turns wait, the less a step's delay matters and the more a decision costs.
            interval = 1 + len(self.waiting) // _WAITING_PER_SKIPPED_STEP
            if not self.running or self._num_steps >= self._admitted_at_step + interval:
                self._admitted_at_step = self._num_steps
                self._admit()
            self.warm_ups.admit()
        self.offload.before_step(self._num_steps, self._queued_sessions, self._prefetch_budget)

    def _admit(self) -> None:
        slots = self.max_num_running_reqs - len(self.running)
        candidates = self._oversized.fitting(self.waiting)
        admission = self._tracker.admit(candidates, self._growing, slots, self._spare_blocks)
        waiting: AdmissionQueue = self.waiting
        waiting.admit(turn.request_id for turn in admission.admitted)
        self._reports.reservations_released(admission)

    def _queued_sessions(self) -> Iterator[Session]:
        """Sessions whose turns are not admitted; vLLM loads the blocks of admitted ones."""
        return self._tracker.sessions_of(self.waiting.queued() if self._orders_requests else ())

    def _prefetch_budget(self) -> int:
        """Blocks for prefetches (count): none while a turn is queued or short of them."""
        if any(self._queued_sessions()) or self.offload.is_short:
            return 0
        return self._tracker.spare_blocks(self.waiting, self._growing, self._spare_blocks)

    @property
    def _growing(self) -> Any:
        """Requests that have blocks and will take more: those that run or load."""
        return [*self.running, *self.offload.holding_requests()]

    def _priority_of(self, node: Node[Any]) -> Priority:
        priority = self._guard("worth", lambda: self._runtime.priority_of(node))
        return (PriorityClass.LIVE, 0.0) if priority is None else priority

    def _stored_priority(self, session: Session) -> Priority | None:
        return self._guard("stored_worth", lambda: self._runtime.stored_priority(session))

    def _note_evicted(self, node: Node[Any] | None, num_blocks: int) -> None:
        self._num_evicted += num_blocks
        victim = self._reports.evicted(node, num_blocks)
        self._runtime.misses.evicted(victim, num_blocks, self._queue.evicted_hash)

    def _take_census(self) -> None:
        """Set the gauges. Any thread may call it: it changes nothing else."""
        runtime, waiting = self._runtime, self.waiting
        self._metrics.set_guard_trips(runtime.guard.num_trips)
        if self._is_active:
            self._metrics.set_answered(runtime.num_answered)
            self._metrics.set_reserved(self._queue.num_reserved_blocks)
        self._metrics.set_prefetches(self.offload.prefetches)
        self._metrics.set_agents(runtime.agent_calls, self.warm_ups.counts)
        self._metrics.set_queued(waiting.num_queued if isinstance(waiting, AdmissionQueue) else 0)
        sessions = list(iter(runtime.sessions)) if self._is_active else []
        self._reports.set_sessions(sessions, self._reader.answers.unread())

    # Fall back.

    def _guard(self, where: str, act: Callable[[], T]) -> T | None:
        """Run `act`; an error is counted, logged once, and disables Holdfast."""
        try:
            return act()
        except Exception:
            if self._config.strict:
                raise
            self._metrics.fell_back(where)
            if self._is_active:
                self._is_active = False
                self._must_fall_back = True
                self._queue.is_lru = True
                logger.exception(
                    "Holdfast failed in %s and is off until the engine restarts; requests go on in"
                    " vLLM's own order",
                    where,
                )
            return None

    def _fall_back(self) -> None:
        """Give vLLM its own queues back; only between two engine steps."""
        self._must_fall_back = False
        self._guard("warm_up", self.warm_ups.abort)
        self._guard("let_go", self.offload.fall_back)
        if self._orders_requests:
            restore_request_queue(self)
        restore_free_queue(self._pool, self._queue.freed_at)
