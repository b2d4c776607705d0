"""Summaries of outcomes, worked by hand."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import pytest

from holdfast.compress.outcome import FULL, Outcome
from holdfast.compress.summary import certified, sentence, summaries
from holdfast.compress.table import HEADINGS, markdown, rows


@dataclass
class Answer:
    """A question's answer by the full cache and by a compacted one."""

    seed: int
    full_nll: float
    nll: float
    is_right: bool
    is_kept: bool


def _outcomes(answers: list[Answer], method: str = "snapkv", share: float = 0.4) -> list[Outcome]:
    found = []
    for number, answer in enumerate(answers):
        at = ("single", answer.seed, 0, number)
        full = Outcome(*at, FULL, 1.0, answer.full_nll, answer.is_right, 1.0, 1.0)
        found += [
            full,
            Outcome(*at, method, share, answer.nll, answer.is_kept, 0.5 + number / 10, number / 10),
        ]
    return found


ANSWERS = [
    Answer(0, 0.1, 0.3, is_right=True, is_kept=True),
    Answer(0, 0.2, 2.2, is_right=True, is_kept=False),
    Answer(1, 0.3, 0.3, is_right=False, is_kept=False),
    Answer(2, 0.4, 1.2, is_right=False, is_kept=True),
]


def test_summary_compares_the_same_questions() -> None:
    full, compacted = summaries(_outcomes(ANSWERS))
    assert (full.method, full.exact_percent, full.exact_loss_points) == (FULL, 50.0, 0.0)
    assert (compacted.num_contexts, compacted.num_questions) == (3, 4)
    assert compacted.exact_percent == 50.0
    assert compacted.exact_loss_points == 0.0  # one lost, one won
    assert compacted.nll == pytest.approx(1.0)
    assert compacted.nll_excess == pytest.approx(0.75)
    assert compacted.nll_worst == 2.2
    assert compacted.retained_mean == pytest.approx(0.65)
    assert compacted.retained_min == 0.0


def test_interval_is_over_contexts_not_questions() -> None:
    """Means of resampled contexts; both questions of a context come together."""
    _, compacted = summaries(_outcomes(ANSWERS))
    assert (compacted.exact_loss_low, compacted.exact_loss_high) == (-100.0, 50.0)
    assert 0 <= compacted.nll_excess_low < compacted.nll_excess < compacted.nll_excess_high <= 1.1


def test_equal_outcomes_have_no_interval() -> None:
    _, same = summaries(_outcomes([Answer(s, 0.1, 0.3, True, True) for s in range(4)]))
    assert same.nll_excess_low == pytest.approx(0.2)
    assert same.nll_excess_high == pytest.approx(0.2)


def test_lost_answers_of_the_full_cache_count_by_context() -> None:
    lossless = [Answer(seed, 0.1, 0.3, is_right=True, is_kept=True) for seed in range(29)]
    wrong_anyway = [Answer(29, 0.1, 3.0, is_right=False, is_kept=False)]
    assert certified(_outcomes(lossless + wrong_anyway)) == {"snapkv": 0.4}
    lost = [Answer(30, 0.1, 3.0, is_right=True, is_kept=False)] * 2
    assert certified(_outcomes(lossless + lost)) == {"snapkv": None}


def test_sentence_names_the_best_method_and_its_loss() -> None:
    outcomes = _outcomes(ANSWERS) + [
        outcome
        for outcome in _outcomes([Answer(0, 0.1, 0.2, True, True)] * 2, "knorm")
        if outcome.method != FULL
    ]
    text = sentence(summaries(outcomes), 0.4)
    assert text.startswith("At 40 % of the cache you lose 0 points of exact answers (50 % → 100 %")
    assert text.endswith("with knorm, the best of 2 methods.")


def test_table_is_ordered_by_share_and_loss() -> None:
    found = summaries(_outcomes(ANSWERS))
    found.append(msgspec.structs.replace(found[1], method="better", nll_excess=0.1))
    found.append(msgspec.structs.replace(found[1], method="smaller", share=0.2))
    assert [row[0] for row in rows(found)] == [FULL, "better", "snapkv", "smaller"]
    assert rows(found)[2][1:4] == ("40 %", "50 %", "0 (-100…50)")
    assert markdown(found).count("\n") == 6
    assert all(len(row) == len(HEADINGS) for row in rows(found))
