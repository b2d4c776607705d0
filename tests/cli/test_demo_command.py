"""`holdfast demo`: its tables and files; nothing is measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

import holdfast.vllm.versions as engine
from holdfast.bench.demo import POLICY_PAIR, TIERED, Demo
from holdfast.cli.main import cli
from holdfast.core.results import Counters, RunResult
from holdfast.core.run_summary import summarize_run
from holdfast.errors import EngineError


@pytest.fixture(autouse=True)
def _no_engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(engine, "engine_version", lambda: "0.32.0")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


def _measure(demo: Demo) -> None:
    demo.directory.joinpath("holdfast-0.log").write_text("log")
    for point in demo.plan.points:
        for policy in POLICY_PAIR:
            demo.runs.append(
                summarize_run(
                    [],
                    [],
                    policy=policy,
                    seed=demo.plan.seeds[0],
                    concurrency=point.concurrency,
                    makespan_s=4.0 if policy == "vllm-default" else 2.0,
                    partial=False,
                )
            )


def test_one_table_and_the_json_of_both_points(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(Demo, "run", _measure)
    path = tmp_path / "run.json"
    result = CliRunner().invoke(cli, ["demo", "--concurrency", "3", "9", "--json", str(path)])
    assert result.exit_code == 0, result.output
    assert result.stdout.count("2.00x") == 2
    document = json.loads(path.read_text())
    assert [run["concurrency"] for run in document["runs"]] == [3, 3, 9, 9]
    assert document["manifest"]["arguments"]["concurrency"] == [3, 9]


def _result(policy: str, concurrency: int, counters: Counters | None = None) -> RunResult:
    return summarize_run(
        [],
        [],
        policy=policy,
        seed=0,
        concurrency=concurrency,
        makespan_s=1.0,
        partial=False,
        counters=counters,
    )


def test_tiers_and_restart_have_tables_and_json(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def measure(demo: Demo) -> None:
        _measure(demo)
        demo.runs.append(_result(TIERED, 9, Counters(host_tokens=777_111)))
        demo.restarted.append(_result("holdfast", 9))
        demo.restarted.append(_result(TIERED, 9, Counters(disk_tokens=888_222)))

    monkeypatch.setattr(Demo, "run", measure)
    path = tmp_path / "run.json"
    result = CliRunner().invoke(cli, ["demo", "--concurrency", "3", "9", "--json", str(path)])
    assert result.exit_code == 0, result.output
    assert result.stdout.count("holdfast-tiers against holdfast") == 2
    assert result.stdout.index("777,111") < result.stdout.index("888,222")
    document = json.loads(path.read_text())
    assert [run["policy"] for run in document["restarted"]] == ["holdfast", TIERED]
    assert document["restarted"][1]["disk_tokens"] == 888_222


def test_json_without_tiers_has_no_restart(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(Demo, "run", _measure)
    path = tmp_path / "run.json"
    result = CliRunner().invoke(cli, ["demo", "--no-tiers", "--json", str(path)])
    assert "holdfast-tiers" not in result.stdout
    assert "restarted" not in json.loads(path.read_text())


def test_reason_for_no_tiers_is_printed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def measure(demo: Demo) -> None:
        demo.watcher.tiers_left_out("host_gib needs vLLM 0.32")
        _measure(demo)

    monkeypatch.setattr(Demo, "run", measure)
    result = CliRunner().invoke(cli, ["demo"])
    assert "without tiers: host_gib needs vLLM 0.32" in result.output


def test_manifest_has_no_directories(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(Demo, "run", _measure)
    path = tmp_path / "run.json"
    CliRunner().invoke(cli, ["demo", "--traces", str(tmp_path), "--json", str(path)])
    assert str(tmp_path) not in path.read_text()


def test_interruption_keeps_the_finished_runs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def interrupted(demo: Demo) -> None:
        _measure(demo)
        raise KeyboardInterrupt

    monkeypatch.setattr(Demo, "run", interrupted)
    path = tmp_path / "run.json"
    result = CliRunner().invoke(cli, ["demo", "--json", str(path)])
    assert result.exit_code == 130
    assert len(json.loads(path.read_text())["runs"]) == 4


def test_logs_are_kept_when_a_server_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def failing(demo: Demo) -> None:
        _measure(demo)
        raise EngineError("died")

    monkeypatch.setattr(Demo, "run", failing)
    result = CliRunner().invoke(cli, ["demo"])
    assert isinstance(result.exception, EngineError)
    assert len(list(tmp_path.glob("holdfast-demo-*/holdfast-0.log"))) == 1


def test_logs_are_removed_otherwise(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(Demo, "run", _measure)
    CliRunner().invoke(cli, ["demo"])
    assert list(tmp_path.glob("holdfast-demo-*")) == []


def test_cache_smaller_than_one_session_is_refused() -> None:
    result = CliRunner().invoke(cli, ["demo", "--kv-tokens", "100"])
    assert "expected at least max-model-len" in str(result.exception)


def test_missing_extra_is_refused_before_measuring(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("holdfast.report.page.find_spec", lambda _name: None)
    monkeypatch.setattr(Demo, "run", lambda _demo: pytest.fail("measured"))
    result = CliRunner().invoke(cli, ["demo", "--html", str(tmp_path / "page.html")])
    assert "needs jinja2 and matplotlib" in str(result.exception)
