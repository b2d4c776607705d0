"""What `holdfast serve` tells vLLM about tiers: our settings as vLLM's own arguments."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from holdfast.config import HoldfastConfig
from holdfast.errors import ConfigError
from holdfast.pool.directory import PoolDirectory
from holdfast.vllm.versions import check_tiers, engine_version

__all__ = ["check_offloading", "tier_arguments", "transfer_config"]

_GIB: Final = 1 << 30
_SHARED_MEMORY: Final = Path("/dev/shm")
_OWN_TIERS: Final = re.compile(r"--kv[-_](transfer[-_]config|offloading[-_]\w+)([.=].*)?")
_OWN_HASH: Final = re.compile(r"--prefix[-_]caching[-_]hash[-_]algo(=.*)?")
_HASH: Final = "sha256_cbor"


def tier_arguments(config: HoldfastConfig, arguments: Sequence[str]) -> list[str]:
    """VLLM's arguments for the tiers that `config` asks for; none when it asks for none.

    The pool's directory is made where there is none.

    Args:
        config: Our settings.
        arguments: What the operator gave vLLM.

    Raises:
        ConfigError: The operator configures tiers as well, there is too little shared memory, or
            the pool's directory cannot be used.
        EngineError: vLLM is missing, too old, or lacks what tiers need.
    """
    if config.host_gib is None:
        return []
    for argument in arguments:
        if _OWN_TIERS.fullmatch(argument):
            raise ConfigError(
                f"{argument} conflicts with host_gib, which sets vLLM's tiers up itself",
                hint="leave one of them out",
            )
    check_offloading("host_gib")
    _check_shared_memory(config.host_gib)
    extra = ["--kv-transfer-config", json.dumps(transfer_config(config))]
    if config.pool_dir is not None:
        PoolDirectory.make(Path(config.pool_dir))
        if not any(_OWN_HASH.fullmatch(argument) for argument in arguments):
            # The default pickles, so equal prompts may hash differently in another process.
            extra += ["--prefix-caching-hash-algo", _HASH]
    return extra


def check_offloading(setting: str) -> None:
    """Make sure that vLLM has the offloading that a setting needs.

    Raises:
        EngineError: vLLM is missing, too old, or lacks what tiers need.
    """
    check_tiers(engine_version(), setting)


def transfer_config(config: HoldfastConfig) -> dict[str, Any]:
    """What vLLM's `kv_transfer_config` must be for the tiers of `config`, which has `host_gib`."""
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
            # An agent's next prompt repeats its last answer. Without the answers' blocks, what
            # comes after the first answer could not be found again.
            "offload_prompt_only": False,
            "eviction_policy": "HostPolicy",
            "cache_policy_module_path": "holdfast.vllm.offload.host_policy",
            "secondary_tiers": tiers,
        },
    }


def _check_shared_memory(host_gib: float) -> None:
    """Say so now; vLLM would find out when the model is loaded."""
    if not _SHARED_MEMORY.is_dir():
        return
    free_gib = shutil.disk_usage(_SHARED_MEMORY).free / _GIB
    if host_gib > free_gib:
        raise ConfigError(
            f"host_gib is {host_gib:g}, but {_SHARED_MEMORY} has {free_gib:.1f} GiB free",
            hint="containers have little of it unless told otherwise (--shm-size, --ipc=host)",
        )
