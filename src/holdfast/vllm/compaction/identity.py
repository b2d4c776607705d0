"""The identity that engines must share to load each other's compactions.

Process: scheduler. Checked on vLLM 0.28 ... 0.33.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from holdfast.errors import ConfigError
from holdfast.pool.identity import PoolIdentity
from holdfast.vllm.model_weights import weights_digest

__all__ = ["identity_directory"]


def identity_directory(config: Any, parent: Path) -> Path:
    """The directory of an engine's compactions; made if it is missing.

    Args:
        config: vLLM's `VllmConfig`.
        parent: The directory of all engines' compactions.

    Raises:
        ConfigError: It cannot be made or written to.
    """
    identity = _identity(config)
    directory = parent / identity.name
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        text = json.dumps(dict(identity.fields), indent=2, sort_keys=True)
        (directory / "identity.json").write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        why = f"compact_dir is {str(parent)!r}, which cannot be used: {error.strerror}"
        raise ConfigError(why) from error
    return directory


def _identity(config: Any) -> PoolIdentity:
    """Everything that decides what a prefix hash stands for, and its entries."""
    from vllm import __version__ as version

    model, cache = config.model_config, config.cache_config
    return PoolIdentity(
        {
            "block_tokens": cache.block_size,
            "hash_algorithm": cache.prefix_caching_hash_algo,
            "hash_seed": os.environ.get("PYTHONHASHSEED"),
            "load_format": str(config.load_config.load_format),
            "model": model.model,
            "model_config": model.compute_hash(),
            "revision": model.revision,
            "vllm": version,
            "weights": weights_digest(config),
        }
    )
