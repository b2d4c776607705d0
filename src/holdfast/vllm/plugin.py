"""The plugin that vLLM loads in every process where Holdfast is installed.

It changes nothing in vLLM but adds Holdfast's metrics to `/metrics` (`vllm.general_plugins`).
"""

from __future__ import annotations

__all__ = ["register"]


def register() -> None:
    """Serve the engine core's metrics from this process. Re-entrant and cheap."""
    from holdfast.vllm.metrics import publish_engine_metrics

    publish_engine_metrics()
