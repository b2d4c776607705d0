"""Compaction in `holdfast serve`: our settings as vLLM's own arguments."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from holdfast.config import HoldfastConfig
from holdfast.errors import ConfigError, EngineError
from holdfast.vllm.versions import check_compaction, engine_version

__all__ = ["compaction_arguments", "compaction_config"]

_OWN_TRANSFER: Final = re.compile(r"--kv[-_](transfer[-_]config|offloading[-_]\w+)([.=].*)?")
_OWN_HASH: Final = re.compile(r"--prefix[-_]caching[-_]hash[-_]algo(=.*)?")
_HASH: Final = "sha256_cbor"


def compaction_arguments(config: HoldfastConfig, arguments: Sequence[str]) -> list[str]:
    """Arguments of vLLM for compacted sessions; none without `compact_dir`.

    With `host_gib` the tiers' arguments name the connector.

    Args:
        config: Our settings.
        arguments: The operator's arguments for vLLM.

    Raises:
        ConfigError: The arguments name a connector of their own, the method is unknown or cannot
            run in an engine, or warm-ups are on.
        EngineError: vLLM or transformers is missing, or vLLM lacks what compaction needs.
    """
    if config.compact_dir is None:
        return []
    for argument in arguments:
        if _OWN_TRANSFER.fullmatch(argument):
            raise ConfigError(
                f"{argument} conflicts with compact_dir: vLLM takes one connector",
                hint="leave one of the two out",
            )
    if config.warm_up_share > 0:
        raise ConfigError(
            "warm_up_share and compact_dir are both set: a warm-up would compute the placeholders"
            " of a compacted session as if they were its text",
            hint="leave one of the two out",
        )
    check_compaction(engine_version(), has_tiers=config.host_gib is not None)
    try:
        from holdfast.vllm.compaction.requirements import engine_method
    except ImportError as error:
        raise EngineError(f"compact_dir needs torch and transformers: {error}") from error

    engine_method(config.compact_method)
    extra: list[str] = []
    if config.host_gib is None:
        extra = ["--kv-transfer-config", json.dumps(compaction_config(config))]
    if config.pool_dir is None and not any(_OWN_HASH.fullmatch(argument) for argument in arguments):
        # The default hash pickles, so another process may hash equal prompts differently.
        extra += ["--prefix-caching-hash-algo", _HASH]
    return extra


def compaction_config(config: HoldfastConfig) -> dict[str, Any]:
    """The `kv_transfer_config` for `config`, which has `compact_dir`. Pure."""
    assert config.compact_dir is not None
    return {
        "kv_connector": "CompactionConnector",
        "kv_connector_module_path": "holdfast.vllm.compaction.connector",
        "kv_role": "kv_both",
        # A request whose placeholders were computed like text would answer nonsense.
        "kv_load_failure_policy": "fail",
        "kv_connector_extra_config": {
            "compact_dir": str(Path(config.compact_dir).absolute()),
            "compact_gib": config.compact_gib,
            "compact_share": config.compact_share,
            "compact_method": config.compact_method,
            "compact_before_drop": config.compact_before_drop,
        },
    }
