"""Decode growth of running requests against a plain sum."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

import pytest

pytest.importorskip("vllm")

from holdfast.vllm.decode_growth import DecodeGrowth

pytestmark = pytest.mark.engine


@dataclass(eq=False)
class Running:
    request_id: str
    remaining: int


def _growth() -> DecodeGrowth:
    return DecodeGrowth(lambda request: request.remaining)


def test_few_requests_all_updated_each_time() -> None:
    growth = _growth()
    running = [Running(str(i), remaining=10) for i in range(64)]
    assert growth.update(running) == 640
    for request in running:
        request.remaining = 3
    assert growth.update(running) == 64 * 3


def test_new_request_counts_before_its_update() -> None:
    growth = _growth()
    running = [Running(str(i), remaining=1) for i in range(200)]
    growth.update(running)
    growth.expect("199", 50)  # beyond the first 64
    assert growth.update(running[:-1]) == 128 + 50


def test_ended_or_preempted_request_does_not_count() -> None:
    growth = _growth()
    running = [Running(str(i), remaining=7) for i in range(3)]
    growth.update(running)
    growth.forget("1")
    growth.forget("1")
    del running[1]
    assert growth.update(running) == 14
    growth.clear()
    assert growth.update([]) == 0


@pytest.mark.parametrize("seed", range(5))
def test_sum_never_too_low_and_soon_exact_with_many(seed: int) -> None:
    rng = Random(seed)
    growth = _growth()
    running: list[Running] = []
    for number in range(400):
        request = Running(str(number), rng.randrange(1, 40))
        growth.expect(request.request_id, request.remaining)
        running.append(request)
        if rng.random() < 0.3:
            growth.forget(running.pop(rng.randrange(len(running))).request_id)
        for request in rng.sample(running, len(running) // 3):
            request.remaining = max(request.remaining - 1, 0)
        assert growth.update(running) >= sum(r.remaining for r in running)
    for _ in range(-(-len(running) // 64)):
        updated = growth.update(running)
    assert updated == sum(r.remaining for r in running)


def test_released_blocks_serve_the_other_requests() -> None:
    growth = _growth()
    running = [Running("a", 2), Running("b", 5), Running("c", 9)]
    assert growth.update(running) == 16
    growth.releases("a", 10)
    # When `a` ends all have grown by 2; its blocks then suffice for the others.
    assert growth.update(running) == 6
    growth.forget("a")
    assert growth.update(running[1:]) == 14


def test_late_releases_do_not_lower_the_peak() -> None:
    growth = _growth()
    running = [Running("a", 2), Running("b", 5), Running("c", 9)]
    growth.releases("c", 100)
    assert growth.update(running) == 16
