"""Copies between KV tensors and the host tier, against plain copies."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.engine

_PAGE_BYTES = (96, 160)  # of the two tensors
_NUM_BLOCKS = 24
_NUM_CHUNKS = 16


class _Region:
    """Memory laid out as vLLM's `SharedOffloadRegion` lays it out, for one worker of two."""

    def __init__(self, blocks_per_chunk: int) -> None:
        import torch

        self.row_bytes = 2 * sum(_PAGE_BYTES) * blocks_per_chunk + 64
        self.memory = torch.zeros(_NUM_CHUNKS * self.row_bytes, dtype=torch.int8)
        self._offset = sum(_PAGE_BYTES) * blocks_per_chunk
        self.is_released = False

    def create_next_worker_view(self, num_bytes: int) -> Any:
        offset, self._offset = self._offset, self._offset + num_bytes
        return self.memory.as_strided((_NUM_CHUNKS, num_bytes), (self.row_bytes, 1), offset)

    def cleanup(self) -> None:
        self.is_released = True


def _caches(*, row_gap: int = 0) -> Any:
    """Two tensors and two groups: one of both tensors, one of a part of the second."""
    import torch
    from vllm.v1.kv_offload.base import (
        CanonicalKVCacheRef,
        CanonicalKVCaches,
        CanonicalKVCacheTensor,
    )

    tensors = []
    for seed, page_bytes in enumerate(_PAGE_BYTES):
        generator = np.random.default_rng(seed)
        stride = page_bytes + row_gap
        memory = generator.integers(-128, 128, _NUM_BLOCKS * stride, dtype=np.int8)
        rows = torch.from_numpy(memory).as_strided((_NUM_BLOCKS, page_bytes), (stride, 1))
        tensors.append(CanonicalKVCacheTensor(tensor=rows, page_size_bytes=page_bytes))
    first = [CanonicalKVCacheRef(i, page_bytes) for i, page_bytes in enumerate(_PAGE_BYTES)]
    return CanonicalKVCaches(tensors, [first, [CanonicalKVCacheRef(1, 100)]])


def _blocks(ids: list[int], sizes: list[int], indices: list[int]) -> Any:
    from vllm.v1.kv_offload.base import GPULoadStoreSpec

    return GPULoadStoreSpec(ids, group_sizes=sizes, block_indices=indices)


def _chunks(ids: list[int]) -> Any:
    from vllm.v1.kv_offload.cpu.common import CPULoadStoreSpec

    return CPULoadStoreSpec(ids)


def _worker(caches: Any, blocks_per_chunk: int) -> Any:
    from holdfast.vllm.offload.copy_worker import CopyWorker

    return CopyWorker(caches, blocks_per_chunk, _Region(blocks_per_chunk))


@pytest.mark.parametrize("row_gap", [0, 32])
@pytest.mark.parametrize(
    ("blocks_per_chunk", "sizes", "indices", "num_chunks"),
    [
        (1, [5, 0], [0, 0], 5),
        (1, [3, 2], [7, 7], 5),
        (3, [6, 3], [0, 3], 3),
        (3, [5, 4], [0, 0], 4),  # the second group starts with its own chunk
        (3, [7, 4], [1, 2], 5),  # both groups start and end amid a chunk
        (4, [1, 0], [3, 0], 1),
    ],
)
def test_stored_content_loads_into_other_blocks(
    blocks_per_chunk: int, sizes: list[int], indices: list[int], num_chunks: int, row_gap: int
) -> None:
    caches = _caches(row_gap=row_gap)
    worker = _worker(caches, blocks_per_chunk)
    before = [cache.tensor.clone() for cache in caches.tensors]
    generator = np.random.default_rng(3)
    ids = generator.permutation(_NUM_BLOCKS)
    source, target = ids[: sum(sizes)].tolist(), ids[-sum(sizes) :].tolist()
    chunks = _chunks(generator.permutation(_NUM_CHUNKS)[:num_chunks].tolist())
    assert worker.submit_store(1, _blocks(source, sizes, indices), chunks)
    assert worker.submit_load(2, chunks, _blocks(target, sizes, indices))
    expected = [tensor.clone() for tensor in before]
    first = 0
    for refs, size in zip(caches.group_data_refs, sizes, strict=True):
        for ref in refs:
            n = ref.page_size_bytes
            for i in range(first, first + size):
                expected[ref.tensor_idx][target[i], :n] = before[ref.tensor_idx][source[i], :n]
        first += size
    for cache, tensor in zip(caches.tensors, expected, strict=True):
        assert (cache.tensor == tensor).all()


def test_each_copy_reported_once_with_its_bytes() -> None:
    worker = _worker(_caches(), 1)
    worker.submit_store(5, _blocks([1, 2, 3], [2, 1], [0, 0]), _chunks([0, 1, 2]))
    worker.submit_load(6, _chunks([0, 1]), _blocks([4, 5], [2, 0], [0, 0]))
    store, load = worker.get_finished()
    assert (store.job_id, store.success, store.transfer_size) == (5, True, 2 * 256 + 100)
    assert (load.job_id, load.success, load.transfer_size) == (6, True, 2 * 256)
    assert store.transfer_time > 0
    assert worker.get_finished() == []


def test_chunk_layout_equals_vllms() -> None:
    """A chunk has all blocks of a tensor, then those of the next, as the disk tier reads it."""
    caches = _caches()
    worker = _worker(caches, 2)
    region = worker._region
    worker.submit_store(1, _blocks([7, 8], [2, 0], [0, 0]), _chunks([4]))
    row = region.memory[4 * region.row_bytes :][: region.row_bytes]
    own = row[2 * sum(_PAGE_BYTES) :]
    first, second = (cache.tensor for cache in caches.tensors)
    assert (own[:96] == first[7]).all()
    assert (own[96:192] == first[8]).all()
    assert (own[192:352] == second[7]).all()
    assert (row[: 2 * sum(_PAGE_BYTES)] == 0).all()  # the other worker's


def test_shutdown_releases_the_memory_once() -> None:
    worker = _worker(_caches(), 1)
    region = worker._region
    worker.wait({1})
    worker.shutdown()
    worker.shutdown()
    assert region.is_released
