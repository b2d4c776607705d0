"""Tests of the bound: no rule that ran beside it is better."""

from __future__ import annotations

from tests.report.runs import run_of, runs_of

from holdfast.report.bound_distance import best_rules


def test_a_better_rule_becomes_the_bound_of_its_seed() -> None:
    stock, bound = runs_of("vllm-default", [3.0, 5.0]), runs_of("clairvoyant", [4.0, 4.0])
    found = best_rules([*stock, *bound])
    assert [(r.policy, r.seed, r.session_llm_time_s.mean) for r in found[2:]] == [  # type: ignore[union-attr]
        ("clairvoyant", 0, 3.0),
        ("clairvoyant", 1, 4.0),
    ]
    assert found[:2] == stock


def test_in_a_window_output_decides_the_bound() -> None:
    slow, fast = (
        run_of(policy, output_tokens_per_s=rate, window_s=60.0)
        for policy, rate in (("clairvoyant", 8.0), ("thunderagent", 9.0))
    )
    assert best_rules([slow, fast])[0].output_tokens_per_s == 9.0


def test_other_loads_and_infinite_caches_are_no_bound() -> None:
    bound = run_of("clairvoyant", llm_s=4.0)
    others = [run_of("all-kept", llm_s=1.0), run_of("vllm-default", llm_s=1.0, concurrency=2)]
    assert best_rules([bound, *others])[0] == bound
