"""vLLM's offloading connector with a transfer gate and the engine's configuration.

vLLM gives tiers the model's name, dtype and block size. These do not tell apart two sets of weights
of one name, or two layouts of a block, so a tier that outlives the engine needs the rest.

Process: scheduler and worker. Checked on vLLM 0.32 and 0.33.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vllm.distributed.kv_transfer.kv_connector.v1.offloading_connector import OffloadingConnector

from holdfast.vllm.versions import check_tiers, engine_version

if TYPE_CHECKING:
    from holdfast.vllm.offload.transfer_gate import TransferGate

__all__ = ["EngineConfig", "HoldfastOffloadingConnector", "engine_being_built"]


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """The configuration from which vLLM builds a connector.

    Attributes:
        vllm: vLLM's `VllmConfig`.
        kv_cache: vLLM's `KVCacheConfig`.
    """

    vllm: Any
    kv_cache: Any


_engine_being_built: ContextVar[EngineConfig | None] = ContextVar("engine", default=None)


def engine_being_built() -> EngineConfig | None:
    """The engine whose connector this thread is building; None if there is none."""
    return _engine_being_built.get()


class HoldfastOffloadingConnector(OffloadingConnector):  # type: ignore[misc]
    """See vLLM's; without a gate only its construction differs.

    Attributes:
        gate: Limits each request's stores and loads; set by Holdfast's scheduler.
    """

    gate: TransferGate | None = None

    def __init__(self, vllm_config: Any, role: Any, kv_cache_config: Any) -> None:
        check_tiers(engine_version())
        token = _engine_being_built.set(EngineConfig(vllm_config, kv_cache_config))
        try:
            super().__init__(vllm_config, role, kv_cache_config)
        finally:
            _engine_being_built.reset(token)

    def on_new_request(self, request: Any) -> None:
        """See vLLM's."""
        super().on_new_request(request)
        if self.gate is not None:
            self.gate.request_arrived(request)

    def get_num_new_matched_tokens(
        self, request: Any, num_computed_tokens: int
    ) -> tuple[int | None, bool]:
        """See vLLM's."""

        def ask() -> tuple[int | None, bool]:
            answer: tuple[int | None, bool] = super(
                HoldfastOffloadingConnector, self
            ).get_num_new_matched_tokens(request, num_computed_tokens)
            return answer

        if self.gate is None:
            return ask()
        return self.gate.matched(request, num_computed_tokens, ask)

    def build_connector_meta(self, scheduler_output: Any) -> Any:
        """See vLLM's."""
        transfers = super().build_connector_meta(scheduler_output)
        if self.gate is not None:
            self.gate.step_planned(transfers)
        return transfers

    def update_connector_output(self, connector_output: Any) -> None:
        """See vLLM's."""
        super().update_connector_output(connector_output)
        if self.gate is not None:
            self.gate.step_ended(connector_output.kv_connector_worker_meta)

    def request_finished(self, request: Any, block_ids: list[int]) -> tuple[bool, Any]:
        """See vLLM's."""
        self._forget(request)
        answer: tuple[bool, Any] = super().request_finished(request, block_ids)
        return answer

    def request_finished_all_groups(
        self, request: Any, block_ids: tuple[list[int], ...]
    ) -> tuple[bool, Any]:
        """See vLLM's."""
        self._forget(request)
        answer: tuple[bool, Any] = super().request_finished_all_groups(request, block_ids)
        return answer

    def _forget(self, request: Any) -> None:
        if self.gate is not None:
            self.gate.request_finished(request)
