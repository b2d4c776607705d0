"""VLLM's offloading connector, which lets its tiers see what engine they are built for.

vLLM tells tiers the model's name, its dtype and its block size. That does not tell apart two sets
of weights of one name, or two layouts of a block, so a tier that outlives the engine has to see
more.

Process: scheduler and worker. Checked on vLLM 0.32.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from vllm.distributed.kv_transfer.kv_connector.v1.offloading_connector import OffloadingConnector

__all__ = ["EngineConfig", "HoldfastOffloadingConnector", "engine_being_built"]


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """What vLLM builds a connector from.

    Attributes:
        vllm: vLLM's `VllmConfig`.
        kv_cache: vLLM's `KVCacheConfig`.
    """

    vllm: Any
    kv_cache: Any


_engine_being_built: ContextVar[EngineConfig | None] = ContextVar("engine", default=None)


def engine_being_built() -> EngineConfig | None:
    """The engine whose connector is being built by the caller's caller; None outside of that."""
    return _engine_being_built.get()


class HoldfastOffloadingConnector(OffloadingConnector):  # type: ignore[misc]
    """See vLLM's; nothing but the building differs."""

    def __init__(self, vllm_config: Any, role: Any, kv_cache_config: Any) -> None:
        token = _engine_being_built.set(EngineConfig(vllm_config, kv_cache_config))
        try:
            super().__init__(vllm_config, role, kv_cache_config)
        finally:
            _engine_being_built.reset(token)
