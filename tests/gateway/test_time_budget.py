"""Work that may wait takes its share of the time, and no more."""

from __future__ import annotations

import pytest

from holdfast.gateway.time_budget import TimeBudget


@pytest.mark.parametrize("slice_s", [0.0005, 0.001, 0.2])
def test_steady_work_takes_its_share(slice_s: float) -> None:
    budget, now_s, used_s = TimeBudget(0.1, 0.05, 0.0), 0.0, 0.0
    while now_s < 100.0:
        now_s += budget.wait_s(now_s) + slice_s
        used_s += slice_s
        budget.spend(slice_s, now_s)
    assert used_s == pytest.approx(10.0, abs=0.05 + 2 * slice_s)


def test_what_was_not_used_is_kept_up_to_a_bound() -> None:
    budget = TimeBudget(0.1, 0.05, 0.0)
    budget.spend(0.0, 1000.0)
    assert budget.wait_s(1000.0) == 0.0
    budget.spend(0.05, 1000.0)
    assert budget.wait_s(1000.0) == pytest.approx(0.0)
    budget.spend(0.01, 1000.0)
    assert budget.wait_s(1000.0) == pytest.approx(0.1)
    assert budget.wait_s(1000.1) == pytest.approx(0.0)
