"""The known gap defect: found in defective files only, and corrected."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from holdfast.traces.gaps import Gap, GapEvidence
from holdfast.traces.io import FileReport, read_sessions


def recorded_gaps(num_gaps: int, *, has_defect: bool, seed: int = 0) -> list[Gap]:
    """Recorded gaps: half under a second, each after a duplicate call of 4-9 s."""
    rng = random.Random(seed)
    gaps = []
    for _ in range(num_gaps):
        true_s = 0.0 if rng.random() < 0.5 else rng.expovariate(1 / 20)
        latency_s = rng.uniform(4, 9)
        unexplained_s = true_s + latency_s
        recorded_s = unexplained_s if has_defect else true_s
        gaps.append(Gap(recorded_s, unexplained_s, latency_s, after_tool=True))
    return gaps


def requests_with(call: Any, *gaps: tuple[float, float | None]) -> list[dict[str, Any]]:
    """Calls with these recorded gaps, each with the latency of the call before."""
    requests = [call(0.0, [1])]
    for recorded_s, latency_s in gaps:
        requests[-1]["api_time"] = latency_s
        sent_s = requests[-1]["t"] + (latency_s or 0.0) + recorded_s
        requests.append(call(sent_s, [1], think_time=recorded_s, trigger="tool_result"))
    return requests


def read_one(path: Path) -> tuple[list[float], FileReport]:
    """The gaps of a file's only session after its first turn, and the file's report."""
    reports: list[FileReport] = []
    (session,) = read_sessions(path, on_file=reports.append)
    return [turn.gap_s for turn in session.turns[1:]], reports[0]


# Enough clearly defective gaps: half a second plus the duplicate of a call of 6 s.
_DEFECTIVE = ((6.5, 6.0),) * 10


@pytest.mark.parametrize("seed", range(5))
def test_defect_found_in_gaps_with_duplicates(seed: int) -> None:
    evidence = GapEvidence.from_gaps(recorded_gaps(40, has_defect=True, seed=seed))
    assert evidence.known_gap_defect


@pytest.mark.parametrize("seed", range(5))
def test_no_defect_found_in_corrected_gaps(seed: int) -> None:
    evidence = GapEvidence.from_gaps(recorded_gaps(40, has_defect=False, seed=seed))
    assert not evidence.known_gap_defect


def test_few_gaps_are_insufficient_evidence() -> None:
    evidence = GapEvidence.from_gaps(recorded_gaps(5, has_defect=True))
    assert not evidence.is_sufficient
    assert not evidence.known_gap_defect


def test_evidence_of_small_files_adds_up() -> None:
    files = [
        GapEvidence.from_gaps(recorded_gaps(5, has_defect=True, seed=seed)) for seed in range(8)
    ]
    assert sum(files, GapEvidence()).known_gap_defect


def test_no_defect_found_in_recording_without_duplicates() -> None:
    """Its gaps also equal the whole time between calls, but half of them are short."""
    rng = random.Random(0)
    times_s = [0.3 if rng.random() < 0.5 else rng.expovariate(1 / 20) for _ in range(60)]
    evidence = GapEvidence.from_gaps(Gap(gap_s, gap_s, 5.0, after_tool=True) for gap_s in times_s)
    assert not evidence.known_gap_defect


def test_no_defect_found_for_slow_tools_after_slower_calls() -> None:
    """Gaps of 3 to 5 s equal the whole time between calls: an agent with slow tools."""
    gaps = [Gap(3.0 + n / 10, 3.0 + n / 10, 15.0, after_tool=True) for n in range(20)]
    assert not GapEvidence.from_gaps(gaps).known_gap_defect
    quicker = [Gap(gap.recorded_s, gap.unexplained_s, 5.0, after_tool=True) for gap in gaps]
    assert GapEvidence.from_gaps(quicker).known_gap_defect


def test_no_defect_found_in_file_with_duplicates() -> None:
    evidence = GapEvidence.from_gaps(recorded_gaps(40, has_defect=True), num_pairs=20)
    assert not evidence.known_gap_defect


@pytest.mark.parametrize(
    ("recorded_s", "latency_s", "corrected_s"),
    [
        pytest.param(46.5, 6.5, 40.0, id="duplicate as long as the call"),
        pytest.param(4.0, 6.0, 0.0, id="duplicate quicker than the call"),
        pytest.param(28.9, 28.9, 0.0, id="longest call that was made twice"),
        pytest.param(70.0, 29.0, 70.0, id="longer call, made once"),
        pytest.param(9.0, None, 9.0, id="unknown latency"),
    ],
)
def test_defective_gap_loses_latency_of_call_before(
    call: Any, write_trace: Any, recorded_s: Any, latency_s: Any, corrected_s: Any
) -> None:
    path = write_trace(requests_with(call, *_DEFECTIVE, (recorded_s, latency_s)))
    gaps_s, report = read_one(path)
    assert report.known_gap_defect
    assert gaps_s == [0.5] * 10 + [corrected_s]
    assert report.num_corrected_gaps == 10 + (corrected_s != recorded_s)
    assert report.num_uncorrected_gaps == (latency_s is None)


def test_gap_with_time_for_a_duplicate_not_shortened(call: Any, write_trace: Any) -> None:
    requests = requests_with(call, *_DEFECTIVE, (26.0, 6.0))
    requests[-1]["think_time"] = 20.0
    gaps_s, report = read_one(write_trace(requests))
    assert report.known_gap_defect
    assert gaps_s[-1] == 20.0


def test_gaps_of_files_without_defect_unchanged(call: Any, write_trace: Any) -> None:
    requests = requests_with(
        call, *((gap.recorded_s, 2.0) for gap in recorded_gaps(40, has_defect=False))
    )
    paired = requests_with(call, *_DEFECTIVE)
    paired.insert(1, {**paired[0], "type": "n", "t": 6.0})
    for name, recorded in (("honest.json", requests), ("paired.json", paired)):
        gaps_s, report = read_one(write_trace(recorded, name))
        assert not report.known_gap_defect
        assert report.num_corrected_gaps == report.num_uncorrected_gaps == 0
        turns = [request for request in recorded if request["type"] == "s"]
        assert gaps_s == [request["think_time"] for request in turns[1:]]


def test_sessions_of_one_file_corrected_together(call: Any, write_lines: Any) -> None:
    """Five gaps alone are insufficient evidence."""
    requests = requests_with(call, *_DEFECTIVE[:5])
    session = {"block_size": 64, "hash_id_scope": "global", "requests": requests}
    path = write_lines("a.jsonl", {"id": "a", **session}, {"id": "b", **session})
    reports: list[FileReport] = []
    sessions = list(read_sessions(path, on_file=reports.append))
    assert [[turn.gap_s for turn in one.turns] for one in sessions] == [[0.0] + [0.5] * 5] * 2
    assert reports[0].num_corrected_gaps == 10


@pytest.mark.parametrize("seed", range(3))
def test_correction_restores_true_gaps(call: Any, write_trace: Any, seed: int) -> None:
    """Duplicates take as long as the calls they repeat, within a fifth."""
    rng = random.Random(seed)
    true_s = [0.0 if rng.random() < 0.5 else rng.expovariate(1 / 20) for _ in range(60)]
    latencies_s = [rng.uniform(4, 9) for _ in true_s]
    recorded = [
        (gap_s + latency_s * rng.uniform(0.8, 1.2), latency_s)
        for gap_s, latency_s in zip(true_s, latencies_s, strict=True)
    ]
    gaps_s, report = read_one(write_trace(requests_with(call, *recorded)))
    assert report.known_gap_defect
    errors_s = [abs(gap_s - true) for gap_s, true in zip(gaps_s, true_s, strict=True)]
    assert max(errors_s) < 0.2 * 9
    assert sum(gaps_s) == pytest.approx(sum(true_s), rel=0.1)


def test_evidence_text_has_its_counts() -> None:
    evidence = GapEvidence(20, 19, 18, 1, 12, 17, 16)
    assert str(evidence).startswith("19 of 20 gaps")
    assert "1 of 18 tool gaps are under 1 s, 12 are 3-12 s" in str(evidence)
    assert "16 of 17 have time for a second call" in str(evidence)
