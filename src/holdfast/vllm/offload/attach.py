"""Connects Holdfast to the tiers of a scheduler with vLLM's offloading connector.

Process: scheduler. Checked on vLLM 0.32 and 0.33.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from holdfast.core.session import Session
from holdfast.vllm.versions import check_tiers, engine_version

if TYPE_CHECKING:
    from holdfast.runtime.runtime import AgentRuntime
    from holdfast.vllm.offload.controller import OffloadController

__all__ = ["offload_controller_of"]

_logger = logging.getLogger(__name__)


def offload_controller_of(
    scheduler: Any,
    runtime: AgentRuntime,
    worth_of: Callable[[Session], Any],
    *,
    prefetches: bool = True,
) -> OffloadController | None:
    """The desk for a scheduler with vLLM's offloading connector of 0.32 or newer, or None."""
    connector = getattr(getattr(scheduler, "connector", None), "connector_scheduler", None)
    manager: Any = getattr(connector, "manager", None)
    holds_steps = getattr(manager, "holds_steps", False)
    manager = getattr(manager, "primary_tier", manager)
    policy = getattr(manager, "_policy", None)
    if connector is None or policy is None or not hasattr(scheduler, "kv_holding_waiting"):
        return None
    check_tiers(engine_version())
    from holdfast.vllm.offload.controller import OffloadController
    from holdfast.vllm.offload.host_policy import HostPolicy
    from holdfast.vllm.offload.host_tier import HostTier

    # What is held is estimated from the first group, so it must be one that keeps whole prompts.
    configs = sorted(
        connector.config.kv_group_configs,
        key=lambda one: one.sliding_window_size_in_chunks is not None,
    )
    groups = [(one.group_idx, one.hashes_per_chunk) for one in configs]
    if isinstance(policy, HostPolicy):
        _poll_at_steps(connector.manager)
    size = manager._num_chunks  # noqa: SLF001 # said nowhere else
    tier = HostTier(policy, size, groups, worth_of, holds_steps=holds_steps)
    return OffloadController(scheduler, runtime, tier, prefetches=prefetches)


def _poll_at_steps(manager: Any) -> None:
    """Have tiers that serve other engines do it at steps only, as before vLLM 0.33. Mutates.

    From then on a thread serves them between steps, which stores chunks as well. It would ask what
    sessions are worth while the scheduler changes them.
    """
    if getattr(manager, "_tier_poll_thread", None) is None:
        return
    manager._stop_tier_poll_thread()  # noqa: SLF001 # its setting was read already
    _logger.warning(
        "HostPolicy evicts by sessions, which only the scheduler's thread knows: other engines are"
        " served at engine steps only (tier_poll_interval_s = 0)"
    )
