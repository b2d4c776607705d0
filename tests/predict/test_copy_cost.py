"""Time of loads and stores, learned from copies."""

from __future__ import annotations

import math

from holdfast.predict.copy_cost import CopyCost


def test_load_time_is_infinite_before_any_copy() -> None:
    assert CopyCost().load_s(1) == math.inf


def test_stores_stand_in_for_loads_until_the_first_load() -> None:
    cost = CopyCost()
    cost.observe_store(10, 1.0)
    assert cost.load_s(5) == 0.5
    cost.observe_load(10, 4.0)
    assert cost.load_s(5) == 2.0


def test_recent_copies_count_most() -> None:
    cost = CopyCost()
    for _ in range(500):
        cost.observe_load(1, 1.0)
    for _ in range(500):
        cost.observe_load(1, 3.0)
    assert 2.9 < cost.load_s(1) <= 3.0


def test_invalid_copies_are_ignored() -> None:
    cost = CopyCost()
    cost.observe_load(0, 1.0)
    cost.observe_load(1, -1.0)
    cost.observe_load(1, math.nan)
    assert cost.load_s(1) == math.inf


def test_stores_are_kept_apart_from_loads() -> None:
    cost = CopyCost()
    cost.observe_load(10, 4.0)
    assert cost.store_s(1) == math.inf
    cost.observe_store(10, 1.0)
    assert cost.store_s(5) == 0.5
