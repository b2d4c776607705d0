"""Metrics of prompts, and of those that did not extend their session's last one."""

from __future__ import annotations

from typing import Literal

from prometheus_client import CollectorRegistry, Counter

__all__ = ["PromptMetrics"]


class PromptMetrics:
    """Counts prompts; labels are names of ours.

    Args:
        registry: Takes the metrics.

    Attributes:
        changed: Prompts that did not extend their session's last one.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._sent = Counter(
            "holdfast_gateway_prompts", "Prompts sent to engines.", registry=registry
        )
        self.changed = Counter(
            "holdfast_gateway_changed_prompts",
            "Prompts that did not extend their session's last one, by what changed and by client.",
            ["change", "client"],
            registry=registry,
        )
        self._lost = Counter(
            "holdfast_gateway_changed_prompt_tokens",
            "Prompt tokens that engines had to compute again for it, estimated from bytes.",
            ["change", "client"],
            registry=registry,
        )
        self._skipped = Counter(
            "holdfast_gateway_skipped_prompts",
            "Prompts not compared with their session's last one: `busy`, too many waited for it; "
            "`failed`, see the log.",
            ["reason"],
            registry=registry,
        )

    def sent(self) -> None:
        """Count a prompt. Mutates."""
        self._sent.inc()

    def lost(self, change: str, client: str, num_tokens: float) -> None:
        """Count a prompt that did not extend its session's last one. Mutates."""
        self.changed.labels(change, client).inc()
        self._lost.labels(change, client).inc(num_tokens)

    def skipped(self, reason: Literal["busy", "failed"]) -> None:
        """Count a prompt that was not compared with its session's last one. Mutates."""
        self._skipped.labels(reason).inc()
