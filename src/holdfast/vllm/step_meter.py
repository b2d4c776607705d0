"""Times engine steps, from which the step cost model learns.

Process: scheduler. Checked on vLLM 0.28 ... 0.33.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from holdfast.predict.step_cost import StepCostModel, StepWork

__all__ = ["StepMeter"]

_MAX_IN_FLIGHT = 64


class StepMeter:
    """Times each step from its start to its output.

    A step starts when it is planned or when the step before it ends, whichever is later: engines
    plan ahead. Idle time counts for no step.

    The cost model does not learn from a step that waits for copies before it starts: its time
    beyond the expected cost counts as stalled.

    Args:
        costs: Learns from the steps.

    Attributes:
        stalled_s: Time that steps have waited for copies so far (s).
    """

    def __init__(self, costs: StepCostModel) -> None:
        self.stalled_s = 0.0
        self._costs = costs
        self._planned: dict[int, tuple[float, StepWork, bool]] = {}
        self._last_ended_s = float("-inf")

    def step_planned(
        self, output: Any, requests: Mapping[str, Any], now_s: float, num_steps: int
    ) -> None:
        """Record a planned step. Mutates.

        Args:
            output: vLLM's scheduler output.
            requests: The engine's requests by id; planned tokens count as computed.
            now_s: Time now (s).
            num_steps: Engine steps that it stands for (count, >= 1).
        """
        if not output.total_num_scheduled_tokens:
            return
        if len(self._planned) >= _MAX_IN_FLIGHT:
            self._planned.clear()
        copies = getattr(output, "kv_connector_metadata", None)
        waits = bool(getattr(copies, "jobs_to_flush", None))
        self._planned[id(output)] = (now_s, _work_of(output, requests, num_steps), waits)

    def step_ended(self, output: Any, now_s: float, copying_s: float = 0.0) -> None:
        """Learn from a step whose output has arrived. Mutates.

        Args:
            output: vLLM's scheduler output.
            now_s: Time now (s).
            copying_s: Time that the step spent on copies (s).
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
