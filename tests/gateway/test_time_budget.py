"""Work that may wait takes its share of the time, and no more."""

from __future__ import annotations

import pytest

from holdfast.gateway.time_budget import TimeBudget


@pytest.mark.parametrize("slice_s", [0.0005, 0.001, 0.2])
@pytest.mark.parametrize("others", [0.0, 0.5, 1.0])  # of the time that the work leaves
def test_steady_work_takes_its_share(slice_s: float, others: float) -> None:
    budget = TimeBudget(0.1, 0.01, 0.05, 0.0, 0.0)
    now_s = thread_s = used_s = 0.0
    while now_s < 100.0:
        while (wait_s := budget.wait_s(now_s, thread_s)) > 0.0:
            now_s += max(wait_s, 0.001)
            thread_s += others * max(wait_s, 0.001)
        now_s, thread_s, used_s = now_s + slice_s, thread_s + slice_s, used_s + slice_s
        budget.spend(slice_s, now_s, thread_s)
    busy_s = used_s + others * (100.0 - used_s)
    expected_s = 0.1 * (100.0 - busy_s) + 0.01 * busy_s
    assert used_s == pytest.approx(expected_s, abs=0.05 + 2 * slice_s, rel=0.01)


def test_what_was_not_used_is_kept_up_to_a_bound() -> None:
    budget = TimeBudget(0.1, 0.01, 0.05, 0.0, 0.0)
    budget.spend(0.0, 1000.0, 0.0)
    assert budget.wait_s(1000.0, 0.0) == 0.0
    budget.spend(0.05, 1000.0, 0.0)
    assert budget.wait_s(1000.0, 0.0) == pytest.approx(0.0)
    budget.spend(0.01, 1000.0, 0.0)
    assert budget.wait_s(1000.0, 0.0) == pytest.approx(0.1)
    assert budget.wait_s(1000.1, 0.0) == pytest.approx(0.0)


def test_a_thread_that_works_earns_little() -> None:
    budget = TimeBudget(0.1, 0.01, 0.05, 0.0, 0.0)
    budget.spend(0.06, 0.0, 0.0)
    assert budget.wait_s(0.1, 0.1) == pytest.approx(0.09)
    assert budget.wait_s(0.2, 5.0) == pytest.approx(0.08)  # other clocks may run ahead
