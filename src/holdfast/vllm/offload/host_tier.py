"""The host tier as the runtime sees it: what it holds, for whom, and what a copy costs.

Process: scheduler. Checked on vLLM 0.32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

from vllm.v1.kv_offload.base import make_offload_key

from holdfast.core.prefix_search import held_length
from holdfast.core.sessions import Session
from holdfast.predict.copy_cost import CopyCost
from holdfast.vllm.offload.host_policy import HostPolicy

__all__ = ["HostTier"]


class HostTier:
    """A view of the offloading connector's primary tier.

    Args:
        policy: vLLM's record of what the tier holds.
        size: Chunks that it holds (count).
        groups: For each of vLLM's cache groups its number, and how many prefix hashes a chunk of it
            covers. What is held is estimated from the first.
        worth_of: See `HostPolicy.attach`; asked about sessions.

    Attributes:
        copies: What copies take, as learned so far.
        size: Chunks that it holds (count).
        stride: Prefix hashes that a chunk of the first group covers (count).
        capacity_blocks: Prefix hashes whose blocks it can hold (count).
    """

    def __init__(
        self,
        policy: Any,
        size: int,
        groups: Sequence[tuple[int, int]],
        worth_of: Callable[[Session], Any],
    ) -> None:
        self.copies = CopyCost()
        self.size = size
        self._policy = policy
        self._groups = tuple(groups)
        self._group, self.stride = self._groups[0]
        # By vLLM's number of the copy: whether it is a load, and its blocks.
        self._under_way: dict[int, tuple[bool, int]] = {}
        self.capacity_blocks = size * self.stride // len(self._groups)
        self._claims = policy.claims if isinstance(policy, HostPolicy) else None
        if self._claims is not None:
            policy.attach(worth_of)

    def claim(self, session: Session, hashes: Sequence[bytes]) -> None:
        """See `LowerTier`."""
        if self._claims is not None:
            self._claims.claim(session, self.keys(hashes))

    def forget(self, session: Session) -> None:
        """See `LowerTier`."""
        if self._claims is not None:
            self._claims.drop(session)

    def let_go(self) -> None:
        """Nobody will say any more what sessions are worth: evict without that. Mutates."""
        if self._claims is not None:
            self._policy.attach(None)

    def num_held(self, hashes: Sequence[bytes], first: int, guess: int = 0) -> int:
        """See `LowerTier`; a chain is given up from its end, so a bisection finds what is left."""
        stride, holds = self.stride, self.holds
        start = first // stride
        num_chunks = held_length(
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

    def load_s(self, num_blocks: float) -> float:
        """See `LowerTier`."""
        return self.copies.load_s(num_blocks)

    def planned(self, transfers: Any) -> None:
        """Take note of the copies that a step begins. Mutates.

        Args:
            transfers: vLLM's `OffloadingConnectorMetadata`, or None.
        """
        if transfers is None:
            return
        for number, job in transfers.load_jobs.items():
            self._under_way[number] = True, len(job.dst_spec.block_ids)
        for number, job in transfers.store_jobs.items():
            self._under_way[number] = False, len(job.src_spec.block_ids)

    def ended(self, transfers: Any) -> None:
        """Learn from the copies that a step's output reports. Mutates.

        Args:
            transfers: vLLM's `KVConnectorOutput`, or None.
        """
        report = None if transfers is None else transfers.kv_connector_worker_meta
        if report is None:
            return
        num_copied = {True: 0, False: 0}
        for number, num_workers in report.completed_jobs.items():
            is_load, num_blocks = self._under_way.pop(number, (True, 0))
            num_copied[is_load] += num_workers * num_blocks
        stats = report.transfer_stats
        if stats.load.time:
            self.copies.observe_load(num_copied[True], stats.load.time)
        if stats.store.time:
            self.copies.observe_store(num_copied[False], stats.store.time)
