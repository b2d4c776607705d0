"""The identity that two engines must share to use each other's KV blocks.

It leaves tenants out: a request's `cache_salt` is part of its prefix hashes.

Process: scheduler. Checked on vLLM 0.32 and 0.33.
"""

from __future__ import annotations

import hashlib
import os
import platform
from typing import Any

from holdfast.errors import ConfigError
from holdfast.pool.identity import PoolIdentity
from holdfast.vllm.model_weights import weights_digest
from holdfast.vllm.offload.connector import EngineConfig

__all__ = ["check_persistable", "model_identity"]

_HINT = "unset HOLDFAST_POOL_DIR; the host tier alone works"
_SEEDLESS_HASHES = frozenset({"sha256", "sha256_cbor"})


def check_persistable(config: Any) -> None:
    """Refuse an engine whose KV could differ from start to start under one identity.

    Args:
        config: vLLM's `VllmConfig`.

    Raises:
        ConfigError: LoRA adapters are known by name only, FP8 scales come from the first prompts,
            or prefix hashes have a random seed.
    """
    if config.lora_config is not None:
        raise ConfigError("a pool cannot tell two LoRA adapters of one name apart", hint=_HINT)
    if getattr(config.cache_config, "calculate_kv_scales", False):
        raise ConfigError("a pool needs fixed KV scales, not calculate_kv_scales", hint=_HINT)
    algorithm = config.cache_config.prefix_caching_hash_algo
    if algorithm not in _SEEDLESS_HASHES and "PYTHONHASHSEED" not in os.environ:
        raise ConfigError(
            f"{algorithm} hashes have a random seed, so a restart would find no block in the pool",
            hint="give --prefix-caching-hash-algo sha256_cbor, or set PYTHONHASHSEED",
        )


def model_identity(engine: EngineConfig, spec: Any, run_config: dict[str, Any]) -> PoolIdentity:
    """Everything that decides the content of this engine's blocks.

    Reads samples of the weights.

    Args:
        engine: The engine.
        spec: vLLM's `OffloadingSpec` for it.
        run_config: The values by which vLLM tells directories of blocks apart.

    Raises:
        OSError: The weights are there but cannot be read.
    """
    from vllm import __version__ as version

    config = engine.vllm
    model, cache = config.model_config, config.cache_config
    return PoolIdentity(
        {
            "attention": str(config.attention_config.backend),
            "block_bytes": spec.kv_bytes_per_chunk,
            "device": _device(),
            "hash_algorithm": cache.prefix_caching_hash_algo,
            "hash_seed": os.environ.get("PYTHONHASHSEED"),
            "kv_cache_dtype": str(cache.cache_dtype),
            "kv_cache_groups": _groups(engine.kv_cache),
            "kv_cache_layout": spec.config.kv_cache_layout,
            "layout": run_config,
            "load_format": str(config.load_config.load_format),
            "model": model.model,
            "model_config": model.compute_hash(),
            "model_runner": 2 if config.use_v2_model_runner else 1,
            "revision": model.revision,
            "speculator": _speculator(config.speculative_config),
            "vllm": version,
            "weights": weights_digest(config),
        }
    )


def _groups(kv_cache: Any) -> str:
    """Digest of vLLM's cache groups: heads, sizes, dtypes, layers, windows."""
    described = [
        f"{group.kv_cache_spec!r} {list(group.layer_names)}" for group in kv_cache.kv_cache_groups
    ]
    return hashlib.sha256("\n".join(described).encode()).hexdigest()


def _device() -> str:
    """Kind of device; on a CPU the instruction set decides the order of values."""
    import torch
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        capability = current_platform.get_device_capability()
        return f"{current_platform.device_type} {capability}"
    has_tiles = getattr(torch.cpu, "_is_amx_tile_supported", bool)()
    return f"cpu {platform.machine()} {torch.backends.cpu.get_cpu_capability()} amx={has_tiles}"


def _speculator(config: Any) -> str | None:
    return None if config is None else f"{config.method} {config.model}"
