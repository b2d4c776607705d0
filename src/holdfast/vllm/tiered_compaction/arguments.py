"""Compaction with tiers in `holdfast serve`: our settings as vLLM's own arguments."""

from __future__ import annotations

from typing import Any

from holdfast.config import HoldfastConfig
from holdfast.vllm.compaction.arguments import compaction_config
from holdfast.vllm.offload.arguments import transfer_config

__all__ = ["tiered_compaction_config"]


def tiered_compaction_config(config: HoldfastConfig) -> dict[str, Any]:
    """The `kv_transfer_config` for tiers and `compact_dir` together. Pure."""
    tiers, compaction = transfer_config(config), compaction_config(config)
    extra = {
        **tiers["kv_connector_extra_config"],
        "compaction": compaction["kv_connector_extra_config"],
    }
    return {
        **tiers,
        "kv_connector": "TieredCompactionConnector",
        "kv_connector_module_path": "holdfast.vllm.tiered_compaction.connector",
        "kv_load_failure_policy": compaction["kv_load_failure_policy"],
        "kv_connector_extra_config": extra,
    }
