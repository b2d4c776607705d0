"""Copies KV tensors in host memory to and from the host tier, without a GPU.

It copies synchronously. The engine submits copies between two steps, so no step reads or writes the
blocks meanwhile, and there is no device that could compute in the time.

Process: worker. Checked on vLLM 0.32 and 0.33.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from vllm.v1.kv_offload.base import OffloadingWorker, TransferResult

__all__ = ["CopyWorker"]


@dataclass(frozen=True, slots=True)
class _Pages:
    """One layer's part of every block, in the KV cache and in the host tier.

    Attributes:
        engine: [num_blocks, page_bytes], int8.
        host: [num_chunks, blocks_per_chunk, page_bytes], int8.
        num_bytes: Bytes of a page without padding.
    """

    engine: np.ndarray
    host: np.ndarray
    num_bytes: int


class CopyWorker(OffloadingWorker):  # type: ignore[misc]
    """vLLM's `OffloadingWorker` without a GPU.

    Args:
        kv_caches: vLLM's `CanonicalKVCaches`; every tensor in host memory.
        blocks_per_chunk: KV blocks in one chunk of the host tier.
        region: The host tier's memory, released on shutdown.
    """

    def __init__(self, kv_caches: Any, blocks_per_chunk: int, region: Any) -> None:
        engine, host = [], []
        for cache in kv_caches.tensors:
            page_bytes = cache.page_size_bytes
            view = region.create_next_worker_view(page_bytes * blocks_per_chunk)
            engine.append(_rows_of(cache.tensor, page_bytes))
            host.append(view.unflatten(1, (blocks_per_chunk, page_bytes)).numpy())
        self._pages_by_group = [
            [
                _Pages(engine[ref.tensor_idx], host[ref.tensor_idx], ref.page_size_bytes)
                for ref in refs
            ]
            for refs in kv_caches.group_data_refs
        ]
        self._blocks_per_chunk = blocks_per_chunk
        self._region = region
        self._finished: list[Any] = []

    def submit_store(self, job_id: int, src_spec: Any, dst_spec: Any) -> bool:
        """Copy KV blocks to the host tier."""
        return self._copy(job_id, src_spec, dst_spec.block_ids, is_store=True)

    def submit_load(
        self, job_id: int, src_spec: Any, dst_spec: Any, expedited: bool = False
    ) -> bool:
        """Copy KV blocks from the host tier; expedited or not makes no difference."""
        return self._copy(job_id, dst_spec, src_spec.block_ids, is_store=False)

    def get_finished(self) -> list[Any]:
        """Results since the last call."""
        finished, self._finished = self._finished, []
        return finished

    def wait(self, job_ids: set[int]) -> None:
        """Return at once: no copy is in flight."""

    def shutdown(self) -> None:
        """Release the host tier's memory."""
        self._pages_by_group.clear()  # else it stays mapped
        if self._region is not None:
            self._region.cleanup()
            self._region = None

    def _copy(self, job_id: int, blocks: Any, chunk_ids: np.ndarray, *, is_store: bool) -> bool:
        started_s = time.perf_counter()
        num_bytes = first_block = first_chunk = 0
        for pages, num_blocks, block_index in zip(
            self._pages_by_group, blocks.group_sizes, blocks.block_indices, strict=True
        ):
            if num_blocks == 0:
                continue
            # A group's blocks are consecutive in the prompt, and so are their chunks; of the first
            # and the last chunk only a part may be copied.
            parts = block_index % self._blocks_per_chunk + np.arange(num_blocks)
            chunks = chunk_ids[first_chunk + parts // self._blocks_per_chunk]
            ids = blocks.block_ids[first_block : first_block + num_blocks]
            for page in pages:
                _copy_pages(page, ids, chunks, parts % self._blocks_per_chunk, is_store=is_store)
                num_bytes += num_blocks * page.num_bytes
            first_block += num_blocks
            first_chunk += int(parts[-1]) // self._blocks_per_chunk + 1
        self._finished.append(
            TransferResult(
                job_id=job_id,
                success=True,
                transfer_size=num_bytes,
                transfer_time=time.perf_counter() - started_s,
            )
        )
        return True


def _rows_of(tensor: torch.Tensor, page_bytes: int) -> np.ndarray:
    """A KV tensor's memory as [num_blocks, page_bytes]; rows may have padding between."""
    rows: np.ndarray = tensor.flatten(1).view(torch.int8)[:, :page_bytes].numpy()
    return rows


def _copy_pages(
    page: _Pages, ids: np.ndarray, chunks: np.ndarray, parts: np.ndarray, *, is_store: bool
) -> None:
    """Copy page by page, which for large pages is faster than fancy indexing."""
    num_bytes = page.num_bytes
    rows = zip(ids.tolist(), chunks.tolist(), parts.tolist(), strict=True)
    for block, chunk, part in rows:
        engine, host = page.engine[block, :num_bytes], page.host[chunk, part, :num_bytes]
        if is_store:
            host[:] = engine
        else:
            engine[:] = host
