"""Connects Holdfast to the tiers of a scheduler with vLLM's offloading connector.

Process: scheduler. Checked on vLLM 0.32 and 0.33.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from holdfast.core.session import Session
from holdfast.vllm.offload.no_offload import NoOffloadController
from holdfast.vllm.versions import check_tiers, engine_version

if TYPE_CHECKING:
    from holdfast.runtime.runtime import AgentRuntime
    from holdfast.vllm.offload.controller import OffloadController

__all__ = ["offload_controller_of"]

_logger = logging.getLogger(__name__)


def offload_controller_of(
    scheduler: Any,
    runtime: AgentRuntime,
    priority_of: Callable[[Session], Any],
    *,
    prefetches: bool = True,
) -> OffloadController | NoOffloadController:
    """The offload controller of a scheduler; a null object without a supported tier.

    Args:
        scheduler: vLLM's; its tier counts if it is of vLLM's offloading connector, 0.32 or newer.
        runtime: Knows the sessions.
        priority_of: A session's retention priority, or None; see `HostPolicy.attach`.
        prefetches: Whether to prefetch.

    Raises:
        EngineError: This vLLM lacks what the tiers need.
    """
    connector = getattr(getattr(scheduler, "connector", None), "connector_scheduler", None)
    manager: Any = getattr(connector, "manager", None)
    copies_block_steps = getattr(manager, "copies_block_steps", False)
    below = getattr(manager, "secondary_tiers", ())
    manager = getattr(manager, "primary_tier", manager)
    policy = getattr(manager, "_policy", None)
    if connector is None or policy is None or not hasattr(scheduler, "kv_holding_waiting"):
        return NoOffloadController()
    check_tiers(engine_version())
    from holdfast.vllm.offload.controller import OffloadController
    from holdfast.vllm.offload.host_policy import HostPolicy
    from holdfast.vllm.offload.host_tier import HostTier

    # What is stored is estimated from the first group, so it must be one that stores whole prompts.
    configs = sorted(
        connector.config.kv_group_configs,
        key=lambda one: one.sliding_window_size_in_chunks is not None,
    )
    groups = [(one.group_idx, one.hashes_per_chunk) for one in configs]
    if isinstance(policy, HostPolicy):
        _poll_at_steps(connector.manager)
    num_chunks = manager._num_chunks  # noqa: SLF001 # vLLM has no public name for it
    failures = [tier.has_failed for tier in below if hasattr(tier, "has_failed")]
    tier = HostTier(
        *(policy, num_chunks, groups, priority_of),
        copies_block_steps=copies_block_steps,
        has_failed=failures[0] if failures else None,
    )
    return OffloadController(scheduler, runtime, tier, prefetches=prefetches)


def _poll_at_steps(manager: Any) -> None:
    """End vLLM 0.33's thread that serves other engines between steps. Mutates.

    It stores chunks as well, and would read retention priorities while the scheduler changes them.
    """
    if getattr(manager, "_tier_poll_thread", None) is None:
        return
    manager._stop_tier_poll_thread()  # noqa: SLF001 # its setting was read already
    _logger.warning(
        "other engines that share this host tier are served at engine steps only, as with"
        " tier_poll_interval_s = 0: HostPolicy evicts by sessions, which only the scheduler's"
        " thread may read"
    )
