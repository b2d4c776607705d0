"""The spec for `--kv-transfer-config`: vLLM's tiers, also without a GPU.

On a GPU the worker is vLLM's. It refuses KV tensors in host memory, for which `CopyWorker` takes
its place. The host tier's shared memory is unlinked as soon as every process has mapped it, so that
a killed engine leaves nothing in `/dev/shm`.

Process: scheduler and worker. Checked on vLLM 0.32 and 0.33.
"""

from __future__ import annotations

from typing import Any

from vllm.platforms import current_platform
from vllm.v1.kv_offload.cpu.shared_offload_region import SharedOffloadRegion
from vllm.v1.kv_offload.tiering.spec import TieringOffloadingSpec

from holdfast.errors import ConfigError
from holdfast.vllm.compat import region_paths
from holdfast.vllm.offload.copy_worker import CopyWorker
from holdfast.vllm.offload.host_memory import check_fits, memory_bounds
from holdfast.vllm.versions import check_tiers, engine_version

__all__ = ["HoldfastOffloadingSpec"]


class HoldfastOffloadingSpec(TieringOffloadingSpec):  # type: ignore[misc]
    """vLLM's `TieringOffloadingSpec`; takes the same configuration.

    Args:
        config: vLLM's `OffloadingConfig`.

    Raises:
        ConfigError: The host tier would not hold a single block.
    """

    def __init__(self, config: Any) -> None:
        check_tiers(engine_version())
        super().__init__(config)
        if self.num_chunks < 1:
            raise ConfigError(
                f"a host tier of {self.extra_config['cpu_bytes_to_use']:,} bytes is smaller than a"
                f" chunk of KV blocks ({self.kv_bytes_per_chunk:,} bytes)",
                hint="raise cpu_bytes_to_use, or host_gib",
            )

    def get_manager(self) -> Any:
        """See vLLM's. Process: scheduler, after every worker has mapped the shared memory."""
        manager = super().get_manager()
        if self._scheduler_mmap is not None:
            for path in region_paths(self._scheduler_mmap):
                path.unlink(missing_ok=True)
        manager.copies_block_steps = current_platform.is_cpu()  # `CopyWorker` is synchronous
        return manager

    def get_worker(self, kv_caches: Any) -> Any:
        """See vLLM's, which refuses KV tensors in host memory. Process: worker.

        Raises:
            ConfigError: The host tier does not fit into the memory that the engine has left.
        """
        if self._worker is None:
            num_bytes = self.cpu_page_size_per_worker * self.num_chunks
            wanted = f"the host tier takes {num_bytes / (1 << 30):.1f} GiB for this worker"
            check_fits(wanted, num_bytes, memory_bounds())
        if self._worker is None and _is_in_host_memory(kv_caches):
            self._worker: Any = self._copy_worker(kv_caches)
        return super().get_worker(kv_caches)

    def create_worker(self, kv_caches: Any) -> Any:
        """See vLLM's. Process: worker."""
        worker = super().create_worker(kv_caches)
        _expect_no_name(worker._mmap_region)  # noqa: SLF001 # vLLM has no public name for it
        return worker

    def _copy_worker(self, kv_caches: Any) -> CopyWorker:
        if self.config.canonical_layout:
            raise ConfigError("canonical_layout needs KV tensors on a GPU", hint="leave it out")
        region = SharedOffloadRegion(
            engine_id=self.config.engine_id,
            num_chunks=self.num_chunks,
            rank=0 if self.replicated_layout else self.config.parallel.rank,
            kv_bytes_per_chunk=self.kv_bytes_per_chunk,
            cpu_page_size=self.cpu_page_size_per_worker,
        )
        _expect_no_name(region)
        try:
            return CopyWorker(kv_caches, self.blocks_per_chunk, region)
        except Exception:
            region.cleanup()
            raise


def _is_in_host_memory(kv_caches: Any) -> bool:
    return all(cache.tensor.device.type == "cpu" for cache in kv_caches.tensors)


def _expect_no_name(region: Any) -> None:
    """Make a region's cleanup expect an unlinked file. Mutates the region."""
    cleanup = region.cleanup

    def clean_up() -> None:
        is_named = any(path.exists() for path in region_paths(region))
        region._creator = region._creator and is_named  # noqa: SLF001 # vLLM has no public name
        cleanup()

    region.cleanup = clean_up
