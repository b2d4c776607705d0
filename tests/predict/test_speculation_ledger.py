"""Early calls are made only while they pay."""

from __future__ import annotations

import pytest

from holdfast.predict.speculation_ledger import SpeculationLedger


@pytest.mark.parametrize(
    ("weight", "probability", "is_promising"),
    [
        (0.25, 0.19, False),
        (0.25, 0.2, True),
        (1.0, 0.49, False),
        (1.0, 0.5, True),
        (0.0, 0.0, True),
    ],
)
def test_a_probability_is_weighed_against_the_waste(
    weight: float, probability: float, is_promising: bool
) -> None:
    """0.2 * t saved is as much as 0.25 * 0.8 * t wasted."""
    ledger = SpeculationLedger(weight)
    ledger.observe_time("read", 1.0)
    assert ledger.is_promising("read", probability) is is_promising


def test_fast_and_unknown_tools_are_left_alone() -> None:
    ledger = SpeculationLedger(0.0)
    ledger.observe_time("fast", 0.004)
    assert not ledger.is_promising("fast", 1.0)
    assert not ledger.is_promising("unknown", 1.0)
    ledger.observe_time("fast", 0.1)
    assert ledger.is_promising("fast", 1.0)


def test_losses_disable_and_later_gains_enable_again() -> None:
    """-0.25, then 0.97 * -0.25 + 0.2 = -0.0425, then 0.97 * -0.0425 + 0.2 > 0."""
    ledger = SpeculationLedger(0.25)
    assert ledger.is_enabled
    ledger.settle(0.0, 1.0)
    assert not ledger.is_enabled
    ledger.settle(0.2, 0.0)
    assert ledger.balance_s == pytest.approx(-0.0425)
    assert not ledger.is_enabled
    ledger.settle(0.2, 0.0)
    assert ledger.is_enabled


def test_old_gains_do_not_pay_for_long() -> None:
    ledger = SpeculationLedger(1.0)
    for _ in range(1_000):
        ledger.settle(1.0, 0.0)
    num_losses = 0
    while ledger.is_enabled:
        ledger.settle(0.0, 1.0)
        num_losses += 1
    assert num_losses < 30
