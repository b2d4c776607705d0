"""Which models have a cache that can be compacted."""

from __future__ import annotations

from typing import Any

from holdfast.errors import ConfigError

__all__ = ["require_cache_by_head"]


def require_cache_by_head(config: Any) -> None:
    """Check that a model caches keys and values of every token, head by head.

    Args:
        config: Of a model of transformers.

    Raises:
        ConfigError: It does not, or not in all layers.
    """
    kinds = set(getattr(config, "layer_types", None) or ()) - {"full_attention"}
    if kinds:
        raise ConfigError(f"cannot compact layers of {', '.join(sorted(kinds))}")
    if getattr(config, "kv_lora_rank", None) is not None:
        raise ConfigError("cannot compact a latent cache (MLA) head by head")
    for name in ("num_key_value_heads", "num_hidden_layers"):
        if not isinstance(getattr(config, name, None), int):
            raise ConfigError(f"cannot compact a {config.model_type} model: it has no {name}")
