"""Verdicts, causes and sentences on turns that missed."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.core.miss import AVOIDABLE_REASONS, MISS_REASONS
from holdfast.core.miss_record import EvictionRecord, MissRecord
from holdfast.core.start_delay import DELAY_REASONS
from holdfast.report.explanation import explain, explain_totals
from holdfast.report.remedies import DELAYS, REMEDIES, SENTENCES


def turn(session: int, number: int, cached: int, missed: dict[str, int], **more: Any) -> MissRecord:
    prompt = cached + sum(missed.values())
    return MissRecord(
        *(float(number), session, number, prompt, cached, missed),
        session_id=f"s{session}",
        cache_tokens=1_000,
        **more,
    )


EVICTED = EvictionRecord("tool", ago_s=4.0, idle_s=2.0, expected_s=1.5, session=0, taken_by=7)


def test_every_reason_has_a_sentence_and_a_remedy() -> None:
    assert SENTENCES.keys() == REMEDIES.keys()
    assert SENTENCES.keys() >= set(MISS_REASONS)


def test_few_hits_are_not_healthy() -> None:
    records = [
        turn(0, n, 36, {"evicted": 954, "never_seen": 10}, evicted=EVICTED) for n in range(3)
    ]
    found = explain(records)
    assert found.hit_ratio == pytest.approx(0.036)
    assert found.verdict.startswith("The cache thrashes: 3.6% of prompt tokens were cached")


def test_prompts_that_only_grew_are_healthy() -> None:
    found = explain([turn(0, n, 100 * n, {"never_seen": 100}) for n in range(1, 9)])
    assert found.verdict.startswith("The cache works")
    assert (found.causes, found.thrash_index) == ([], 0.0)


def test_new_prompts_are_no_fault_of_the_cache() -> None:
    found = explain([turn(n, 1, 0, {"never_seen": 100}) for n in range(5)])
    assert found.verdict.startswith("Most prompt tokens are new")


def test_causes_name_what_changed_and_the_rule() -> None:
    known = {"mutated_at_tokens": 50, "against_turn": 1, "change": "git"}
    found = explain([turn(0, 2, 50, {"mutated": 900}, **known)])
    (cause,) = found.causes
    assert cause.reason == "mutated:git"
    assert "rule git-status (policy canonical-prompt)" in cause.remedy
    assert "the repository's state in the system prompt changed" in found.sessions[0].turns[0].why
    (unknown,) = explain([turn(0, 2, 50, {"mutated": 900}, change="later kind")]).causes
    assert unknown.reason == "mutated"


def test_sums_of_changes_are_part_of_their_reason() -> None:
    changes = {"mutated:date": (300, 3.0), "mutated:other": (100, 1.0)}
    found = explain_totals(
        1_000, {"mutated": 500, "never_seen": 50}, {"mutated": 5.0}, changes=changes
    )
    assert found.missed == {"mutated": 500, "never_seen": 50}
    causes = [(cause.reason, cause.tokens, cause.lost_s) for cause in found.causes]
    assert causes == [("mutated:date", 300, 3.0), ("mutated", 200, 2.0)]


def test_changed_prompts_are_told_from_evictions() -> None:
    records = [turn(0, n, 50, {"mutated": 900}, mutated_at_tokens=50, against_turn=n - 1)
               for n in range(2, 5)]  # fmt: skip
    found = explain(records)
    assert found.verdict.startswith("Prompts do not repeat what is cached")
    assert "differs from turn 3 from token 50 on" in found.sessions[0].turns[-1].why


def test_an_eviction_names_the_pause_and_the_taker() -> None:
    (session,) = explain([turn(0, 2, 0, {"evicted": 500}, evicted=EVICTED)]).sessions
    assert session.turns[0].why == (
        "500 tokens evicted (tool) for session 7, 4.0 s ago after 2.0 s of its pause;"
        " expected back 1.5 s on"
    )


def test_the_working_set_counts_live_sessions_once() -> None:
    turns = [(0, 1, 400), (1, 1, 500), (0, 2, 600), (1, 2, 700), (2, 1, 50)]
    found = explain([turn(s, n, tokens, {}) for s, n, tokens in turns])
    # The first session has ended when the second one's last turn ends.
    assert found.working_set_tokens == 600 + 500
    assert found.verdict.startswith("The cache works")


def test_causes_are_ranked_by_time_lost() -> None:
    records = [
        turn(0, 2, 0, {"evicted": 500}, lost_s={"evicted": 1.0}, evicted=EVICTED),
        turn(1, 2, 0, {"mutated": 400}, lost_s={"mutated": 3.0}),
    ]
    assert [cause.reason for cause in explain(records).causes] == ["mutated", "evicted:tool"]


def test_a_session_can_be_chosen_by_id_or_number() -> None:
    records = [turn(session, 1, 0, {"never_seen": 100}) for session in range(3)]
    assert explain(records, "s1").num_turns == explain(records, "2").num_turns == 1


@given(st.dictionaries(st.sampled_from(MISS_REASONS), st.integers(1, 1000)), st.integers(0, 1000))
def test_sums_are_those_of_the_turns(missed: dict[str, int], cached: int) -> None:
    found = explain([turn(0, n, cached, missed) for n in range(3)])
    assert found.prompt_tokens == found.cached_tokens + sum(found.missed.values())
    assert {cause.reason for cause in found.causes} == missed.keys() & AVOIDABLE_REASONS
    assert found.verdict.startswith(explain_totals(3 * cached, found.missed, {}).verdict)


def test_a_few_lost_tokens_are_no_thrash() -> None:
    found = explain([turn(0, n, 1_000, {"evicted": 1}) for n in range(3)])
    assert found.verdict.startswith("The cache works")


def test_an_empty_log_is_not_judged() -> None:
    assert explain([]).verdict.startswith("No turn has ended")


def test_waits_are_summed_by_what_was_waited_for() -> None:
    records = [
        turn(0, 1, 9, {}, waited_s=3.0, delayed_by="blocks"),
        turn(1, 1, 9, {}, waited_s=2.0, delayed_by="slots"),
        turn(2, 1, 9, {}, waited_s=0.5, delayed_by="blocks"),
        turn(3, 1, 9, {}, waited_s=0.1),
    ]
    waits = explain(records).waits
    assert [(one.reason, one.num_turns, one.waited_s) for one in waits] == [
        ("blocks", 2, 3.5),
        ("slots", 1, 2.0),
    ]


def test_every_reason_to_wait_has_a_remedy() -> None:
    assert DELAYS.keys() == set(DELAY_REASONS)


@given(
    st.integers(1, 249),
    st.dictionaries(st.sampled_from(MISS_REASONS), st.integers(1, 10**6), min_size=1),
)
def test_a_quarter_of_hits_is_never_called_working(per_mille: int, missed: dict[str, int]) -> None:
    cached = sum(missed.values()) * per_mille // (1000 - per_mille)
    verdict = explain([turn(0, 1, cached, missed)]).verdict
    assert not verdict.startswith("The cache works")
