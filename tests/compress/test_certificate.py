"""Certified shares against binomial tables and by simulation."""

from __future__ import annotations

import random

import pytest

from holdfast.compress.certificate import binomial_tail, certified_share


@pytest.mark.parametrize(
    ("num_lost", "num_contexts", "risk", "expected"),
    [(0, 3, 0.5, 1 / 8), (1, 3, 0.5, 4 / 8), (3, 3, 0.5, 1.0), (0, 2, 0.1, 0.81)],
)
def test_tail_is_the_binomial_one(
    num_lost: int, num_contexts: int, risk: float, expected: float
) -> None:
    assert binomial_tail(num_lost, num_contexts, risk) == pytest.approx(expected)


def test_twenty_nine_contexts_without_a_loss_are_enough() -> None:
    for num_contexts, expected in ((28, None), (29, 0.4)):
        losses = [(0.4, [False] * num_contexts)]
        assert certified_share(losses, largest_risk=0.1, error_rate=0.05) == expected


def test_first_share_that_fails_ends_the_test() -> None:
    good, bad = [False] * 40, [True] * 5 + [False] * 35
    losses = [(0.2, good), (0.6, good), (0.4, bad), (0.8, good)]
    assert certified_share(losses, largest_risk=0.1, error_rate=0.05) == 0.6
    assert certified_share([(0.8, bad), (0.2, good)], largest_risk=0.1, error_rate=0.05) is None


def test_too_risky_share_is_rarely_certified() -> None:
    choose = random.Random(0)
    wrong = sum(
        certified_share(
            [(share, [choose.random() < 0.12 for _ in range(60)]) for share in (0.4, 0.2)],
            largest_risk=0.1,
            error_rate=0.05,
        )
        is not None
        for _ in range(400)
    )
    assert wrong <= 400 * 0.05
