"""`holdfast traces study`: its output and files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from holdfast.cli.main import cli, main
from holdfast.errors import TraceError

pytest.importorskip("matplotlib")


def call(t: float, num_blocks: int, stop: str = "tool_use") -> dict[str, Any]:
    return {
        "t": t,
        "type": "s",
        "in": 64 * num_blocks + 10,
        "out": 5,
        "hash_ids": list(range(num_blocks)),
        "stop": stop,
        "api_time": 2.0,
        "think_time": 90.0,
    }


def write(path: Path, name: str) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    requests = [call(0, 4), call(92, 6, "end_turn"), call(184, 7)]
    document = {"id": name, "block_size": 64, "hash_id_scope": "local", "requests": requests}
    (path / f"{name}.json").write_text(json.dumps(document))
    return path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["traces", "study", *arguments])


def test_study_prints_findings_and_writes_page_and_json(tmp_path: Path) -> None:
    traces = write(tmp_path / "private", "one")
    write(traces, "two")
    html, numbers = tmp_path / "out" / "study.html", tmp_path / "out" / "study.json"
    result = run(str(traces), "--html", str(html), "--json", str(numbers), "--concurrency", "1,2,3")
    assert result.exit_code == 0, result.output
    assert "How large the cache must be: With 2 sessions at once" in result.stdout
    assert "too few sessions for 3 at once" in result.stderr
    assert "How large the cache must be" in html.read_text()
    study = json.loads(numbers.read_text())
    assert study["schema"] == "holdfast.study/1"
    assert [load["concurrency"] for load in study["loads"]] == [1, 2]
    assert sorted(study["manifest"]["digests"]) == ["one.json", "two.json"]
    assert str(tmp_path) not in numbers.read_text()


def test_paths_are_studied_together_and_never_share_blocks(tmp_path: Path) -> None:
    first, second = write(tmp_path / "a", "one"), write(tmp_path / "b", "one")
    numbers = tmp_path / "study.json"
    assert run(str(first), str(second), "--json", str(numbers)).exit_code == 0
    study = json.loads(numbers.read_text())
    assert study["shape"]["num_sessions"] == 2
    assert study["prefixes"]["foreign_tokens"] == 0
    assert study["prefixes"]["own_tokens"] == 2 * (4 + 6) * 64


def test_gaps_can_be_cut_and_blocks_sampled(tmp_path: Path) -> None:
    traces, numbers = write(tmp_path / "a", "one"), tmp_path / "study.json"
    arguments = ["--gap-cap-s", "1", "--sample-rate", "0.5", "--concurrency", "1"]
    assert run(str(traces), "--json", str(numbers), *arguments).exit_code == 0
    study = json.loads(numbers.read_text())
    assert (study["gap_cap_s"], study["sample_rate"]) == (1.0, 0.5)
    assert study["loads"][0]["makespan_s"] < 10
    assert study["loads"][0]["cache"]["error"] is not None


def test_trace_with_too_many_blocks_is_sampled(tmp_path: Path) -> None:
    path, numbers = tmp_path / "a.jsonl", tmp_path / "study.json"
    with path.open("w") as file:
        for n in range(20):
            blocks = list(range(100 * n, 100 * n + 100))
            row = {"timestamp": n, "input_length": 51200, "output_length": 1, "hash_ids": blocks}
            file.write(json.dumps(row) + "\n")
    arguments = [str(path), "--json", str(numbers), "--concurrency", "2"]
    assert run(*arguments, "--max-blocks", "1000").exit_code == 0
    assert json.loads(numbers.read_text())["sample_rate"] <= 0.5
    assert run(*arguments).exit_code == 0
    assert json.loads(numbers.read_text())["sample_rate"] == 1.0


def test_arrivals_that_were_not_recorded_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["traces", "study", str(write(tmp_path / "a", "one")), "--open-loop"])
    assert caught.value.code == 2
    assert "error: a session has no recorded arrival" in capsys.readouterr().err


def test_lenient_leaves_out_and_counts_faulty_parts(tmp_path: Path) -> None:
    traces, numbers = write(tmp_path / "a", "one"), tmp_path / "study.json"
    (traces / "two.json").write_text("{]")
    assert isinstance(run(str(traces)).exception, TraceError)
    result = run(str(traces), "--lenient", "--json", str(numbers))
    assert result.exit_code == 0, result.output
    assert "1 parts were left out" in result.stderr
    study = json.loads(numbers.read_text())
    assert study["manifest"]["num_skipped"] == 1
    assert study["shape"]["num_sessions"] == 1
