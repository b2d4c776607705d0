"""What a capacity plan says."""

from __future__ import annotations

import pytest

from holdfast.core.capacity import Capacity, CapacityPlan, Span
from holdfast.report.plan_text import plan_sentence


def plan_of(fits: Span | None, cliff: Span | None) -> CapacityPlan:
    return CapacityPlan(
        sentence="",
        profile="h100",
        kv_tokens=24_448,
        host_tokens=0,
        num_developers=None,
        num_sessions=35,
        num_outgrown=0,
        mean_prompt_tokens=6_175.0,
        best_hit_ratio=0.88,
        rule=(3.0, 3.4),
        capacities=[Capacity("stock vLLM", "estimate", fits, cliff, 64, None, False, [])],
        warnings=[],
        manifest={},
        source="engine",
        observed=None,
    )


@pytest.mark.parametrize("cliff", [Span(4.54, 4.1, 4.7), Span(12.0, 11.2, 13.9)])
def test_the_sentence_has_a_cliff_inside_its_range(cliff: Span) -> None:
    said = plan_sentence(plan_of(Span(3.1, 2.9, 3.2), cliff))
    assert said.startswith("About 3 of these sessions fit h100 with 24,448 KV tokens at once")
    assert f"about {cliff.median:.1f} ({cliff.low:.1f} to {cliff.high:.1f}) make" in said


def test_the_sentence_says_that_no_load_was_too_much() -> None:
    assert plan_sentence(plan_of(None, None)).startswith("More than 64 of these sessions fit")


def test_one_session_fits_in_the_singular() -> None:
    said = plan_sentence(plan_of(Span(1.2, 1.0, 1.4), Span(2.0, 1.9, 2.1)))
    assert said.startswith("About one of these sessions fits h100")
