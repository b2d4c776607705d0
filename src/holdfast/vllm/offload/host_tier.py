"""The host tier as an offload port: stored chunks, their owners, and copy times.

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
        policy: vLLM's cache policy, which knows the stored chunks.
        num_chunks: Chunks that the tier can store (count).
        groups: Of each of vLLM's cache groups the number, and the prefix hashes that a chunk of it
            covers. The first group stands for all when stored chunks are counted.
        priority_of: See `HostPolicy.attach`; asked about sessions.
        copies_block_steps: Whether engine steps wait while blocks are copied.
        has_failed: Whether a lower tier could not load the chunk with one of vLLM's keys.

    Attributes:
        copies: Copy times, as learned so far.
        num_chunks: See above.
        hashes_per_chunk: Prefix hashes that a chunk of the first group covers (count).
        capacity_blocks: Prefix hashes whose blocks the tier can store (count).
        copies_block_steps: See above.
        is_enabled: Whether blocks may be loaded; while not, the tier reports none as stored.
        is_prefetched: Whether a prefetch of missing blocks of a path is in flight; the prefetcher
            sets it.
    """

    def __init__(
        self,
        policy: Any,
        num_chunks: int,
        groups: Sequence[tuple[int, int]],
        priority_of: Callable[[Session], Any],
        *,
        copies_block_steps: bool = False,
        has_failed: Callable[[bytes], bool] | None = None,
    ) -> None:
        self.copies = CopyCost()
        self.num_chunks = num_chunks
        self.copies_block_steps = copies_block_steps
        self.is_enabled = True
        self.is_prefetched: Callable[[Sequence[bytes]], bool] | None = None
        self._has_failed = has_failed
        self._policy = policy
        self._groups = tuple(groups)
        self._group, self.hashes_per_chunk = self._groups[0]
        # By vLLM's number of the copy: whether it is a load, and its blocks.
        self._in_flight: dict[int, tuple[bool, int]] = {}
        self._load_started_s: dict[int, float] = {}  # by the same number
        self._wait_s = 0.0  # of a load, beyond the copy itself
        self.capacity_blocks = num_chunks * self.hashes_per_chunk // len(self._groups)
        self._priority_of = priority_of
        self._priority_at_pause: dict[Session, Any] = {}
        self._owners = policy.chunk_owners if isinstance(policy, HostPolicy) else None
        if self._owners is not None:
            policy.attach(priority_of)

    def claim(self, session: Session, hashes: Sequence[bytes]) -> None:
        """See `OffloadPort`."""
        if self._owners is not None:
            self._owners.claim(session, self.keys(hashes))

    def forget(self, session: Session) -> None:
        """See `OffloadPort`."""
        self._priority_at_pause.pop(session, None)
        if self._owners is not None:
            self._owners.drop(session)

    def turn_ended(self, session: Session) -> None:
        """Record the retention priority of a session whose turn has just ended. Mutates."""
        self._priority_at_pause[session] = self._priority_of(session)

    def is_outranked(self, session: Session, hashes: Sequence[bytes]) -> bool:
        """Whether storing a path would evict chunks of higher retention priority.

        The path has the priority that its session had when its last pause began. False for a first
        turn, and if vLLM's own policy evicts.
        """
        priority = self._priority_at_pause.get(session)
        if priority is None or self._owners is None:
            return False
        num_new = len(hashes) - self.num_stored(hashes, 0)
        num_chunks = sum(num_new // hashes_per_chunk for _, hashes_per_chunk in self._groups)
        return num_chunks > 0 and not self._policy.has_space(num_chunks, priority)

    def detach(self) -> None:
        """Evict without retention priorities from now on, oldest claim first. Mutates."""
        if self._owners is not None:
            self._policy.attach(None)

    def num_stored(self, hashes: Sequence[bytes], first: int, guess: int = 0) -> int:
        """See `OffloadPort`; a path is evicted from its end, so a bisection finds its end."""
        if not self.is_enabled:
            return 0
        per_chunk, is_stored = self.hashes_per_chunk, self.is_stored
        start = first // per_chunk
        num_chunks = resident_length(
            max(len(hashes) // per_chunk - start, 0),
            lambda chunk: is_stored(hashes[(start + chunk + 1) * per_chunk - 1]),
            guess // per_chunk,
        )
        return max((start + num_chunks) * per_chunk - first, 0) if num_chunks else 0

    def num_failed(self, hashes: Sequence[bytes], first: int) -> int:
        """See `OffloadPort`. O(hashes) after a failure, else O(1)."""
        has_failed, per_chunk = self._has_failed, self.hashes_per_chunk
        if has_failed is None:
            return 0
        start = end = first // per_chunk * per_chunk
        while end + per_chunk <= len(hashes):
            last = hashes[end + per_chunk - 1]
            if not has_failed(make_offload_key(last, self._group)) and (
                end == start or not self.is_stored(last)
            ):
                break
            end += per_chunk
        return max(end - first, 0) if end > start else 0

    def is_loading(self, hashes: Sequence[bytes]) -> bool:
        """See `OffloadPort`."""
        return self.is_prefetched is not None and self.is_prefetched(hashes)

    def keys(self, hashes: Sequence[bytes]) -> list[bytes]:
        """Keys that vLLM gives the chunks of a path, of all groups, in its order. Pure."""
        return [
            make_offload_key(block_hash, group)
            for number, block_hash in enumerate(hashes, 1)
            for group, hashes_per_chunk in self._groups
            if number % hashes_per_chunk == 0
        ]

    def is_stored(self, block_hash: bytes) -> bool:
        """Whether the chunk that ends with a prefix hash can be loaded. Pure."""
        chunk = self._policy.get(make_offload_key(block_hash, self._group))
        return chunk is not None and chunk.is_ready

    @property
    def num_unowned(self) -> int:
        """Chunks that are free or have no owner (count)."""
        owners = self._owners
        return 0 if owners is None else self.num_chunks - len(owners) + owners.num_unclaimed

    def protect_owned(self) -> AbstractContextManager[None]:
        """Evict no chunk that has an owner while the context is open."""
        protection: AbstractContextManager[None] = self._policy.protect_owned()
        return protection

    def is_chunk_stored(self, hashes: Sequence[bytes], first: int) -> bool:
        """Whether the chunk with index `first` of a path is stored, enabled or not. Pure."""
        end = (first // self.hashes_per_chunk + 1) * self.hashes_per_chunk
        return end <= len(hashes) and self.is_stored(hashes[end - 1])

    @property
    def num_loading(self) -> int:
        """Blocks whose loads are in flight (count)."""
        return sum(num_blocks for is_load, num_blocks in self._in_flight.values() if is_load)

    def forget_copy_times(self) -> None:
        """Start to learn copy times anew. Mutates."""
        self.copies = CopyCost()

    def load_s(self, num_blocks: float) -> float:
        """See `OffloadPort`; if copies block steps, the wait for a step is included."""
        return self.copies.load_s(num_blocks) + self._wait_s

    def step_planned(self, transfers: Any, now_s: float = 0.0) -> None:
        """Record the copies that a step starts. Mutates.

        Args:
            transfers: vLLM's `OffloadingConnectorMetadata`, or None.
            now_s: Time now (s).
        """
        if transfers is None:
            return
        for number, job in transfers.load_jobs.items():
            self._in_flight[number] = True, len(job.dst_spec.block_ids)
            self._load_started_s[number] = now_s
        for number, job in transfers.store_jobs.items():
            self._in_flight[number] = False, len(job.src_spec.block_ids)

    def step_ended(self, transfers: Any, now_s: float = 0.0) -> float:
        """Learn from the copies that a step's output reports. Mutates.

        Args:
            transfers: vLLM's `KVConnectorOutput`, or None.
            now_s: Time now (s).

        Returns:
            Time that the step spent on copies (s).
        """
        report = None if transfers is None else transfers.kv_connector_worker_meta
        if report is None:
            return 0.0
        num_copied = {True: 0, False: 0}
        for number, num_workers in report.completed_jobs.items():
            is_load, num_blocks = self._in_flight.pop(number, (True, 0))
            num_copied[is_load] += num_workers * num_blocks
        stats = report.transfer_stats
        if stats.load.time:
            self.copies.observe_load(num_copied[True], stats.load.time)
        if stats.store.time:
            self.copies.observe_store(num_copied[False], stats.store.time)
        started = self._load_started_s
        started_s = [started.pop(number) for number in report.completed_jobs if number in started]
        if not self.copies_block_steps:
            return 0.0
        num_workers = max(report.completed_jobs.values(), default=1)
        for load_started_s in started_s:
            wait_s = max(now_s - load_started_s - stats.load.time / num_workers, 0.0)
            self._wait_s += _WAIT_WEIGHT * (wait_s - self._wait_s)
        return float(stats.load.time + stats.store.time) / num_workers
