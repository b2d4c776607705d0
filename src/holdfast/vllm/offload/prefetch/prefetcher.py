"""Prefetches KV blocks while link and cache have capacity to spare.

Process: scheduler. Checked on vLLM 0.32 and 0.33.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Any, Final

from holdfast.cache.prefix_tree import Node
from holdfast.cache.resident_prefix import resident_length
from holdfast.core.session import Session, SessionState
from holdfast.runtime.runtime import AgentRuntime
from holdfast.vllm.offload.host_tier import HostTier
from holdfast.vllm.offload.prefetch.disk_to_host import DiskToHost, WantedPath
from holdfast.vllm.offload.prefetch.host_to_gpu import HostToGpu
from holdfast.vllm.offload.prefetch.outcomes import OUTCOMES

__all__ = ["Prefetcher"]

_STEPS_BETWEEN_SEARCHES: Final = 8
_MAX_CANDIDATES: Final = 4
_STEP_MEMORY: Final = 0.1
_MAX_STEP_S: Final = 1.0
_FIRST_GROUP: Final = [0]
_HALT_S: Final = 60.0  # in which a reset that failed is tried again


class Prefetcher:
    """Chooses paths to prefetch and counts the outcomes.

    Into the host tier go the paths of queued turns in order of arrival, then the policy's
    candidates, then, into space without an owner, paths of paused sessions that have nothing left
    in the KV cache, soonest return first. Into the KV cache go only the policy's candidates.

    Args:
        scheduler: vLLM's, with its offloading connector and one cache group.
        runtime: Knows the sessions and their paths.
        tier: The host tier.

    Attributes:
        outcomes: Prefetches by outcome (counts); see `OUTCOMES`.
    """

    def __init__(self, scheduler: Any, runtime: AgentRuntime, tier: HostTier) -> None:
        self.outcomes: Counter[str] = Counter(dict.fromkeys(OUTCOMES, 0))
        self._runtime = runtime
        self._tier = tier
        self._cached_block = scheduler.kv_cache_manager.block_pool.get_cached_block
        manager = scheduler.connector.connector_scheduler.manager
        self._host_to_gpu = HostToGpu(scheduler, tier, self._num_resident, self.outcomes)
        tier.is_prefetched = self._host_to_gpu.is_loading
        self._disk_to_host: DiskToHost | None = None
        if getattr(manager, "secondary_tiers", ()):
            self._disk_to_host = DiskToHost(manager, tier, self._num_resident, self.outcomes)
        self._search_at_step = 0
        self._is_search_due = False
        self._halted_until_s = -math.inf
        self._scheduler = scheduler
        self._step_s = 0.0
        self._stepped_at_s = 0.0

    @property
    def is_busy(self) -> bool:
        """Whether a prefetch is in flight."""
        reads = self._disk_to_host
        return self._host_to_gpu.is_busy or (reads is not None and reads.is_busy)

    @property
    def wants_step(self) -> bool:
        """Whether an idle engine should step, to start a prefetch or to end one."""
        return self._is_search_due or self.is_busy

    def search_soon(self) -> None:
        """Search before the next step, as a candidate has become certain. Mutates."""
        self._search_at_step = 0
        self._is_search_due = not self._is_halted

    def step(
        self,
        num_steps: int,
        queued: Callable[[], Iterable[Session]],
        free_blocks: Callable[[], int],
    ) -> None:
        """Record loaded blocks and start prefetches. Mutates the scheduler.

        Call it before `schedule`.

        Args:
            num_steps: Engine steps started (count).
            queued: Sessions of queued turns, in order of arrival.
            free_blocks: KV blocks that prefetches may fill now (count).
        """
        self._learn_step_time()
        self._is_search_due = False
        was_busy = self.is_busy
        self._host_to_gpu.step()
        if self._disk_to_host is not None:
            self._disk_to_host.step()
        is_early = num_steps < self._search_at_step and (not was_busy or self.is_busy)
        if is_early or not self._tier.is_enabled or self._is_halted:
            return
        self._search_at_step = num_steps + _STEPS_BETWEEN_SEARCHES
        if not self._host_to_gpu.is_busy:
            paths = map(_path_hashes, self._candidates())
            self._host_to_gpu.start(paths, free_blocks, self._step_s)
        if self._disk_to_host is not None and not self._disk_to_host.is_busy:
            self._disk_to_host.start(self._wanted(queued))

    def needed(self, hashes: Sequence[bytes], *, was_queued: bool) -> None:
        """Count the prefetches that a turn needs; see `PrefetchOutcomes`. Mutates."""
        self._search_at_step = 0
        self._host_to_gpu.needed(hashes, was_queued=was_queued)
        if self._disk_to_host is not None:
            self._disk_to_host.needed(hashes, was_queued=was_queued)

    def halt(self) -> bool:
        """Abort prefetches in flight and start none for a minute, or until `resume`.

        Mutates the scheduler.

        Returns:
            Whether prefetches hold no KV block any more; the worker may still write some.
        """
        self._halted_until_s = self._runtime.now_s + _HALT_S
        self._is_search_due = False
        self._host_to_gpu.halt()
        if self._disk_to_host is not None:
            self._disk_to_host.halt()
        return not self._host_to_gpu.hold_blocks

    def resume(self) -> None:
        """Start prefetches again after `halt`. Mutates."""
        self._halted_until_s = -math.inf

    @property
    def _is_halted(self) -> bool:
        """Whether the KV cache is to become empty, for a reset or a pause of the engine."""
        is_paused = self._scheduler.pause_state.name != "UNPAUSED"
        return is_paused or self._runtime.now_s < self._halted_until_s

    def close(self) -> None:
        """Abort prefetches in flight, for good. Mutates the scheduler."""
        self._is_search_due = False
        self._host_to_gpu.close()
        if self._disk_to_host is not None:
            self._disk_to_host.close()

    def _wanted(self, queued: Callable[[], Iterable[Session]]) -> Iterator[WantedPath]:
        runtime = self._runtime
        for session in islice(queued(), _MAX_CANDIDATES):
            hashes = _path_hashes(session.prompt_tail)
            is_obsolete = partial(_is_not, session, SessionState.WAITING)
            yield WantedPath(hashes, is_for_queued=True, is_obsolete=is_obsolete)
        for node in self._candidates():
            yield WantedPath(_path_hashes(node))
        for session in runtime.idle.soonest_back(
            runtime.policies.eviction.session_priority, _MAX_CANDIDATES
        ):
            is_obsolete = partial(_is_not, session, session.state)
            hashes = _path_hashes(session.tail)
            yield WantedPath(hashes, may_evict_owned=False, is_obsolete=is_obsolete)

    def _candidates(self) -> Iterable[Node[Any]]:
        return islice(self._runtime.policies.prefetch.candidates(), _MAX_CANDIDATES)

    def _num_resident(self, hashes: Sequence[bytes]) -> int:
        cached = self._cached_block
        return resident_length(len(hashes), lambda i: cached(hashes[i], _FIRST_GROUP) is not None)

    def _learn_step_time(self) -> None:
        now_s = self._runtime.now_s
        step_s = now_s - self._stepped_at_s
        self._stepped_at_s = now_s
        if step_s < _MAX_STEP_S:
            self._step_s += _STEP_MEMORY * (step_s - self._step_s)


def _is_not(session: Session, state: SessionState) -> bool:
    return session.state is not state


def _path_hashes(tail: Node[Any]) -> list[bytes]:
    """Prefix hashes of the path that ends with a node. O(blocks)."""
    nodes = list(tail.path())
    return [block_hash for node in reversed(nodes) for block_hash in node.hashes]
