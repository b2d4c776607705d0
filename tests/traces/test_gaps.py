"""Detection of the known gap defect."""

from __future__ import annotations

import random
from typing import Any

import pytest

from holdfast.traces.gaps import Gap, GapEvidence
from holdfast.traces.io import FileReport, read_sessions


def recorded_gaps(num_gaps: int, *, has_defect: bool, seed: int = 0) -> list[Gap]:
    """Gaps as they are recorded: half under a second, a duplicate call of 4-9 s before each."""
    rng = random.Random(seed)
    gaps = []
    for _ in range(num_gaps):
        true_s = 0.0 if rng.random() < 0.5 else rng.expovariate(1 / 20)
        unexplained_s = true_s + rng.uniform(4, 9)
        gaps.append(Gap(unexplained_s if has_defect else true_s, unexplained_s, after_tool=True))
    return gaps


@pytest.mark.parametrize("seed", range(5))
def test_gaps_that_contain_the_duplicate_are_recognised(seed: int) -> None:
    evidence = GapEvidence.from_gaps(recorded_gaps(40, has_defect=True, seed=seed))
    assert evidence.known_gap_defect


@pytest.mark.parametrize("seed", range(5))
def test_corrected_gaps_are_not_suspected(seed: int) -> None:
    evidence = GapEvidence.from_gaps(recorded_gaps(40, has_defect=False, seed=seed))
    assert not evidence.known_gap_defect


def test_few_gaps_are_not_enough_to_tell() -> None:
    evidence = GapEvidence.from_gaps(recorded_gaps(5, has_defect=True))
    assert not evidence.is_sufficient
    assert not evidence.known_gap_defect


def test_files_too_small_to_tell_are_telling_together() -> None:
    files = [
        GapEvidence.from_gaps(recorded_gaps(5, has_defect=True, seed=seed)) for seed in range(8)
    ]
    assert sum(files, GapEvidence()).known_gap_defect


def test_an_honest_recording_without_duplicates_is_not_suspected() -> None:
    """Its gaps equal the whole time between calls too, but half of them are short."""
    rng = random.Random(0)
    times_s = [0.3 if rng.random() < 0.5 else rng.expovariate(1 / 20) for _ in range(60)]
    evidence = GapEvidence.from_gaps(Gap(gap_s, gap_s, after_tool=True) for gap_s in times_s)
    assert not evidence.known_gap_defect


def test_a_file_that_still_has_its_duplicates_is_not_suspected() -> None:
    evidence = GapEvidence.from_gaps(recorded_gaps(40, has_defect=True), num_pairs=20)
    assert not evidence.known_gap_defect


@pytest.mark.parametrize("has_defect", [True, False])
def test_the_reader_reports_the_defect_and_leaves_the_gaps_alone(
    call: Any, write_trace: Any, has_defect: Any
) -> None:
    requests = [call(0, [1])]
    for gap in recorded_gaps(40, has_defect=has_defect):
        requests.append(
            call(
                requests[-1]["t"] + 2.0 + gap.unexplained_s,
                [1],
                think_time=gap.recorded_s,
                trigger="tool_result",
            )
        )
    reports: list[FileReport] = []
    (session,) = read_sessions(write_trace(requests), on_file=reports.append)
    assert reports[0].known_gap_defect is has_defect
    assert [turn.gap_s for turn in session.turns] == [r["think_time"] for r in requests]


def test_the_evidence_in_words_carries_its_numbers() -> None:
    evidence = GapEvidence(20, 19, 18, 1, 12)
    assert str(evidence).startswith("19 of 20 gaps")
    assert "1 of 18 tool gaps are under 1 s, 12 are 3-12 s" in str(evidence)
