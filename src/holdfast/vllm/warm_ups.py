"""Warm-ups: predicted agents' fixed prefixes, computed on an idle engine.

A warm-up is a request of ours with one output token, which vLLM runs like any other. The scheduler
takes its output out of vLLM's answers; the API process would ignore it, as it does with an aborted
request's. It begins when the last request of a client has ended, and is aborted when the next one
arrives: what it has computed by then stays cached.

Process: scheduler. Checked on vLLM 0.28 ... 0.33.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from secrets import token_hex
from typing import Any, Final

from vllm.sampling_params import SamplingParams
from vllm.v1.request import Request, RequestStatus

from holdfast.cache.eviction_queue import EvictionQueue
from holdfast.cache.prefix_tree import Node
from holdfast.cache.resident_prefix import resident_length
from holdfast.config import HoldfastConfig
from holdfast.core.hints import Hints
from holdfast.core.session import Session
from holdfast.policies.base import PriorityClass, users_of
from holdfast.runtime.runtime import AgentRuntime
from holdfast.vllm.kept_prompts import KeptPrompt, KeptPrompts
from holdfast.vllm.offload.prefetch.outcomes import Prefetch, PrefetchOutcomes

__all__ = ["WARM_UP_OUTCOMES", "NoWarmUps", "WarmUps", "warm_ups_of"]

WARM_UP_OUTCOMES: Final = ("started", "used", "late", "wasted", "no_budget", "no_space")
"""`used`: a turn found the blocks. `late`: it came before they were computed. `wasted`: they were
evicted before a turn needed them. `no_budget`, `no_space`: it was not started."""

_PREFIX: Final = "holdfast-warm-up-"
_MAX_CANDIDATES: Final = 4
_CREDIT_S: Final = 60.0  # of engine time, whose share may be spent at once
_USED_GAIN: Final = 0.2
_LEAST_USED_SHARE: Final = 0.1


class WarmUps:
    """Starts warm-ups, one at a time, and counts their outcomes.

    Only prefixes that the policy names as prefetch candidates, of tenants that asked for it, of
    which no tier has a copy, into blocks that are blank or that only ended sessions use. They take
    a share of all time at most; it shrinks with the share of warm-ups that no turn used.

    Args:
        scheduler: vLLM's, with one cache group.
        runtime: Knows what agents are called next.
        queue: The free blocks.
        share: Largest share of time spent on warm-ups (0 to 1).
        asks_for_all: Whether the operator asks for them in every tenant's place.

    Attributes:
        counts: Warm-ups by outcome; see `WARM_UP_OUTCOMES`.
    """

    def __init__(
        self,
        scheduler: Any,
        runtime: AgentRuntime,
        queue: EvictionQueue,
        share: float,
        *,
        asks_for_all: bool = False,
    ) -> None:
        self.counts: Counter[str] = Counter(dict.fromkeys(WARM_UP_OUTCOMES, 0))
        self._scheduler = scheduler
        self._add: Callable[[Request], None] = scheduler.add_warm_up
        self._clock: Callable[[], float] = getattr(scheduler, "clock", float)
        self._runtime = runtime
        self._queue = queue
        self._share = share
        self._asks_for_all = asks_for_all
        self._cached_block = scheduler.kv_cache_manager.block_pool.get_cached_block
        self._prompts = KeptPrompts()
        self._outcomes = PrefetchOutcomes(self.counts)
        self._running: tuple[str, Prefetch, float] | None = None  # id, path, started (s)
        self._num_started = 0
        self._prefix = f"{_PREFIX}{token_hex(8)}-"  # no client's request has it
        self._credit_s = 0.0
        self._credited_s = -math.inf
        self._used_share = 1.0

    def is_ours(self, request_id: str) -> bool:
        """Whether a request is a warm-up. Pure."""
        return request_id.startswith(self._prefix)

    @property
    def request_id(self) -> str | None:
        """Id of the warm-up in the engine, or None."""
        return None if self._running is None else self._running[0]

    @contextmanager
    def uncounted(self) -> Iterator[None]:
        """Leave a warm-up out of vLLM's prefix cache statistics. Mutates."""
        manager = self._scheduler.kv_cache_manager
        before = manager.log_stats
        manager.log_stats = before and self._running is None
        try:
            yield
        finally:
            manager.log_stats = before

    def admit(self) -> None:
        """Admit the warm-up, beside which no request waits. Mutates the queue."""
        if self._running is not None:
            self._scheduler.waiting.admit([self._running[0]])

    def arrived(self, session: Session, request: Any, hints: Hints) -> None:
        """Take in a client's request, after which no warm-up runs. Mutates the scheduler.

        Args:
            session: Its session.
            request: The request.
            hints: Its hints, which may ask for warm-ups.
        """
        before = self.counts["used"], self.counts["wasted"]
        self._outcomes.needed(request.block_hashes, was_queued=False)
        self._learn_used(self.counts["used"] - before[0], self.counts["wasted"] - before[1])
        self.abort()
        if self._asks_for_all or hints.wants_warm_ups:
            self._prompts.keep(session, request)
        else:
            self._prompts.drop(session)

    def start(self) -> None:
        """Start a warm-up if the engine has nothing else to do. Mutates the scheduler."""
        if self._running is not None or not self._is_idle:
            return
        self._runtime.tick(self._clock())
        for path, prompt in self._candidates():
            num_resident = self._num_resident(path)
            if num_resident == len(path) or self._outcomes.open_for(path) is not None:
                continue
            if self._runtime.tier.num_stored(path, num_resident):
                continue  # a prefetch loads it
            num_missing = len(path) - num_resident
            if self._credit() < self._runtime.restore_s(num_missing, num_resident):
                self.counts["no_budget"] += 1
                return
            if self._queue.num_below(PriorityClass.AWAY, len(path)) < len(path):
                self.counts["no_space"] += 1
                return
            self._start(path, prompt, num_resident)
            return

    def ended(self, request_id: str) -> None:
        """Take in that a request leaves the engine. Mutates."""
        if self._running is None or request_id != self._running[0]:
            return
        _, prefetch, started_s = self._running
        self._runtime.tick(self._clock())
        self._running = None
        self._credit_s -= max(self._runtime.now_s - started_s, 0.0)
        prefetch.depth = max(self._num_resident(prefetch.hashes), prefetch.depth)
        prefetch.is_in_flight = False

    def abort(self) -> None:
        """Abort the warm-up; blocks computed by now stay. Mutates the scheduler."""
        request_id = self.request_id
        if request_id is not None:
            self._scheduler.finish_requests(request_id, RequestStatus.FINISHED_ABORTED)
            self._running = None  # also after a fallback, when no end is reported

    def take_out(self, outputs: dict[int, Any]) -> None:
        """Remove what the engine answers to warm-ups. Mutates `outputs`."""
        if not self._num_started:
            return
        for client, output in list(outputs.items()):
            output.outputs = [o for o in output.outputs if not self.is_ours(o.request_id)]
            finished = output.finished_requests
            if finished:
                output.finished_requests = {i for i in finished if not self.is_ours(i)} or None
            if output.scheduler_stats is not None and self._running is not None:
                _leave_out_one(output.scheduler_stats)
            if not (output.outputs or output.finished_requests or output.scheduler_stats):
                del outputs[client]

    def forget(self) -> None:
        """Forget prompts and paths, as the cache was emptied. Mutates."""
        self._prompts.clear()
        self._outcomes.clear()

    @property
    def _is_idle(self) -> bool:
        scheduler = self._scheduler
        is_paused = scheduler.pause_state.name != "UNPAUSED"
        return not scheduler.requests and not is_paused

    def _candidates(self) -> Iterator[tuple[list[bytes], KeptPrompt]]:
        """Paths that are needed soon, each with a prompt that begins with it."""
        for node in islice(self._runtime.policies.prefetch.candidates(), _MAX_CANDIDATES):
            for session in users_of(node):
                prompt = self._prompts.of(session, node.end, node.hashes[-1])
                if prompt is not None:
                    yield _path_hashes(node), prompt
                    break

    def _start(self, path: list[bytes], prompt: KeptPrompt, num_resident: int) -> None:
        self._num_started += 1
        request_id = f"{self._prefix}{self._num_started}"
        prefetch = Prefetch(path, self._is_resident, False, num_resident, len(path) - num_resident)
        self._outcomes.started(prefetch)
        self.counts["started"] += 1
        self._running = request_id, prefetch, self._runtime.now_s
        self._add(self._request(request_id, path, prompt))

    def _request(self, request_id: str, path: list[bytes], prompt: KeptPrompt) -> Request:
        num_tokens = len(path) * self._scheduler.hash_block_size
        return Request(
            request_id=request_id,
            prompt_token_ids=list(prompt.tokens[:num_tokens]),
            sampling_params=SamplingParams(max_tokens=1, temperature=0.0, detokenize=False),
            pooling_params=None,
            arrival_time=0.0,
            lora_request=prompt.lora_request,
            cache_salt=prompt.cache_salt,
            block_hasher=lambda request: path[len(request.block_hashes) :],
        )

    def _credit(self) -> float:
        """Engine time that may be spent now (s). Mutates."""
        now_s = self._runtime.now_s
        share = self._share * max(self._used_share, _LEAST_USED_SHARE)
        most_s = self._share * _CREDIT_S
        elapsed_s = min(now_s - self._credited_s, _CREDIT_S)
        self._credited_s = now_s
        self._credit_s = min(self._credit_s + share * elapsed_s, most_s)
        return self._credit_s

    def _learn_used(self, num_used: int, num_wasted: int) -> None:
        for is_used in (*[1.0] * num_used, *[0.0] * num_wasted):
            self._used_share += _USED_GAIN * (is_used - self._used_share)

    def _num_resident(self, path: Sequence[bytes]) -> int:
        cached = self._cached_block
        return resident_length(len(path), lambda i: cached(path[i], [0]) is not None)

    def _is_resident(self, block_hash: bytes) -> bool:
        return self._num_resident([block_hash]) == 1


def _leave_out_one(stats: Any) -> None:
    """Count one running or waiting request less. Mutates."""
    if stats.num_running_reqs:
        stats.num_running_reqs -= 1
    elif stats.num_waiting_reqs:
        stats.num_waiting_reqs -= 1


def _path_hashes(tail: Node[Any]) -> list[bytes]:
    """Prefix hashes of the path that ends with a node. O(blocks)."""
    return [block_hash for node in reversed(list(tail.path())) for block_hash in node.hashes]


class NoWarmUps:
    """Stands in for `WarmUps` where none are made."""

    request_id: None = None

    @property
    def counts(self) -> Counter[str]:
        """Nothing was counted."""
        return Counter()

    def is_ours(self, request_id: str) -> bool:
        """False."""
        del request_id
        return False

    @contextmanager
    def uncounted(self) -> Iterator[None]:
        """Change nothing."""
        yield

    def admit(self) -> None:
        """Do nothing."""

    def arrived(self, session: Session, request: Any, hints: Hints) -> None:
        """Do nothing."""

    def start(self) -> None:
        """Do nothing."""

    def ended(self, request_id: str) -> None:
        """Do nothing."""

    def abort(self) -> None:
        """Do nothing."""

    def take_out(self, outputs: dict[int, Any]) -> None:
        """Do nothing."""

    def forget(self) -> None:
        """Do nothing."""


def warm_ups_of(
    scheduler: Any, runtime: AgentRuntime, queue: EvictionQueue, config: HoldfastConfig
) -> WarmUps | NoWarmUps:
    """Warm-ups for a scheduler, if there can be any.

    None with several cache groups, several data-parallel engines (which step together), or a
    connector to another engine's cache.
    """
    parallel = scheduler.vllm_config.parallel_config
    has_foreign_tier = scheduler.connector is not None and not scheduler.offload.has_tiers
    if (
        config.warm_up_share <= 0.0
        or parallel.data_parallel_size > 1
        or len(scheduler.kv_cache_config.kv_cache_groups) > 1
        or has_foreign_tier
    ):
        return NoWarmUps()
    return WarmUps(
        scheduler, runtime, queue, config.warm_up_share, asks_for_all=config.warm_up == "all"
    )
