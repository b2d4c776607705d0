"""What vLLM loads in every process when Holdfast is installed (`vllm.general_plugins`).

It changes nothing in vLLM: it only lets `/metrics` show Holdfast's numbers beside vLLM's own.
"""

from __future__ import annotations

__all__ = ["register"]


def register() -> None:
    """Serve the engine core's metrics from this process. Process: every; re-entrant and cheap."""
    from holdfast.vllm.metrics import publish_engine_metrics

    publish_engine_metrics()
