"""Tiers of `holdfast serve`: our settings as vLLM's own arguments."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from holdfast.config import HoldfastConfig
from holdfast.errors import ConfigError
from holdfast.pool.directory import PoolDirectory
from holdfast.vllm.offload.host_memory import check_fits, memory_bounds, shared_memory_bound
from holdfast.vllm.versions import check_tiers, engine_version

__all__ = ["check_offloading", "tier_arguments", "transfer_config"]

_GIB: Final = 1 << 30
# Least memory of an engine process beside weights and KV cache.
_PROCESS_GIB: Final = 0.5
_NAME: Final = re.compile(r"--[\w-]+")
_OWN_TIERS: Final = re.compile(r"--kv[-_](transfer[-_]config|offloading[-_]\w+)([.=].*)?")
_OWN_HASH: Final = re.compile(r"--prefix[-_]caching[-_]hash[-_]algo(=.*)?")
_HASH: Final = "sha256_cbor"


def tier_arguments(
    config: HoldfastConfig,
    arguments: Sequence[str],
    connector: Callable[[HoldfastConfig], Mapping[str, Any]] | None = None,
) -> list[str]:
    """Arguments of vLLM for the tiers in `config`; none without `host_gib`.

    Makes the pool's directory if it is missing.

    Args:
        config: Our settings.
        arguments: The operator's arguments for vLLM.
        connector: Returns another connector's `kv_transfer_config` than `transfer_config`.

    Raises:
        ConfigError: The arguments configure tiers as well, memory or disk is too small, or the
            pool's directory cannot be used.
        EngineError: vLLM is missing, too old, or lacks what tiers need.
    """
    if config.host_gib is None:
        return []
    for argument in arguments:
        if _OWN_TIERS.fullmatch(argument):
            raise ConfigError(
                f"{argument} conflicts with host_gib: both configure vLLM's tiers",
                hint="leave one of the two out",
            )
    check_offloading("host_gib")
    _check_memory(config.host_gib, arguments, os.environ)
    extra = ["--kv-transfer-config", json.dumps((connector or transfer_config)(config))]
    if config.pool_dir is not None:
        pool = PoolDirectory.make(Path(config.pool_dir))
        if config.pool_gib is not None:
            _check_disk(pool, config.pool_gib)
        if not any(_OWN_HASH.fullmatch(argument) for argument in arguments):
            # The default hash pickles, so another process may hash equal prompts differently.
            extra += ["--prefix-caching-hash-algo", _HASH]
    return extra


def check_offloading(setting: str) -> None:
    """Check that vLLM has the offloading that a setting needs.

    Raises:
        EngineError: vLLM is missing, too old, or lacks what tiers need.
    """
    check_tiers(engine_version(), setting)


def transfer_config(config: HoldfastConfig) -> dict[str, Any]:
    """The `kv_transfer_config` for the tiers in `config`, which has `host_gib`. Pure."""
    assert config.host_gib is not None
    tiers: list[dict[str, Any]] = []
    if config.pool_dir is not None:
        tiers.append(
            {
                "type": "DiskTier",
                "module_path": "holdfast.vllm.offload.disk_tier",
                "pool_dir": str(Path(config.pool_dir).absolute()),
                "pool_bytes": None if config.pool_gib is None else int(config.pool_gib * _GIB),
                "ttl_s": config.pool_ttl_s,
                "backpressure": {"backpressure_cls": "holdfast.vllm.offload.slow_disk.SlowDisk"},
            }
        )
    return {
        "kv_connector": "HoldfastOffloadingConnector",
        "kv_connector_module_path": "holdfast.vllm.offload.connector",
        "kv_role": "kv_both",
        "kv_connector_extra_config": {
            "spec_name": "HoldfastOffloadingSpec",
            "spec_module_path": "holdfast.vllm.offload.spec",
            "cpu_bytes_to_use": int(config.host_gib * _GIB),
            # An agent's next prompt repeats its last answer. Without the answers' blocks, no block
            # after the first answer could be found again.
            "offload_prompt_only": False,
            "eviction_policy": "HostPolicy",
            "cache_policy_module_path": "holdfast.vllm.offload.host_policy",
            "secondary_tiers": tiers,
        },
    }


def _check_memory(host_gib: float, arguments: Sequence[str], environ: Mapping[str, str]) -> None:
    """Check memory before the start; vLLM would fail after it has loaded the model."""
    given = _given(arguments)
    num_engines = max(given.data_parallel_size_local or given.data_parallel_size, 1)
    num_workers = max(given.tensor_parallel_size * given.pipeline_parallel_size, 1)
    tiers_gib = host_gib * num_engines
    each = f"host_gib is {host_gib:g}"
    if num_engines > 1:
        each += f" for each of {num_engines} engines, {tiers_gib:g} in all"
    check_fits(each, int(tiers_gib * _GIB), shared_memory_bound())
    own_gib = _PROCESS_GIB * (1 + num_engines * (1 + num_workers))
    with contextlib.suppress(ValueError):
        own_gib += float(environ.get("VLLM_CPU_KVCACHE_SPACE", "")) * num_engines
    wanted = f"{each}, and the engine itself takes at least {own_gib:g} GiB"
    check_fits(wanted, int((tiers_gib + own_gib) * _GIB), memory_bounds())


def _given(arguments: Sequence[str]) -> argparse.Namespace:
    """Engines and workers that the operator asks for (counts); 1 each by default."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("-dp", "--data-parallel-size", type=int, default=1)
    parser.add_argument("-dpl", "--data-parallel-size-local", type=int, default=0)
    parser.add_argument("-tp", "--tensor-parallel-size", type=int, default=1)
    parser.add_argument("-pp", "--pipeline-parallel-size", type=int, default=1)
    dashed = [_NAME.sub(lambda name: name[0].replace("_", "-"), one) for one in arguments]
    try:
        return parser.parse_known_args(dashed)[0]
    except argparse.ArgumentError:
        return parser.parse_args([])  # vLLM reports the error


def _check_disk(pool: PoolDirectory, pool_gib: float) -> None:
    """Check that `pool_gib` fits the disk, or the disk would be full before the pool."""
    free_bytes = shutil.disk_usage(pool.path).free
    if pool_gib * _GIB <= free_bytes:
        return
    pool_bytes = sum(file.num_bytes for file in pool.files())
    if pool_gib * _GIB > free_bytes + pool_bytes:
        raise ConfigError(
            f"pool_gib is {pool_gib:g}, but the disk of {str(pool.path)!r} has"
            f" {free_bytes / _GIB:.1f} GiB free, and the pool {pool_bytes / _GIB:.1f} GiB",
            hint="lower pool_gib, or give the pool a larger disk",
        )
