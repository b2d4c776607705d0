"""The host tier as the runtime sees it: what it holds, for whom, and what a copy costs.

Process: scheduler. Checked on vLLM 0.32 and 0.33.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

from vllm.v1.kv_offload.base import make_offload_key

from holdfast.cache.resident_prefix import resident_length
from holdfast.core.session import Session
from holdfast.predict.copy_cost import CopyCost
from holdfast.vllm.offload.host_policy import HostPolicy

__all__ = ["HostTier"]

_WAIT_WEIGHT = 0.1


class HostTier:
    """A view of the offloading connector's primary tier.

    Args:
        policy: vLLM's record of what the tier holds.
        size: Chunks that it holds (count).
        groups: For each of vLLM's cache groups its number, and how many prefix hashes a chunk of it
            covers. What is held is estimated from the first.
        worth_of: See `HostPolicy.attach`; asked about sessions.
        holds_steps: Whether engine steps wait while blocks are copied.

    Attributes:
        copies: What copies take, as learned so far.
        size: Chunks that it holds (count).
        stride: Prefix hashes that a chunk of the first group covers (count).
        capacity_blocks: Prefix hashes whose blocks it can hold (count).
        holds_steps: See above.
        is_in_use: Whether blocks are loaded from it; while not, it says that it holds none.
    """

    def __init__(
        self,
        policy: Any,
        size: int,
        groups: Sequence[tuple[int, int]],
        priority_of: Callable[[Session], Any],
        *,
        holds_steps: bool = False,
    ) -> None:
        self.copies = CopyCost()
        self.size = size
        self.holds_steps = holds_steps
        self.is_in_use = True
        self._policy = policy
        self._groups = tuple(groups)
        self._group, self.stride = self._groups[0]
        # By vLLM's number of the copy: whether it is a load, and its blocks.
        self._under_way: dict[int, tuple[bool, int]] = {}
        self._begun_s: dict[int, float] = {}  # likewise, when loads were asked for (s)
        self._wait_s = 0.0  # of a load, beyond the copy itself
        self.capacity_blocks = size * self.stride // len(self._groups)
        self._priority_of = priority_of
        self._worth_at_pause: dict[Session, Any] = {}
        self._claims = policy.claims if isinstance(policy, HostPolicy) else None
        if self._claims is not None:
            policy.attach(priority_of)

    def claim(self, session: Session, hashes: Sequence[bytes]) -> None:
        """See `OffloadPort`."""
        if self._claims is not None:
            self._claims.claim(session, self.keys(hashes))

    def forget(self, session: Session) -> None:
        """See `OffloadPort`."""
        self._worth_at_pause.pop(session, None)
        if self._claims is not None:
            self._claims.drop(session)

    def paused(self, session: Session) -> None:
        """A turn of the session has just ended: note what its chunks are worth now. Mutates."""
        self._worth_at_pause[session] = self._priority_of(session)

    def is_outranked(self, session: Session, hashes: Sequence[bytes]) -> bool:
        """Whether a chain would take the room of chunks that are worth more.

        It is taken to be worth what it was when the session's last pause began. False for a first
        turn, and where vLLM evicts without asking.
        """
        priority = self._worth_at_pause.get(session)
        if priority is None or self._claims is None:
            return False
        num_new = len(hashes) - self.num_stored(hashes, 0)
        num_chunks = sum(num_new // stride for _, stride in self._groups)
        return num_chunks > 0 and not self._policy.has_room(num_chunks, priority)

    def let_go(self) -> None:
        """Nobody will say any more what sessions are worth: evict without that. Mutates."""
        if self._claims is not None:
            self._policy.attach(None)

    def num_stored(self, hashes: Sequence[bytes], first: int, guess: int = 0) -> int:
        """See `OffloadPort`; evicted from its end, a chain is found by bisection."""
        if not self.is_in_use:
            return 0
        stride, holds = self.stride, self.holds
        start = first // stride
        num_chunks = resident_length(
            max(len(hashes) // stride - start, 0),
            lambda chunk: holds(hashes[(start + chunk + 1) * stride - 1]),
            guess // stride,
        )
        return max((start + num_chunks) * stride - first, 0) if num_chunks else 0

    def keys(self, hashes: Sequence[bytes]) -> list[bytes]:
        """VLLM's keys of the chunks of a chain, of all groups, in its order. Pure."""
        return [
            make_offload_key(block_hash, group)
            for number, block_hash in enumerate(hashes, 1)
            for group, stride in self._groups
            if number % stride == 0
        ]

    def holds(self, block_hash: bytes) -> bool:
        """Whether the chunk that ends with a prefix hash can be loaded. Pure."""
        chunk = self._policy.get(make_offload_key(block_hash, self._group))
        return chunk is not None and chunk.is_ready

    @property
    def num_unclaimed(self) -> int:
        """Chunks that are free, or hold what no session wants (count)."""
        claims = self._claims
        return 0 if claims is None else self.size - len(claims) + claims.num_unclaimed

    def sparing_claimed(self) -> AbstractContextManager[None]:
        """While it is open, chunks that a session claims stay."""
        sparing: AbstractContextManager[None] = self._policy.sparing_claimed()
        return sparing

    def holds_next(self, hashes: Sequence[bytes], first: int) -> bool:
        """Whether it holds the chunk that index `first` of a chain is in, in use or not. Pure."""
        end = (first // self.stride + 1) * self.stride
        return end <= len(hashes) and self.holds(hashes[end - 1])

    @property
    def num_loading(self) -> int:
        """Blocks on their way back (count)."""
        return sum(num_blocks for is_load, num_blocks in self._under_way.values() if is_load)

    def forget_speed(self) -> None:
        """Learn anew what copies take. Mutates."""
        self.copies = CopyCost()

    def load_s(self, num_blocks: float) -> float:
        """See `OffloadPort`; where steps copy themselves, with the wait for such a step."""
        return self.copies.load_s(num_blocks) + self._wait_s

    def planned(self, transfers: Any, now_s: float = 0.0) -> None:
        """Take note of the copies that a step begins. Mutates.

        Args:
            transfers: vLLM's `OffloadingConnectorMetadata`, or None.
            now_s: Time now (s).
        """
        if transfers is None:
            return
        for number, job in transfers.load_jobs.items():
            self._under_way[number] = True, len(job.dst_spec.block_ids)
            self._begun_s[number] = now_s
        for number, job in transfers.store_jobs.items():
            self._under_way[number] = False, len(job.src_spec.block_ids)

    def ended(self, transfers: Any, now_s: float = 0.0) -> float:
        """Learn from the copies that a step's output reports. Mutates.

        Args:
            transfers: vLLM's `KVConnectorOutput`, or None.
            now_s: Time now (s).

        Returns:
            Time in which the step copied instead of computing (s).
        """
        report = None if transfers is None else transfers.kv_connector_worker_meta
        if report is None:
            return 0.0
        num_copied = {True: 0, False: 0}
        for number, num_workers in report.completed_jobs.items():
            is_load, num_blocks = self._under_way.pop(number, (True, 0))
            num_copied[is_load] += num_workers * num_blocks
        stats = report.transfer_stats
        if stats.load.time:
            self.copies.observe_load(num_copied[True], stats.load.time)
        if stats.store.time:
            self.copies.observe_store(num_copied[False], stats.store.time)
        begun_s = [self._begun_s.pop(i) for i in report.completed_jobs if i in self._begun_s]
        if not self.holds_steps:
            return 0.0
        num_workers = max(report.completed_jobs.values(), default=1)
        for load_begun_s in begun_s:
            wait_s = max(now_s - load_begun_s - stats.load.time / num_workers, 0.0)
            self._wait_s += _WAIT_WEIGHT * (wait_s - self._wait_s)
        return float(stats.load.time + stats.store.time) / num_workers
