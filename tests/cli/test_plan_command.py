"""`holdfast plan`: its sentence, table and JSON; simulated runs are made up."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

import msgspec
import pytest
from click.testing import CliRunner, Result

import holdfast.vllm.versions as engine
from holdfast.cli.main import cli
from holdfast.core.results import RunResult
from holdfast.core.run_summary import summarize_run
from holdfast.errors import ConfigError
from holdfast.sim.plan import RunPlan
from holdfast.traces.record import Session

KV_TOKENS = 300_000
PLANNED: list[RunPlan] = []


@pytest.fixture(scope="module")
def traces(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("traces") / "sessions.jsonl"
    arguments = ["traces", "generate", "--like", "claude-code", "--sessions", "12"]
    result = CliRunner().invoke(cli, [*arguments, "--output", str(path)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return str(path)


def made_up(plan: RunPlan, sessions: list[Session], router_of: object = None) -> RunResult:
    """Stock engines lose their hits past six sessions, Holdfast's past fifteen."""
    PLANNED.append(plan)
    load = plan.options.concurrency or 0
    is_past = load > (6 if plan.policy == "vllm-default" else 15)
    result = summarize_run(
        [], [], policy=plan.policy, seed=plan.seed, concurrency=load, makespan_s=1.0, partial=False
    )
    hits = {"token_hit_ratio": 0.1 if is_past else 0.9, "recomputed_tokens": 800 if is_past else 0}
    return msgspec.structs.replace(result, prompt_tokens=1000, **hits)


def plan(traces: str, *arguments: str) -> Result:
    usual = ["plan", traces, "--kv-tokens", str(KV_TOKENS), *arguments]
    result = CliRunner().invoke(cli, usual, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result


def test_the_sentence_comes_first_then_one_table(traces: str) -> None:
    text = plan(traces, "--developers", "40", "--host-gib", "80").output
    first = text.split("\n\n")[0].replace("\n", " ")
    assert "of these sessions fit h100-llama3.1-8b with 300,000 KV tokens at once" in first
    assert "40 developers need" in first and "make its hit ratio collapse" in first
    assert "stock vLLM, host" in text and "Rule of thumb" in text and "--simulate" in text
    assert "12 sessions are few" in " ".join(text.split())


def test_json_has_the_figures_and_the_manifest(traces: str) -> None:
    found = json.loads(plan(traces, "--json", "--host-gib", "80", "--developers", "40").stdout)
    stock, tier = found["capacities"]
    assert found["schema"] == "holdfast.plan/1" and found["kv_tokens"] == KV_TOKENS
    assert found["host_tokens"] == 80 * 2**30 // 131_072
    assert stock["method"] == "estimate" and stock["fits"]["median"] <= stock["cliff"]["median"]
    assert tier["cliff"]["median"] > stock["cliff"]["median"]
    assert tier["engines"] < stock["engines"]
    low, high = found["rule"]
    assert low == pytest.approx(0.75 * KV_TOKENS / found["mean_prompt_tokens"])
    assert high / low == pytest.approx(0.87 / 0.75)
    assert found["manifest"]["digests"] and found["manifest"]["arguments"]["gap_cap_s"] == 300


def test_simulated_runs_check_the_estimate(traces: str, monkeypatch: pytest.MonkeyPatch) -> None:
    PLANNED.clear()
    fake = ModuleType("holdfast.vllm.simulator.run")
    fake.__dict__["simulate"] = made_up
    monkeypatch.setitem(sys.modules, "holdfast.vllm.simulator.run", fake)
    monkeypatch.setattr(engine, "engine_version", lambda: "0.32.0")
    found = json.loads(plan(traces, "--simulate", "--seeds", "2", "--json").stdout)
    rows = [(one["setup"], one["method"]) for one in found["capacities"]]
    assert rows == [
        ("stock vLLM", "estimate"),
        ("stock vLLM", "simulated"),
        ("Holdfast", "simulated"),
    ]
    stock, ours = found["capacities"][1:]
    assert 6 <= stock["cliff"]["median"] <= 7 and 6 <= stock["fits"]["median"] <= 7
    assert ours["cliff"] is None or ours["cliff"]["median"] >= 15
    assert found["manifest"]["seeds"] == [0, 1]
    assert {p.kv_tokens for p in PLANNED} == {KV_TOKENS}
    assert "About 6 of these sessions fit" in found["sentence"]  # simulated runs count most


def test_a_cache_without_space_for_two_sessions_is_an_error(traces: str) -> None:
    result = CliRunner().invoke(cli, ["plan", traces, "--kv-tokens", "100"])
    assert isinstance(result.exception, ConfigError)
    assert "0 sessions fit 100 KV tokens" in str(result.exception)


def test_a_profile_beyond_its_range_is_warned_of(traces: str) -> None:
    profile = ("--profile", "2xh100-qwen3-coder-30b-fp8", "--kv-tokens", "30000000")
    text = " ".join(plan(traces, *profile).output.split())
    assert "beyond what the profile was fitted to" in text


def test_missing_traces_are_named(tmp_path: Path) -> None:
    result = CliRunner().invoke(cli, ["plan", str(tmp_path / "none")])
    assert "none" in str(result.exception) + result.output and result.exit_code != 0
