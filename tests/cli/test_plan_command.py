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
from holdfast.bearer_token import TOKEN_VARIABLE
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


def test_the_page_has_sentence_table_and_curves(traces: str, tmp_path: Path) -> None:
    path = tmp_path / "plan.html"
    sentence = plan(traces, "--host-gib", "80", "--html", str(path)).output.split("\n\n")[0]
    page = path.read_text()
    assert " ".join(sentence.split()) in page
    assert page.count("<table>") == 1 and page.count("<svg") == 1
    assert "stock vLLM, host tier, estimate" in page and "Rule of thumb" in page
    assert "http://" not in page.replace("http://www.w3.org", "")  # loads nothing


@pytest.fixture(scope="module")
def study(traces: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("study") / "study.json"
    arguments = ["traces", "study", traces, "--concurrency", "1", "--json", str(path)]
    result = CliRunner().invoke(cli, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return str(path)


def test_a_study_gives_the_plan_of_its_traces(traces: str, study: str) -> None:
    options = ("--json", "--host-gib", "80", "--developers", "40", "--gap-cap-s", "20")
    whole, found = (json.loads(plan(one, *options).stdout) for one in (traces, study))
    assert (whole["source"], found["source"]) == ("traces", "study")
    assert found["num_sessions"] == whole["num_sessions"] == 12
    assert found["mean_prompt_tokens"] == pytest.approx(whole["mean_prompt_tokens"], rel=0.02)
    for ours, theirs in zip(found["capacities"], whole["capacities"], strict=True):
        assert ours["cliff"]["median"] == pytest.approx(theirs["cliff"]["median"], rel=0.05)
    assert found["manifest"]["digests"].keys() == {"study.json"}


def test_prefixes_that_sessions_share_are_warned_of(study: str, tmp_path: Path) -> None:
    content = json.loads(Path(study).read_text())
    assert "others have too" not in plan(study).output
    content["turns"]["shared_head_tokens"] = 20_000
    path = tmp_path / "shared.json"
    path.write_text(json.dumps(content))
    text = " ".join(plan(str(path)).output.split())
    assert "begin with 20,000 tokens that others have too" in text and "a little low" in text


def test_a_study_is_simulated_by_sessions_like_its_own(
    study: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = ModuleType("holdfast.vllm.simulator.run")
    fake.__dict__["simulate"] = made_up
    monkeypatch.setitem(sys.modules, "holdfast.vllm.simulator.run", fake)
    monkeypatch.setattr(engine, "engine_version", lambda: "0.32.0")
    found = json.loads(plan(study, "--simulate", "--seeds", "1", "--json").stdout)
    assert [one["method"] for one in found["capacities"]] == ["estimate", "simulated", "simulated"]
    assert found["capacities"][1]["curve"]
    assert any("generated from the study" in one for one in found["warnings"])


def test_what_an_older_study_lacks_is_named(study: str, tmp_path: Path) -> None:
    older = json.loads(Path(study).read_text())
    del older["turns"]
    path = tmp_path / "older.json"
    path.write_text(json.dumps(older))
    result = CliRunner().invoke(cli, ["plan", str(path)])
    assert isinstance(result.exception, ConfigError)
    assert "older.json: the study has no `turns`" in str(result.exception)


@pytest.mark.parametrize("damage", ["12 x 3", "12 13"])
def test_a_damaged_study_is_named(study: str, tmp_path: Path, damage: str) -> None:
    content = json.loads(Path(study).read_text())
    content["turns"]["gap_ms"] = damage
    path = tmp_path / "damaged.json"
    path.write_text(json.dumps(content))
    result = CliRunner().invoke(cli, ["plan", str(path)])
    assert isinstance(result.exception, ConfigError) and "damaged.json" in str(result.exception)


@pytest.mark.parametrize("first", ["http://127.0.0.1:1", None])
def test_kinds_of_input_are_not_mixed(study: str, traces: str, first: str | None) -> None:
    result = CliRunner().invoke(cli, ["plan", first or study, traces])
    assert isinstance(result.exception, ConfigError) and "stands alone" in str(result.exception)


def test_an_engine_without_a_token_says_what_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    result = CliRunner().invoke(cli, ["plan", "http://127.0.0.1:1"])
    assert isinstance(result.exception, ConfigError)
    assert "--holdfast-token-file" in str(result.exception.hint)


def test_missing_traces_are_named(tmp_path: Path) -> None:
    result = CliRunner().invoke(cli, ["plan", str(tmp_path / "none")])
    assert "none" in str(result.exception) + result.output and result.exit_code != 0
