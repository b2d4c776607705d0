"""The offloading spec with vLLM's real host tier, in one process without an engine."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from holdfast.errors import ConfigError

pytestmark = pytest.mark.engine

_NUM_CHUNKS = 8


def _spec(**extra: Any) -> Any:
    from tests.vllm.offload.conftest import BLOCK_BYTES, offloading_config

    from holdfast.vllm.offload.spec import HoldfastOffloadingSpec

    return HoldfastOffloadingSpec(
        offloading_config({"cpu_bytes_to_use": _NUM_CHUNKS * BLOCK_BYTES, **extra})
    )


def _caches(num_blocks: int = 4, device: str = "cpu") -> Any:
    import torch
    from tests.vllm.offload.conftest import BLOCK_BYTES
    from vllm.v1.kv_offload.base import (
        CanonicalKVCacheRef,
        CanonicalKVCaches,
        CanonicalKVCacheTensor,
    )

    tensor = torch.zeros((num_blocks, BLOCK_BYTES), dtype=torch.int8, device=device)
    return CanonicalKVCaches(
        [CanonicalKVCacheTensor(tensor, BLOCK_BYTES)], [[CanonicalKVCacheRef(0, BLOCK_BYTES)]]
    )


def test_stored_chunk_visible_in_the_host_tier() -> None:
    from vllm.v1.kv_offload.base import GPULoadStoreSpec
    from vllm.v1.kv_offload.cpu.common import CPULoadStoreSpec

    spec, caches = _spec(), _caches()
    worker = spec.get_worker(caches)
    manager = spec.get_manager()
    caches.tensors[0].tensor[2] = 7
    worker.submit_store(1, GPULoadStoreSpec([2], [1], [0]), CPULoadStoreSpec([5]))
    view = manager.primary_tier.get_kv_memoryview()
    assert view.shape[0] == _NUM_CHUNKS
    assert {view[5, i] for i in range(view.shape[1])} == {7}
    assert {view[4, i] for i in range(view.shape[1])} == {0}
    worker.shutdown()
    manager.shutdown()


def test_shared_memory_unlinked_once_mapped(
    caplog: pytest.LogCaptureFixture,
) -> None:
    spec = _spec()
    worker = spec.get_worker(_caches())
    name = Path(worker._region.mmap_path)
    assert name.exists()
    manager = spec.get_manager()
    assert not name.exists()
    worker.shutdown()
    manager.shutdown()
    assert caplog.text == ""  # no cleanup complains


def test_early_shutdown_leaves_no_shared_memory() -> None:
    worker = _spec().get_worker(_caches())
    name = Path(worker._region.mmap_path)
    worker.shutdown()
    assert not name.exists()


def test_vllms_own_worker_accepts_unlinked_memory(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import inspect

    from vllm.v1.kv_offload.cpu.gpu_worker import CPUOffloadingWorker
    from vllm.v1.kv_offload.cpu.shared_offload_region import SharedOffloadRegion
    from vllm.v1.kv_offload.tiering.spec import TieringOffloadingSpec

    assert "self._mmap_region = mmap_region" in inspect.getsource(CPUOffloadingWorker.__init__)
    spec = _spec()
    size = spec.kv_bytes_per_chunk
    region = SharedOffloadRegion(spec.config.engine_id, _NUM_CHUNKS, 0, size, size)
    worker = SimpleNamespace(_mmap_region=region)
    monkeypatch.setattr(TieringOffloadingSpec, "create_worker", lambda *_: worker)
    assert spec.create_worker(_caches()) is worker
    Path(region.mmap_path).unlink()
    region.cleanup()
    assert caplog.text == ""


def test_other_devices_are_left_to_vllm() -> None:
    with pytest.raises(Exception, match="only supported on CUDA"):
        _spec().get_worker(_caches(device="meta"))


def test_host_tier_below_one_block_is_refused() -> None:
    with pytest.raises(ConfigError, match="smaller than a chunk"):
        _spec(cpu_bytes_to_use=100)


def test_pool_needs_our_connector(tmp_path: Path) -> None:
    tier = {
        "type": "DiskTier",
        "module_path": "holdfast.vllm.offload.disk_tier",
        "pool_dir": str(tmp_path),
    }
    spec = _spec(secondary_tiers=[tier])
    with pytest.raises(ConfigError, match="HoldfastOffloadingConnector"):
        spec.get_manager()
