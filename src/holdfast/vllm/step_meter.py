"""How long engine steps take, and for what: the engine's part of learning what computing costs.

Process: scheduler. Checked on vLLM 0.28 ... 0.33.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from holdfast.predict.step_cost import StepCostModel, StepWork

__all__ = ["StepMeter"]

_MAX_IN_FLIGHT = 64


class StepMeter:
    """Times each step from when it could begin to when its output is there.

    A step begins when it is planned or when the one before it ends, whichever is later: engines
    plan ahead. Time in which nothing is planned counts for nobody.

    A step that waits for copies to end before it begins says nothing about computing: what it
    took beyond what such a step is expected to take counts as waiting.

    Args:
        costs: Told of every other step.

    Attributes:
        stalled_s: Time that steps have waited for copies since it was made (s).
    """

    def __init__(self, costs: StepCostModel) -> None:
        self.stalled_s = 0.0
        self._costs = costs
        self._planned: dict[int, tuple[float, StepWork, bool]] = {}
        self._last_ended_s = float("-inf")

    def step_planned(
        self, output: Any, requests: Mapping[str, Any], now_s: float, num_steps: int
    ) -> None:
        """Note what a step will compute.

        Args:
            output: vLLM's scheduler output.
            requests: The engine's requests by id, the planned tokens counted as computed.
            now_s: Time now (s).
            num_steps: Steps it stands for (count, >= 1).
        """
        if not output.total_num_scheduled_tokens:
            return
        if len(self._planned) >= _MAX_IN_FLIGHT:
            self._planned.clear()
        copies = getattr(output, "kv_connector_metadata", None)
        waits = bool(getattr(copies, "jobs_to_flush", None))
        self._planned[id(output)] = (now_s, _work_of(output, requests, num_steps), waits)

    def step_ended(self, output: Any, now_s: float, copying_s: float = 0.0) -> None:
        """Learn from a step whose output has come.

        Args:
            output: vLLM's scheduler output.
            now_s: Time now (s).
            copying_s: Time in which the step copied instead of computing (s).
        """
        planned = self._planned.pop(id(output), None)
        if planned is not None:
            planned_s, work, waits = planned
            seconds = now_s - max(planned_s, self._last_ended_s) - copying_s
            expected_s = self._costs.step_s(work)
            if waits and expected_s:
                self.stalled_s += seconds - expected_s
            else:
                self._costs.observe(work, seconds)
        self._last_ended_s = now_s


def _work_of(output: Any, requests: Mapping[str, Any], num_steps: int) -> StepWork:
    scheduled: dict[str, int] = output.num_scheduled_tokens
    drafts = output.scheduled_spec_decode_tokens
    num_decodes, prefill_tokens, attended_pairs = len(scheduled), 0, 0.0
    if output.total_num_scheduled_tokens > len(scheduled) + sum(map(len, drafts.values())):
        for request_id, num_tokens in scheduled.items():
            if num_tokens > 1 and request_id not in drafts:
                num_decodes -= 1
                prefill_tokens += num_tokens
                context = max(requests[request_id].num_computed_tokens - num_tokens, 0)
                attended_pairs += num_tokens * (context + 0.5 * num_tokens)
    return StepWork(num_steps, prefill_tokens, attended_pairs, num_steps * num_decodes)
