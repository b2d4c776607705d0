"""Gaps that contain a dropped duplicate call, in the commands' output."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from holdfast.cli.main import cli


@pytest.fixture
def defective(tmp_path: Path) -> Path:
    """Twelve gaps of 0.5 s after calls of 6 s, one after a call without a latency."""
    requests = []
    for number in range(14):
        request = {
            "t": 12.5 * number,
            "type": "s",
            "in": 100,
            "out": 5,
            "hash_ids": [1],
            "stop": "tool_use",
            "api_time": 6.0,
            "think_time": 6.5 if number else 0.0,
        }
        requests.append(request)
    requests[12]["api_time"] = None
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"id": "a", "block_size": 64, "requests": requests}))
    return path


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(cli, ["traces", *map(str, arguments)])
    assert result.exit_code == 0, result.output
    return result


def test_validate_counts_corrected_and_uncorrected_gaps(defective: Path) -> None:
    shown = " ".join(run("validate", defective).stdout.split())
    assert "12 gaps contained a dropped duplicate call; its time is estimated" in shown
    assert "1 gaps of the same files are left as recorded" in shown


def test_stats_counts_and_uses_corrected_gaps(defective: Path, tmp_path: Path) -> None:
    run("stats", defective, "--json", tmp_path / "s.json")
    document = json.loads((tmp_path / "s.json").read_text())
    (file,) = document["files"]
    assert file["known_gap_defect"] is True
    assert (file["num_corrected_gaps"], file["num_uncorrected_gaps"]) == (12, 1)
    assert document["gaps"]["tool"]["total_s"] == 12 * 0.5 + 6.5


def test_study_prints_and_records_corrected_gaps(defective: Path, tmp_path: Path) -> None:
    result = run("study", defective, "--concurrency", 1, "--json", tmp_path / "study.json")
    assert "12 gaps contained a dropped duplicate call" in " ".join(result.stderr.split())
    manifest = json.loads((tmp_path / "study.json").read_text())["manifest"]
    assert (manifest["num_corrected_gaps"], manifest["num_estimated_gaps"]) == (12, 0)
