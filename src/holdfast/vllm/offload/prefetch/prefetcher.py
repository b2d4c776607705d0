"""Bringing blocks closer before a turn needs them, where link and room are idle.

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
from holdfast.vllm.offload.prefetch.disk_to_host import DiskToHost, Wanted
from holdfast.vllm.offload.prefetch.host_to_gpu import HostToGpu
from holdfast.vllm.offload.prefetch.outcomes import OUTCOMES

__all__ = ["Prefetcher"]

_STEPS_BETWEEN_LOOKS: Final = 8
_LOOKED_AT: Final = 4
_STEP_MEMORY: Final = 0.1
_LONGEST_STEP_S: Final = 1.0
_FIRST_GROUP: Final = [0]
_HALT_S: Final = 60.0  # in which a reset that came too early is tried again


class Prefetcher:
    """Says what is to be brought closer, and counts what became of it.

    From below into host memory: for turns in the queue, in order of arrival; then what the policy
    says is coming; then, where nobody claims the room, for paused sessions of which nothing is left
    in the KV cache, first expected first. From host memory into the KV cache: only
    what the policy says is coming.

    Args:
        scheduler: vLLM's, with its offloading connector and one cache group.
        runtime: Knows the sessions and their chains.
        tier: The host tier.

    Attributes:
        outcomes: Chains by what became of them; see `OUTCOMES`.
    """

    def __init__(self, scheduler: Any, runtime: AgentRuntime, tier: HostTier) -> None:
        self.outcomes: Counter[str] = Counter(dict.fromkeys(OUTCOMES, 0))
        self._runtime = runtime
        self._tier = tier
        self._cached_block = scheduler.kv_cache_manager.block_pool.get_cached_block
        manager = scheduler.connector.connector_scheduler.manager
        self._copies = HostToGpu(scheduler, tier, self._num_cached, self.outcomes)
        self._reads: DiskToHost | None = None
        if getattr(manager, "secondary_tiers", ()):
            self._reads = DiskToHost(manager, tier, self._num_cached, self.outcomes)
        self._look_at_step = 0
        self._halted_until_s = -math.inf
        self._scheduler = scheduler
        self._step_s = 0.0
        self._stepped_at_s = 0.0

    @property
    def is_busy(self) -> bool:
        """Whether something is on its way."""
        return self._copies.is_busy or (self._reads is not None and self._reads.is_busy)

    def step(
        self,
        num_steps: int,
        waiting: Callable[[], Iterable[Session]],
        spare_blocks: Callable[[], int],
    ) -> None:
        """See what has arrived, and send for more. Before `schedule` only; mutates the scheduler.

        Args:
            num_steps: Engine steps begun (count).
            waiting: Sessions whose turns wait for their place, in order of arrival.
            spare_blocks: Blocks that copies may take now (count).
        """
        self._note_step()
        was_busy = self.is_busy
        self._copies.step()
        if self._reads is not None:
            self._reads.step()
        is_early = num_steps < self._look_at_step and (not was_busy or self.is_busy)
        if is_early or not self._tier.is_in_use or self._is_halted:
            return
        self._look_at_step = num_steps + _STEPS_BETWEEN_LOOKS
        if not self._copies.is_busy:
            coming = map(_chain_to, self._coming())
            self._copies.begin(coming, spare_blocks, self._step_s)
        if self._reads is not None and not self._reads.is_busy:
            self._reads.begin(self._wanted(waiting))

    def needed(self, hashes: Sequence[bytes], *, waited: bool) -> None:
        """A turn needs its prompt's chain; see `PrefetchOutcomes`."""
        self._look_at_step = 0
        self._copies.needed(hashes, waited=waited)
        if self._reads is not None:
            self._reads.needed(hashes, waited=waited)

    def halt(self) -> bool:
        """Give up what is on its way and send for nothing for a minute, or until `resume`.

        Mutates the scheduler.

        Returns:
            Whether no block is held for it any more; the worker may still be writing some.
        """
        self._halted_until_s = self._runtime.now_s + _HALT_S
        self._copies.halt()
        if self._reads is not None:
            self._reads.halt()
        return not self._copies.hold_blocks

    def resume(self) -> None:
        """Send for what is needed again."""
        self._halted_until_s = -math.inf

    @property
    def _is_halted(self) -> bool:
        """Whether somebody waits for the cache to be empty: who resets or pauses the engine."""
        is_paused = self._scheduler.pause_state.name != "UNPAUSED"
        return is_paused or self._runtime.now_s < self._halted_until_s

    def drain(self) -> None:
        """Give up what is on its way, for good. Mutates the scheduler."""
        self._copies.drain()
        if self._reads is not None:
            self._reads.drain()

    def _wanted(self, waiting: Callable[[], Iterable[Session]]) -> Iterator[Wanted]:
        runtime = self._runtime
        for session in islice(waiting(), _LOOKED_AT):
            chain = _chain_to(session.prompt_tail)
            yield Wanted(chain, waits=True, is_moot=partial(_is_not, session, SessionState.WAITING))
        for end in self._coming():
            yield Wanted(_chain_to(end))
        for session in runtime.away.soonest_back(runtime.policy.score, _LOOKED_AT):
            is_moot = partial(_is_not, session, session.state)
            yield Wanted(_chain_to(session.tail), is_sure=False, is_moot=is_moot)

    def _coming(self) -> Iterable[Node[Any]]:
        return islice(self._runtime.policy.coming(), _LOOKED_AT)

    def _num_cached(self, hashes: Sequence[bytes]) -> int:
        cached = self._cached_block
        return resident_length(len(hashes), lambda i: cached(hashes[i], _FIRST_GROUP) is not None)

    def _note_step(self) -> None:
        now_s = self._runtime.now_s
        step_s = now_s - self._stepped_at_s
        self._stepped_at_s = now_s
        if step_s < _LONGEST_STEP_S:
            self._step_s += _STEP_MEMORY * (step_s - self._step_s)


def _is_not(session: Session, state: SessionState) -> bool:
    return session.state is not state


def _chain_to(end: Node[Any]) -> list[bytes]:
    """Prefix hashes of the chain that ends there. O(blocks)."""
    nodes = list(end.path())
    return [block_hash for node in reversed(nodes) for block_hash in node.hashes]
