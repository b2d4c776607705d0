"""Families of files: whole, in part, in any order and damaged."""

from __future__ import annotations

import gzip
import itertools
import random
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.traces.family_samples import FAMILIES, Family
from tests.traces.text_samples import written

from holdfast.errors import TraceError
from holdfast.traces.io import FileReport, read_sessions
from holdfast.traces.record import Session
from holdfast.traces.validation import BlockChecks

FORMATS = pytest.mark.parametrize("sample", FAMILIES)


def read(
    family: Family, names: Iterable[str], reports: list[FileReport], **options: Any
) -> list[Session]:
    with tempfile.TemporaryDirectory() as directory:
        for name in names:
            (Path(directory) / name).write_bytes(written(family[name][2]))
        return list(read_sessions(Path(directory), on_file=reports.append, **options))


@FORMATS
def test_files_of_a_family_are_read_together(sample: str) -> None:
    family = FAMILIES[sample]()
    reports: list[FileReport] = []
    sessions = read(family, family, reports)
    assert sessions[0].session_id == "s"
    ids = {name: session for name, (session, _, _) in family.items()}
    parents = {session: parent and ids[parent] for session, parent, _ in family.values()}
    assert {one.session_id: one.parent_id for one in sessions} == parents
    assert all(one.parent_turn is not None for one in sessions[1:])
    assert [report.num_sessions for report in reports] == [4, 0, 0, 0]
    assert sum(report.num_orphans for report in reports) == 0
    checks = BlockChecks()
    assert [problem for one in sessions for problem in checks.problems(one)] == []


@FORMATS
def test_a_call_that_started_a_session_names_it(sample: str) -> None:
    family = FAMILIES[sample]()
    sessions = read(family, family, [])
    named = {tool.session_id for one in sessions for turn in one.turns for tool in turn.tools}
    # ATIF's samples have steps without calls.
    assert named - {None} == (
        {one.session_id for one in sessions[1:]} if sample != "ATIF" else set()
    )


@FORMATS
def test_each_file_of_any_part_of_a_family_is_read_once(sample: str) -> None:
    family = FAMILIES[sample]()
    for size in range(1, len(family) + 1):
        for names in itertools.combinations(family, size):
            reports: list[FileReport] = []
            sessions = read(family, names, reports)
            assert len(sessions) == size
            assert len({one.session_id for one in sessions}) == size
            seen: set[str | None] = {None}
            for one in sessions:
                assert one.parent_id in seen
                seen.add(one.session_id)
            assert sum(report.num_orphans for report in reports) == num_lonely(
                sample, family, names
            )


def num_lonely(sample: str, family: Family, names: tuple[str, ...]) -> int:
    """Count the files whose recorded parent is missing."""
    if sample in ("ATIF", "Gemini CLI"):
        # Their parents name the sub-agents, not the reverse.
        return 0
    if sample == "Claude Code":
        # All sub-agents name the session, not their calling agent.
        return 0 if "s.jsonl" in names else len(names)
    return sum(family[name][1] not in (None, *names) for name in names)


@FORMATS
@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 1 << 32))
def test_damaged_families_are_read_as_far_as_they_can_be(sample: str, seed: int) -> None:
    rng = random.Random(seed)
    family = FAMILIES[sample]()
    skipped: list[TraceError] = []
    with tempfile.TemporaryDirectory() as directory:
        for name, (_, _, lines) in family.items():
            data = bytearray(written(lines))
            for _ in range(rng.randrange(3)):
                at = rng.randrange(len(data))
                data[at : at + 1] = rng.choice(
                    [b"", b'"', b"{", b"\xff", b"s", b"a", b"null", b"9"]
                )
            (Path(directory) / name).write_bytes(data)
        sessions = list(
            read_sessions(
                Path(directory),
                seed=rng.randrange(9),
                on_skipped=skipped.append,
                keeps_text=rng.random() < 0.5,
            )
        )
        paths = {str(Path(directory) / name) for name in family}
    assert {error.source for error in skipped} <= paths
    for one in sessions:
        assert one.turns
        assert all(event.turn_index <= len(one.turns) for event in one.events)
    for one in sessions:
        if one.parent_id is not None:
            # A damaged name may equal another one.
            parents = [other for other in sessions if other.session_id == one.parent_id]
            num_turns = max(len(parent.turns) for parent in parents)
            assert (one.parent_turn or 0) < num_turns
            assert (one.join_turn or 0) < num_turns


@pytest.mark.parametrize("sample", ["Claude Code", "Codex"])
@pytest.mark.parametrize("damaged", range(4))
def test_lenient_reading_loses_only_the_rest_of_a_cut_file(
    tmp_path: Path, sample: str, damaged: int
) -> None:
    family = FAMILIES[sample]()
    for at, (name, (_, _, lines)) in enumerate(family.items()):
        data = gzip.compress(written(lines) + b"\n")
        (tmp_path / f"{name}.gz").write_bytes(data[:-4] if at == damaged else data)
    with pytest.raises(TraceError, match="damaged gz data"):
        list(read_sessions(tmp_path))
    skipped: list[TraceError] = []
    sessions = list(read_sessions(tmp_path, on_skipped=skipped.append))
    assert len(sessions) == 4
    assert [error.source for error in skipped] == [str(tmp_path / f"{list(family)[damaged]}.gz")]
