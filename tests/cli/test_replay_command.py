"""`holdfast replay`: its files and exit status; nothing is sent."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from rich.console import Console

from holdfast.bench.load import LoadRecords
from holdfast.bench.replay import Replay
from holdfast.cli.load_warnings import warn_of_lighter_load
from holdfast.cli.main import cli
from holdfast.core.results import SessionRecord, TurnRecord
from holdfast.core.run_summary import summarize_run
from holdfast.sim.calibration import read_turns


def turn(error_kind: Any = None) -> TurnRecord:
    return TurnRecord("s", 0, 0.0, 1.0, 2.0, 10, 10, 10, 3, 0, error_kind, error_kind)


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> list[TurnRecord]:
    """The turns that the endpoint appears to have answered."""
    turns: list[TurnRecord] = []

    async def made_up(*_: Any, **__: Any) -> Replay:
        records = LoadRecords(turns=list(turns))
        result = summarize_run(
            turns, [], policy="mine", seed=0, concurrency=1, makespan_s=2.0, partial=False
        )
        return Replay(result, records, "model")

    monkeypatch.setattr("holdfast.cli.replay.replay_sessions", made_up)
    return turns


def run(*arguments: str) -> Any:
    usual = ["replay", "--traces", "synthetic", "--sessions", "1", "--url", "http://x"]
    return CliRunner().invoke(cli, [*usual, *arguments])


def test_status_is_1_when_no_turn_was_answered(answers: list[TurnRecord]) -> None:
    answers.append(turn("disconnected"))
    assert run().exit_code == 1


def test_some_failed_turns_are_printed_with_status_0(answers: list[TurnRecord]) -> None:
    answers += [turn(), turn("disconnected")]
    result = run()
    assert result.exit_code == 0
    assert "1 turns failed (disconnected)" in result.output


def test_records_replace_old_file_and_fit_calibration(
    answers: list[TurnRecord], tmp_path: Path
) -> None:
    path = tmp_path / "turns.jsonl"
    path.write_text("old\n")
    answers += [turn(), turn()]
    assert run("--records", str(path)).exit_code == 0
    assert [json.loads(line)["policy"] for line in path.read_text().splitlines()] == ["mine"] * 2
    assert len(read_turns(path)) == 2


@pytest.mark.parametrize(
    ("sessions", "warning"),
    [
        ([(0.0, 9.0), (0.0, 9.0)], ""),
        ([(0.0, 4.0), (4.0, 8.0)], "at most 1 of 2 sessions were live at once, 0.8 on average"),
        ([(0.0, 9.0), (0.0, 2.0)], "all 2 sessions were live for 2.0 of 10.0 s, 1.1 on average"),
    ],
)
def test_lighter_load_than_requested_is_warned_of(
    sessions: list[tuple[float, float]], warning: str
) -> None:
    records = [SessionRecord(str(i), *span, True) for i, span in enumerate(sessions)]
    result = summarize_run(
        [], records, policy="mine", seed=0, concurrency=2, makespan_s=10.0, partial=False
    )
    written = io.StringIO()
    warn_of_lighter_load(result, Console(file=written, width=200))
    assert warning in written.getvalue()
    assert bool(written.getvalue()) == bool(warning)
