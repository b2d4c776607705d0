"""The scheduler to name in `--scheduler-cls holdfast.vllm.scheduler.HoldfastScheduler`.

Process: scheduler (engine core). Checked on vLLM 0.28 ... 0.32.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from vllm.v1.core.sched.async_scheduler import AsyncScheduler

from holdfast.core.chains import Segment
from holdfast.policies.admission.working_set import WaitingTurn
from holdfast.policies.runtime import AgentRuntime
from holdfast.core.hints import parse_hints
from holdfast.predict.features import features_of
from holdfast.predict.return_time import ReturnTimeModel
from holdfast.vllm.free_queue import FreeQueue
from holdfast.vllm.request_queue import OfferQueue

__all__ = ["HoldfastScheduler"]

logger = logging.getLogger(__name__)

_REFRESHES_PER_VICTIM_RUN = 2


class HoldfastScheduler(AsyncScheduler):  # type: ignore[misc]
    """vLLM's scheduler with Holdfast's choice of victims and of whom to let in."""

    clock: Callable[[], float] = staticmethod(time.monotonic)
    patience = 1.0
    pass_overs = 64
    make_returns = ReturnTimeModel
    is_fcfs = False
    is_lru = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._runtime = AgentRuntime(
            self.make_returns(), max_sessions=20000, max_pass_overs=self.pass_overs, patience=self.patience
        )
        pool = self.kv_cache_manager.block_pool
        self._pool = pool
        self._queue = FreeQueue(
            pool.free_block_queue.get_all_free_blocks(),
            len(pool.blocks),
            self._runtime.tree,
            self._runtime.worth_of,
            self._count_evicted,
        )
        pool.free_block_queue = self._queue
        if self.is_lru:
            self._queue.make_worth_equal()
        self._runtime.attach(self._queue)
        self.waiting = OfferQueue()
        self._turns: dict[str, WaitingTurn] = {}
        self._needs: dict[str, int] = {}
        self._num_arrived = 0
        self._output_blocks = 2.0
        self.num_evicted = 0
        self._last_schedule_s = 0.0
        self._last_tokens = 0
        self._busy = [0.0, 0.0]

    def add_request(self, request: Any) -> None:
        if request.request_id not in self.requests:
            self._runtime.tick(self.clock())
            session = self._runtime.turn_arrived(list(request.block_hashes), request.session_id)
            self._num_arrived += 1
            self._turns[request.request_id] = WaitingTurn(
                request.request_id, session, request.priority, self._num_arrived
            )
        super().add_request(request)

    def schedule(self, *args: Any, **kwargs: Any) -> Any:
        now_s = self.clock()
        self._runtime.tick(now_s)
        self._meter(now_s)
        if len(self.waiting):
            self._decide()
        output = super().schedule(*args, **kwargs)
        self._last_tokens = output.total_num_scheduled_tokens
        for new in output.scheduled_new_reqs:
            self._started(new.req_id)
        for req_id in output.scheduled_cached_reqs.resumed_req_ids:
            self._started(req_id)
        return output

    def _meter(self, now_s: float) -> None:
        """Learn the time a computed token takes while prompts are being computed."""
        if self._last_tokens > len(self.running) * 2:
            dt = now_s - self._last_schedule_s
            self._busy[0] = self._busy[0] * 0.98 + dt
            self._busy[1] = self._busy[1] * 0.98 + self._last_tokens
            self._runtime.restore_s_per_block = self._busy[0] / self._busy[1] * self.block_size
        self._last_schedule_s = now_s

    def _decide(self) -> None:
        requests = {r.request_id: r for r in self.waiting}
        if self.is_fcfs:
            self.waiting.offer(requests.values())
            return
        turns = []
        for req_id, request in requests.items():
            turn = self._turns[req_id]
            self._measure(turn, request)
            turns.append(turn)
        growth = 0
        for r in self.running:
            need = self._needs.get(r.request_id, 0)
            growth += max(0, need - r.num_computed_tokens // self.block_size)
        decision = self._runtime.decide(
            turns,
            self._queue.num_free_blocks - self._queue.num_held_blocks - growth,
            self.max_num_running_reqs - len(self.running),
            len(self.running),
        )
        self.waiting.offer(requests[t.request_id] for t in decision.offers)

    def _measure(self, turn: WaitingTurn, request: Any) -> None:
        resident = self._resident(request.block_hashes)
        total = -(-request.num_tokens // self.block_size)
        turn.missing_blocks = total - resident
        unheld = sum(run.lane.num_blocks for run in turn.session.tail.path() if not run.num_held)
        turn.room_blocks = turn.missing_blocks + unheld + int(self._output_blocks) + 1

    def _resident(self, hashes: Any) -> int:
        cached = self._pool.cached_block_hash_to_block.get_one_block
        suffix = (0).to_bytes(4, "big")
        low, high = 0, len(hashes)
        while low < high:
            middle = (low + high) // 2
            if cached(hashes[middle] + suffix) is not None:
                low = middle + 1
            else:
                high = middle
        return low

    def _started(self, req_id: str) -> None:
        turn = self._turns.get(req_id)
        if turn is None:
            return
        request = self.requests[req_id]
        for r in self.waiting:
            other = self._turns[r.request_id]
            if other.sequence < turn.sequence:
                other.num_pass_overs += 1
        self._needs[req_id] = (
            -(-request.num_tokens // self.block_size) + int(self._output_blocks) + 1
        )
        self._runtime.turn_started(turn.session)

    def _preempt_request(self, request: Any, *args: Any, **kwargs: Any) -> None:
        super()._preempt_request(request, *args, **kwargs)
        turn = self._turns.get(request.request_id)
        if turn is not None:
            self._runtime.turn_requeued(turn.session)

    def _free_request(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        turn = self._turns.pop(request.request_id, None)
        self._needs.pop(request.request_id, None)
        if turn is not None:
            n = request.num_output_tokens / self.block_size
            self._output_blocks += 0.05 * (n * 1.5 - self._output_blocks)
            xargs = request.sampling_params.extra_args or {}
            end = parse_hints(xargs, None)[0].turn_end
            self._runtime.tick(self.clock())
            self._runtime.turn_ended(
                turn.session, list(request.block_hashes), features_of(end), is_tool=end is not None and end.kind == "tool"
            )
            turn.session.expected_gap_s = parse_hints(xargs, None)[0].expected_gap_s
            if xargs.get("holdfast_final"):
                self._runtime.session_closed(turn.session)
        return super()._free_request(request, *args, **kwargs)

    def _count_evicted(self, segment: Segment[Any] | None, num_blocks: int) -> None:
        self.num_evicted += num_blocks
        self._runtime.refresh(max(_REFRESHES_PER_VICTIM_RUN, min(32, num_blocks // 4)))
