"""`holdfast simulate`: its plans, tables and files; the runs are made up."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import holdfast.vllm.versions as engine
from holdfast.cli.main import cli
from holdfast.core.results import Distribution, RunResult
from holdfast.core.run_summary import summarize_run
from holdfast.sim.plan import RunPlan
from holdfast.traces.record import Session

PLANNED: list[RunPlan] = []
GIVEN: dict[int, Sequence[Session]] = {}


def made_up(plan: RunPlan, sessions: Sequence[Session], router_of: object = None) -> RunResult:
    PLANNED.append(plan)
    assert GIVEN.setdefault(plan.seed, sessions) is sessions, "read again"
    result = summarize_run(
        [],
        [],
        policy=plan.policy,
        seed=plan.seed,
        concurrency=plan.options.concurrency or 0,
        makespan_s=1.0,
        partial=False,
    )
    import msgspec

    seconds = 2.0 if plan.policy == "vllm-default" else 1.0
    spread = Distribution(seconds, seconds, seconds, seconds)
    return msgspec.structs.replace(result, session_llm_time_s=spread, kv_tokens=plan.kv_tokens)


@pytest.fixture(autouse=True)
def _no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys
    from types import ModuleType

    PLANNED.clear()
    GIVEN.clear()
    fake = ModuleType("holdfast.vllm.simulator.run")
    fake.__dict__["simulate"] = made_up
    monkeypatch.setitem(sys.modules, "holdfast.vllm.simulator.run", fake)
    monkeypatch.setattr(engine, "engine_version", lambda: "0.32.0")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["simulate", "--sessions", "3", "--jobs", "1", *arguments])


def test_every_combination_runs_on_same_sessions(tmp_path: Path) -> None:
    result = run(
        *("--policies", "vllm-default,holdfast", "--concurrency", "2,4"),
        *("--kv-tokens", "200000,400000", "--seeds", "2"),
    )
    assert result.exit_code == 0, result.output
    assert len(PLANNED) == 2 * 2 * 2 * 2
    assert len({plan.workload for plan in PLANNED}) == 1
    for plan in PLANNED:
        assert GIVEN[plan.seed] == plan.workload.sessions(plan.seed).sessions
    assert {plan.workload.selection.max_model_len for plan in PLANNED} == {200_000}


def test_table_shows_the_gain(tmp_path: Path) -> None:
    result = run("--policies", "vllm-default,holdfast")
    assert result.exit_code == 0, result.output
    assert "holdfast" in result.stdout
    assert "2.00x" in result.stdout


def test_document_has_manifest_and_runs(tmp_path: Path) -> None:
    path = tmp_path / "runs.json"
    result = run("--policies", "vllm-default", "--json", str(path), "--profile", "cpu-tiny",
                 "--kv-tokens", "200000")  # fmt: skip
    assert result.exit_code == 0, result.output
    document = json.loads(path.read_text())
    assert document["schema"] == "holdfast.run/1"
    assert document["manifest"]["profile"] == "cpu-tiny"
    assert "sessions-0" in document["manifest"]["digests"]
    assert [r["policy"] for r in document["runs"]] == ["vllm-default"]


def test_settings_of_a_file_reach_every_run(tmp_path: Path) -> None:
    path = tmp_path / "holdfast.toml"
    path.write_text("[holdfast]\nmax_wait_ratio = 4\npolicy = 'saga'\n")
    result = run("--policies", "holdfast", "--holdfast-config", str(path))
    assert result.exit_code == 0, result.output
    (plan,) = PLANNED
    assert (plan.policy, plan.settings["max_wait_ratio"]) == ("holdfast", 4.0)
    assert "policy" not in plan.settings
    path.write_text("[holdfast]\nmax_wait = 4\n")
    refused = run("--policies", "holdfast", "--holdfast-config", str(path))
    assert "unknown key 'max_wait'" in refused.output + str(refused.exception)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--policies", "belady"), "unknown policy 'belady'"),
        (("--policies", "holdfast,"), "not a comma-separated list"),
        (("--concurrency", "2,x"), "'x' is not a whole number above 0"),
        (("--kv-tokens", "0"), "'0' is not a whole number above 0"),
        (("--profile", "tpu"), "tpu"),
        (("--traces", "nowhere"), "nowhere"),
        (("--block-size", "48"), "multiple"),
        (("--kv-tokens", "16"), "no session is left"),
    ],
)
def test_bad_arguments_name_the_error(arguments: tuple[str, ...], expected: str) -> None:
    result = run(*arguments)
    assert result.exit_code != 0
    assert expected in result.output + str(result.exception)
    assert not PLANNED


def test_load_with_too_few_sessions_is_warned_of() -> None:
    result = run("--policies", "vllm-default", "--concurrency", "2,16")
    assert "3 sessions cannot be 16 at once" in result.stderr
    assert "at once" not in run("--policies", "vllm-default", "--concurrency", "2").stderr
    assert "at once" not in run("--policies", "vllm-default", "--open-loop").stderr


def test_agentx_scenario_sets_what_is_not_given() -> None:
    result = run("--policies", "vllm-default", "--scenario", "agentx", "--duration", "600")
    assert result.exit_code == 0, result.output
    (plan,) = PLANNED
    options = plan.options
    assert options.window is not None
    assert (options.window.start_s, options.window.duration_s) == (0.0, 600.0)
    assert (options.is_tree, options.is_isolated, options.mid_session) == (True, True, (0.25, 0.75))
    assert (options.num_warm_up_turns, options.idle_cap_s) == (11, 10.0)
    assert plan.workload.selection.gap_cap_s == 300.0
    assert plan.workload.selection.is_tree


def test_session_ends_known_and_unknown_are_two_runs() -> None:
    result = run("--policies", "vllm-default", "--session-ends", "known,unknown")
    assert result.exit_code == 0, result.output
    assert [plan.options.session_ends for plan in PLANNED] == [True, False]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--start", "5"], "--start needs --duration"),
        (["--session-ends", "maybe"], "'maybe' is neither known nor unknown"),
        (["--mid-session", "0.5"], "'0.5' is not LOW,HIGH"),
        (["--mid-session", "0.9,0.1"], "expected two shares"),
        (["--open-loop", "--duration", "5"], "an open loop has neither a window"),
        (["--duration", "0"], "--duration"),
    ],
)
def test_impossible_windows_are_refused(arguments: list[str], message: str) -> None:
    result = run("--policies", "vllm-default", *arguments)
    assert result.exit_code != 0
    assert message in result.output + str(result.exception)
    assert not PLANNED
