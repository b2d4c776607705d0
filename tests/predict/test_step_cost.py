"""Time of computing, learned from steps."""

from __future__ import annotations

import random

import pytest

from holdfast.predict.step_cost import StepCostModel, StepWork

STEP_S, TOKEN_S, PAIR_S, DECODE_S = 6e-3, 2.5e-5, 1e-9, 4e-4


def seconds_of(work: StepWork) -> float:
    return (
        STEP_S * work.num_steps
        + TOKEN_S * work.prefill_tokens
        + PAIR_S * work.attended_pairs
        + DECODE_S * work.num_decodes
    )


def some_steps(num_steps: int, seed: int = 0) -> list[StepWork]:
    rng = random.Random(seed)
    steps = []
    for _ in range(num_steps):
        tokens = rng.choice([0, 0, rng.randint(1, 8192)])
        context = rng.randint(0, 100_000)
        steps.append(StepWork(1, tokens, tokens * (context + tokens / 2), rng.randint(0, 20)))
    return steps


def test_prompt_cost_is_separated_from_concurrent_work() -> None:
    model = StepCostModel()
    for work in some_steps(2000):
        model.observe(work, seconds_of(work))
    for tokens, context in ((100, 0), (4000, 0), (4000, 80_000), (60_000, 0)):
        expected_s = TOKEN_S * tokens + PAIR_S * tokens * (context + tokens / 2)
        assert model.prefill_s(tokens, context) == pytest.approx(expected_s, rel=0.05)


def test_noise_and_rare_stalls_hardly_change_the_cost() -> None:
    model, rng = StepCostModel(), random.Random(1)
    for work in some_steps(4000):
        stall = 20.0 if rng.random() < 0.01 else 1.0
        model.observe(work, seconds_of(work) * rng.uniform(0.9, 1.1) * stall)
    expected_s = TOKEN_S * 8000 + PAIR_S * 8000 * 54_000
    assert model.prefill_s(8000, 50_000) == pytest.approx(expected_s, rel=0.15)


def test_bursts_of_outputs_hardly_change_the_cost() -> None:
    model, rng = StepCostModel(), random.Random(2)
    for work in some_steps(4000):
        is_burst = rng.random() < 0.01
        model.observe(work, 1e-6 if is_burst else seconds_of(work))
    expected_s = TOKEN_S * 8000 + PAIR_S * 8000 * 54_000
    assert model.prefill_s(8000, 50_000) == pytest.approx(expected_s, rel=0.1)
    assert model.prefill_s(500) == pytest.approx(TOKEN_S * 500 + PAIR_S * 125_000, rel=0.3)


def test_cost_follows_an_engine_that_becomes_slower() -> None:
    model = StepCostModel()
    for work in some_steps(2000):
        model.observe(work, seconds_of(work))
    for work in some_steps(3000, seed=1):
        model.observe(work, 3.0 * seconds_of(work))
    assert model.prefill_s(8000) == pytest.approx(3 * (TOKEN_S * 8000 + PAIR_S * 32e6), rel=0.1)


def test_prefill_cost_is_zero_before_the_first_prompt() -> None:
    model = StepCostModel()
    for num_decodes in range(1, 40):
        model.observe(StepWork(1, 0, 0.0, num_decodes), STEP_S + DECODE_S * num_decodes)
    assert model.prefill_s(1000, 1000) == 0.0


def test_invalid_durations_are_ignored() -> None:
    model = StepCostModel()
    for seconds in (0.0, -1.0, float("inf"), float("nan")):
        for _ in range(100):
            model.observe(StepWork(1, 100, 0.0, 0), seconds)
    assert model.prefill_s(1000) == 0.0


def test_decoding_gets_the_time_that_prompts_leave() -> None:
    model = StepCostModel()
    for _ in range(400):
        prompt, decode = StepWork(1, 1000, 5e5, 0), StepWork(10, 0, 0.0, 20)
        model.observe(prompt, seconds_of(prompt))
        model.observe(decode, seconds_of(decode))
        model.turn_ended()
        model.turn_ended()
    each_s = (11 * STEP_S + 20 * DECODE_S) / 2
    assert model.decode_s == pytest.approx(each_s, rel=0.1)


def test_shared_decode_time_is_that_of_the_steps_alone() -> None:
    model = StepCostModel()
    assert model.shared_decode_s == 0.0
    model.observe(StepWork(1, 100, 5000.0, 0), seconds_of(StepWork(1, 100, 5000.0, 0)))
    for number in range(40):  # a turn ends every 20 steps
        for work in (StepWork(1, 0, 0.0, 1 + (number + index) % 9) for index in range(20)):
            model.observe(work, seconds_of(work))
        model.turn_ended()
    assert model.shared_decode_s == pytest.approx(20 * STEP_S, rel=0.1)
    assert model.decode_s > model.shared_decode_s
