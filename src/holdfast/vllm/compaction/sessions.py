"""The scheduler's half: when to compact a session, and which requests load it.

Process: scheduler. Checked on vLLM 0.28 ... 0.33.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from holdfast.compress.budget import Budget
from holdfast.vllm.compaction.catalog import Catalog
from holdfast.vllm.compaction.compactor import CompactJob, LoadJob
from holdfast.vllm.compaction.lower_copies import LowerCopies, NoLowerCopies
from holdfast.vllm.compaction.options import CompactionOptions
from holdfast.vllm.compaction.paused_prefixes import PausedPrefix, PausedPrefixes
from holdfast.vllm.compaction.returning import (
    ReturningRequest,
    can_be_shorter,
    shortened,
    wish_of,
)

__all__ = ["CompactedSessions"]

_GIB: Final = 1 << 30
_SALT_BYTES: Final = 16


class CompactedSessions:
    """Has paused sessions compacted, and shortens prompts that return.

    Args:
        directory: Directory of the engine's compactions.
        options: The settings.
        block_tokens: Tokens in a KV block (count).

    Attributes:
        catalog: The compactions that can be loaded.
        lower: Copies in tiers; none by default.
        counts: Prompts `shortened`; `loads` for them; prefixes `incomplete`, which had lost a block
            before they could be compacted, or `skipped`, as tiers dropped others faster than they
            can be compacted; tokens of prompts that were `dropped_tokens`; decisions that `failed`.
    """

    def __init__(self, directory: Path, options: CompactionOptions, block_tokens: int) -> None:
        max_bytes = None if options.compact_gib is None else int(options.compact_gib * _GIB)
        self.catalog = Catalog(directory, max_bytes)
        names = "shortened", "loads", "incomplete", "skipped", "dropped_tokens", "failed"
        self.counts: Counter[str] = Counter(dict.fromkeys(names, 0))
        self.lower: LowerCopies = NoLowerCopies()
        self._options = options
        self._block_tokens = block_tokens
        self._arrived: set[str] = set()
        self._closed: set[str] = set()
        self._returning: dict[str, ReturningRequest] = {}
        self._to_compact: list[CompactJob] = []
        self._to_load: list[LoadJob] = []
        self._paused: PausedPrefixes

    def attach(self, pool: Any) -> None:
        """Take the block pool of vLLM's cache manager. Mutates."""
        self._paused = PausedPrefixes(pool)

    @property
    def has_jobs(self) -> bool:
        """Whether a worker has something to do that no request waits for."""
        return bool(self._to_compact)

    def arrived(self, request: Any) -> None:
        """Shorten a new request's prompt if its prefix is compacted. Mutates the request.

        Not if the whole prefix is cached or can be loaded from tiers: what is lossless comes first.
        A second call for one request changes nothing.
        """
        if request.request_id in self._arrived:
            return
        self.settle()
        self._arrived.add(request.request_id)
        self._unwatch(request.block_hashes)
        if wish_of(request) is False or not can_be_shorter(request):
            return
        # One token at least is computed.
        num_blocks = (request.num_prompt_tokens - 1) // self._block_tokens
        found = self.catalog.deepest(request.block_hashes[:num_blocks])
        if found is None:
            return
        hashes = request.block_hashes[: found.header.num_tokens // self._block_tokens]
        if self.lower.covers(hashes[self._paused.num_resident(hashes) :]):
            return
        self.catalog.pin(found.key)
        self._returning[request.request_id] = shortened(request, found)
        self._unwatch(request.block_hashes)
        self.counts["shortened"] += 1
        self.counts["dropped_tokens"] += found.num_dropped

    def num_to_load(self, request: Any, num_computed: int) -> int:
        """Tokens of a compaction that a request still needs (count). Pure.

        Args:
            request: The request.
            num_computed: Tokens of its prompt in the KV cache (count).
        """
        returning = self._returning.get(request.request_id)
        if returning is None:
            return 0
        return max(returning.compaction.header.num_kept - num_computed, 0)

    def allocated(self, request: Any, block_ids: list[int], num_tokens: int) -> None:
        """Load a compaction into the blocks that a request was given. Mutates.

        Args:
            request: The request.
            block_ids: All its blocks.
            num_tokens: Tokens to load (count).
        """
        compaction = self._returning[request.request_id].compaction
        num_kept = compaction.header.num_kept
        last = -(-num_kept // self._block_tokens)
        job = LoadJob(str(compaction.path), block_ids[:last], num_kept - num_tokens, num_kept)
        self._to_load.append(job)
        self.counts["loads"] += 1

    def step_planned(self, new_block_ids: Iterable[int]) -> None:
        """Compact prefixes whose blocks are given away in this step. Mutates.

        Args:
            new_block_ids: Blocks that requests were given, hits included.
        """
        self.settle()
        for prefix, is_whole in self._paused.dropped(new_block_ids):
            self._dropped(prefix, is_whole=is_whole)

    def take_jobs(self) -> tuple[list[CompactJob], list[LoadJob]]:
        """What a worker does in this step. Mutates."""
        jobs = self._to_compact, self._to_load
        self._to_compact, self._to_load = [], []
        return jobs

    def ended(self, request: Any) -> dict[str, Any] | None:
        """Take in that a request has ended, before its blocks are freed. Mutates.

        Returns:
            Parameters for its answer, if its prompt was shortened.
        """
        if request.request_id not in self._arrived:
            return None
        self._arrived.discard(request.request_id)
        is_closed = request.request_id in self._closed
        self._closed.discard(request.request_id)
        returning = self._returning.pop(request.request_id, None)
        wish = wish_of(request)
        if wish is True or (wish is None and self._options.compact_before_drop and not is_closed):
            prefix = self._prefix_of(request, returning)
            if prefix is not None:
                self._pause(prefix, at_once=wish is True)
        if returning is None:
            return None
        self.catalog.unpin(returning.compaction.key)
        return {"holdfast": {"compaction": returning.report}}

    def closed(self, request_id: str) -> None:
        """Take in that a request's session ends with it: it is not compacted. Mutates."""
        self._closed.add(request_id)

    def content_dropped(self) -> None:
        """Forget paused prefixes, as the engine dropped all cached content. Mutates.

        Those of which tiers have copies are watched there.
        """
        for prefix in self._paused.clear():
            self._dropped(prefix, is_whole=False)
        self._to_compact.clear()

    def clear(self) -> None:
        """Remove all compactions too, as weights may have changed. Mutates."""
        self.content_dropped()
        self.lower.clear()
        self.settle()
        self.catalog.clear()

    def settle(self) -> None:
        """Take in the outcomes of prefixes in tiers. Mutates."""
        for ended in self.lower.take_ended():
            if ended.outcome == "compacted":
                self.catalog.await_file(ended.prefix.key)
            elif ended.outcome:
                self.counts[ended.outcome] += 1
            self._unpin(ended.prefix)

    @property
    def counters(self) -> dict[tuple[str, tuple[str, ...]], float]:
        """What was counted since the start, by metric and its labels. Pure."""
        counts, catalog = self.counts, self.catalog
        outcomes = {**catalog.counts, **{n: counts[n] for n in ("incomplete", "skipped", "failed")}}
        return {
            **{("holdfast_compactions", (name,)): float(num) for name, num in outcomes.items()},
            ("holdfast_compacted_prompts", ()): float(counts["shortened"]),
            ("holdfast_compacted_away_tokens", ()): float(counts["dropped_tokens"]),
            ("holdfast_compaction_seconds", ()): catalog.seconds,
        }

    @property
    def gauges(self) -> dict[str, float]:
        """What there is now, by metric. Pure."""
        return {
            "holdfast_compacted_sessions": float(len(self.catalog)),
            "holdfast_compacted_bytes": float(self.catalog.num_bytes),
        }

    def _prefix_of(self, request: Any, returning: ReturningRequest | None) -> PausedPrefix | None:
        """The part of a prompt that can be compacted; None if that saves nothing.

        The answer is left out: clients often send another text in its place.
        """
        if request.prompt_token_ids is None or request.mm_features:
            return None
        hashes = request.block_hashes[: request.num_prompt_tokens // self._block_tokens]
        whole = hashes if returning is None else returning.hashes
        base = None if returning is None else returning.compaction
        num_tokens = len(hashes) * self._block_tokens + (0 if base is None else base.num_dropped)
        if self._num_kept(num_tokens) >= len(hashes) * self._block_tokens:
            return None
        key = whole[num_tokens // self._block_tokens - 1]
        block_ids = None if self.catalog.has(key) else self._paused.resident(hashes)
        return None if block_ids is None else PausedPrefix(hashes, block_ids, key, num_tokens, base)

    def _pause(self, prefix: PausedPrefix, *, at_once: bool) -> None:
        if at_once:
            self._compact(prefix)
            return
        if prefix.base is not None:
            self.catalog.pin(prefix.base.key)
        for forgotten in self._paused.watch(prefix):
            self._unpin(forgotten)

    def _dropped(self, prefix: PausedPrefix, *, is_whole: bool) -> None:
        """Compact a prefix that leaves the KV cache, unless a tier keeps it. Mutates."""
        if self.lower.keeps(prefix.hashes):
            self.lower.watch(prefix, self._job_of(prefix))
            return
        if is_whole:
            self._compact(prefix)
        else:
            self.counts["incomplete"] += 1
        self._unpin(prefix)

    def _compact(self, prefix: PausedPrefix) -> None:
        if self.catalog.has(prefix.key):
            return
        self.catalog.await_file(prefix.key)
        self._to_compact.append(self._job_of(prefix))

    def _job_of(self, prefix: PausedPrefix) -> CompactJob:
        return CompactJob(
            path=str(self.catalog.path_of(prefix.key)),
            block_ids=list(prefix.block_ids),
            num_tokens=prefix.num_tokens,
            num_kept=self._num_kept(prefix.num_tokens),
            salt=f"holdfast-compaction-{secrets.token_hex(_SALT_BYTES)}",
            base=None if prefix.base is None else str(prefix.base.path),
        )

    def _num_kept(self, num_tokens: int) -> int:
        """Entries to keep of each head: whole blocks, so that later hashes compare."""
        wanted = Budget(self._options.compact_share, num_tokens).per_head if num_tokens else 0
        return max(wanted // self._block_tokens, 1) * self._block_tokens

    def _unwatch(self, hashes: list[bytes]) -> None:
        """A session that returns is not paused any more."""
        for prefix in self._paused.forget(hashes):
            self._unpin(prefix)
        self.lower.forget(hashes)

    def _unpin(self, prefix: PausedPrefix) -> None:
        if prefix.base is not None:
            self.catalog.unpin(prefix.base.key)
