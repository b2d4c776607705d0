"""VLLM's scheduler with warm-ups, of which nothing leaves it.

Process: scheduler (engine core). Checked on vLLM 0.28 ... 0.33.
"""

from __future__ import annotations

from typing import Any

from vllm.v1.core.sched.async_scheduler import AsyncScheduler

from holdfast.vllm.warm_ups import NoWarmUps, WarmUps

__all__ = ["WarmingScheduler"]


class WarmingScheduler(AsyncScheduler):  # type: ignore[misc]
    """Keeps warm-ups out of vLLM's answers and statistics.

    Attributes:
        warm_ups: Computes predicted prompts; a null object unless the operator allows it.
    """

    warm_ups: WarmUps | NoWarmUps = NoWarmUps()

    def add_warm_up(self, request: Any) -> None:
        """Take in a request that is no client's. Mutates."""
        super().add_request(request)

    def schedule(self, *args: Any, **kwargs: Any) -> Any:
        """Plan one engine step; see vLLM."""
        with self.warm_ups.uncounted():
            return super().schedule(*args, **kwargs)

    def update_from_output(
        self, scheduler_output: Any, model_runner_output: Any, *args: Any, **kwargs: Any
    ) -> Any:
        """Take in what a step computed; see vLLM."""
        outputs = super().update_from_output(scheduler_output, model_runner_output, *args, **kwargs)
        self.warm_ups.take_out(outputs)
        return outputs

    def reset_prefix_cache(self, *args: Any, **kwargs: Any) -> bool:
        """Drop all cached content; see vLLM."""
        self.warm_ups.abort()
        is_reset: bool = super().reset_prefix_cache(*args, **kwargs)
        if is_reset:
            self.warm_ups.forget()
        return is_reset
