"""Times of engine steps."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from holdfast.predict.step_cost import StepCostModel, StepWork

pytest.importorskip("vllm")
pytestmark = pytest.mark.engine


class Heard(StepCostModel):
    def __init__(self) -> None:
        super().__init__()
        self.steps: list[tuple[StepWork, float]] = []

    def observe(self, work: StepWork, seconds: float) -> None:
        self.steps.append((work, seconds))


def output(drafts: dict[str, list[int]] | None = None, **scheduled: int) -> Any:
    return SimpleNamespace(
        num_scheduled_tokens=scheduled,
        total_num_scheduled_tokens=sum(scheduled.values()),
        scheduled_spec_decode_tokens=drafts or {},
    )


def requests(**computed: int) -> dict[str, Any]:
    return {name: SimpleNamespace(num_computed_tokens=count) for name, count in computed.items()}


def meter() -> tuple[Any, Heard]:
    from holdfast.vllm.step_meter import StepMeter

    heard = Heard()
    return StepMeter(heard), heard


def test_step_timed_from_plan_to_output() -> None:
    steps, heard = meter()
    planned = output(a=100, b=1)
    steps.step_planned(planned, requests(a=150, b=40), 5.0, 1)
    steps.step_ended(planned, 5.5)
    assert heard.steps == [(StepWork(1, 100, 100 * (50 + 50.0), 1), 0.5)]


def test_step_planned_ahead_starts_at_end_of_previous() -> None:
    steps, heard = meter()
    first, second = output(a=100), output(a=1)
    steps.step_planned(first, requests(a=100), 1.0, 1)
    steps.step_planned(second, requests(a=101), 1.1, 1)
    steps.step_ended(first, 2.0)
    steps.step_ended(second, 2.25)
    assert [seconds for _, seconds in heard.steps] == [1.0, 0.25]


def test_idle_time_counts_for_no_step() -> None:
    steps, heard = meter()
    for start_s in (1.0, 100.0):
        planned = output(a=10)
        steps.step_planned(planned, requests(a=10), start_s, 1)
        steps.step_ended(planned, start_s + 0.25)
        steps.step_ended(output(), start_s + 0.5)
    assert [seconds for _, seconds in heard.steps] == [0.25, 0.25]


def test_accepted_drafts_count_as_decode_steps() -> None:
    steps, heard = meter()
    planned = output({"a": [2, 2, 2]}, a=4, b=64)
    steps.step_planned(planned, requests(a=900, b=64), 0.0, 4)
    steps.step_ended(planned, 1.0)
    assert heard.steps == [(StepWork(4, 64, 64 * 32.0, 4), 1.0)]


def test_plans_without_output_are_dropped() -> None:
    steps, heard = meter()
    plans = [output(a=1) for _ in range(1000)]
    for planned in plans:
        steps.step_planned(planned, requests(a=1), 0.0, 1)
    for planned in plans:
        steps.step_ended(planned, 1.0)
    assert len(heard.steps) < 100


def test_step_waiting_for_copies_counts_as_stalled() -> None:
    steps, heard = meter()
    heard.step_s = lambda work: 0.25  # type: ignore[method-assign]
    planned = output(a=100)
    planned.kv_connector_metadata = SimpleNamespace(jobs_to_flush={7})
    steps.step_planned(planned, requests(a=100), 5.0, 1)
    steps.step_ended(planned, 6.0)
    assert heard.steps == []
    assert steps.stalled_s == 0.75


def test_copy_time_in_a_step_not_counted_as_computing() -> None:
    steps, heard = meter()
    planned = output(a=100)
    steps.step_planned(planned, requests(a=100), 5.0, 1)
    steps.step_ended(planned, 6.0, 0.75)
    assert [seconds for _, seconds in heard.steps] == [0.25]
