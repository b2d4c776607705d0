"""A whole replay: from metrics and records to figures, and the command."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.waiting import LONGEST_S, until_async

from holdfast.bench.load import SendOptions
from holdfast.bench.replay import ReplayTarget, replay_sessions
from holdfast.bench.scrape import EngineCounters, counters_between, parse_metrics
from holdfast.cli.replay import replay
from holdfast.core.run_summary import summarize_run
from holdfast.errors import ConfigError, EndpointError
from holdfast.report.replay_report import replay_table

PAGE = """\
# TYPE vllm:prefix_cache_queries_total counter
vllm:prefix_cache_queries_total{engine="0"} 100.0
vllm:prefix_cache_queries_total{engine="1"} 20.0
# TYPE vllm:prefix_cache_hits_total counter
vllm:prefix_cache_hits_total{engine="0"} 60.0
# TYPE vllm:num_preemptions_total counter
vllm:num_preemptions_total{engine="0"} 2.0
# TYPE vllm:cache_config_info gauge
vllm:cache_config_info{block_size="32",num_gpu_blocks="100"} 1.0
# TYPE holdfast_evicted_blocks_total counter
holdfast_evicted_blocks_total{reason="tool"} 5.0
holdfast_evicted_blocks_total{reason="human"} 7.0
"""
OPTIONS = SendOptions(concurrency=2, token_scale=1 / 16)


def test_counters_are_summed_over_labels() -> None:
    counters = parse_metrics(PAGE)
    assert counters.totals["vllm:prefix_cache_queries_total"] == 120.0
    assert counters.totals["holdfast_evicted_blocks_total"] == 12.0
    assert counters.kv_tokens == 3200


def test_policy_is_detected_from_decision_time() -> None:
    metered = PAGE + "holdfast_engine_steps_total 3\nholdfast_decision_seconds_total 0\n"
    assert parse_metrics(metered).policy == "vllm-default"
    assert parse_metrics(PAGE + "holdfast_decision_seconds_total 0.3\n").policy == "holdfast"
    assert EngineCounters({}).policy == "unknown"


def test_counters_that_decreased_are_unknown() -> None:
    name = "vllm:num_preemptions_total"
    gained = counters_between(EngineCounters({name: 5.0}), EngineCounters({name: 3.0}))
    assert gained.preemptions is None


TIERS = (
    PAGE
    + """\
# TYPE vllm:prompt_tokens_cached_by_source_total counter
vllm:prompt_tokens_cached_by_source_total{engine="0",source="device"} 60.0
vllm:prompt_tokens_cached_by_source_total{engine="0",source="host"} 20.0
vllm:prompt_tokens_cached_by_source_total{engine="1",source="host"} 5.0
vllm:prompt_tokens_cached_by_source_total{engine="0",source="disk"} 7.0
"""
)


def test_loads_from_tiers_are_hits_and_counted_by_tier() -> None:
    before = EngineCounters({}, cached_by_source={"host": 2.0})
    gained = counters_between(before, parse_metrics(TIERS))
    assert gained.cache_hit_tokens == 60 + 23 + 7
    assert (gained.loaded_tokens, gained.host_tokens, gained.disk_tokens) == (30, 23, 7)


def test_hits_are_used_without_counts_by_source() -> None:
    gained = counters_between(EngineCounters({}), parse_metrics(PAGE))
    assert gained.cache_hit_tokens == 60
    assert (gained.loaded_tokens, gained.host_tokens, gained.disk_tokens) == (None, None, None)


def test_sources_that_decreased_are_not_used() -> None:
    before = EngineCounters({}, cached_by_source={"host": 200.0})
    gained = counters_between(before, parse_metrics(TIERS))
    assert (gained.cache_hit_tokens, gained.host_tokens) == (60, None)


def test_counters_unknown_without_metrics_page() -> None:
    assert counters_between(None, parse_metrics(PAGE)).cache_hit_tokens is None


async def test_hit_ratio_comes_from_engine_counters(engine: Any, agent_session: Any) -> None:
    snapshots = iter(
        [
            EngineCounters({"vllm:prefix_cache_queries_total": 10.0}),
            parse_metrics(PAGE),
        ]
    )

    async def provide() -> EngineCounters:
        return next(snapshots)

    target = ReplayTarget(engine.url, metrics=provide)
    done = await replay_sessions(target, [agent_session("a")], OPTIONS, seed=4)
    assert done.result.token_hit_ratio == pytest.approx(60 / 110)
    assert (done.result.evicted_blocks, done.result.preemptions) == (12, 2)
    assert (done.result.kv_tokens, done.result.seed) == (3200, 4)
    assert done.result.policy == "vllm-default"
    assert done.model == "stub"


async def test_hit_ratio_comes_from_usage_without_counters(engine: Any, agent_session: Any) -> None:
    engine.cached_tokens = 7
    done = await replay_sessions(ReplayTarget(engine.url), [agent_session("a", 1)], OPTIONS)
    assert done.result.token_hit_ratio == 0.5
    assert done.result.evicted_blocks is None


async def test_dead_endpoint_is_an_error_before_sending(agent_session: Any) -> None:
    with pytest.raises(EndpointError, match="cannot reach"):
        await replay_sessions(ReplayTarget("http://127.0.0.1:1"), [agent_session("a")], OPTIONS)


async def run_command(*arguments: str) -> tuple[int, str, str]:
    process = await start_command(*arguments)
    out, err = await asyncio.wait_for(process.communicate(), LONGEST_S)
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def start_command(*arguments: str) -> asyncio.subprocess.Process:
    program = (
        "import sys\n"
        "from holdfast.cli.replay import replay\n"
        "from holdfast.errors import HoldfastError\n"
        "try:\n"
        "    replay.main(sys.argv[1:], standalone_mode=False)\n"
        "except HoldfastError as error:\n"
        "    sys.exit(f'{error} ({error.hint})')\n"
    )
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        program,
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "COLUMNS": "120", "NO_COLOR": "1"},
    )


def common_arguments(url: str) -> list[str]:
    return [
        *("--traces", "synthetic:3", "--url", url, "--concurrency", "2", "--sessions", "2"),
        *("--token-scale", "0.03125", "--time-scale", "0", "--max-model-len", "1600"),
        *("--vocab-size", "32000"),
    ]


async def test_command_runs_both_endpoints_and_writes_results(engine: Any, tmp_path: Path) -> None:
    json_path, records_path = tmp_path / "out.json", tmp_path / "records.jsonl"
    code, out, err = await run_command(
        *common_arguments(engine.url),
        *("--against", engine.url, "--label", "one", "--against-label", "two"),
        *("--json", str(json_path), "--records", str(records_path)),
    )
    assert code == 0, err
    assert "token hit ratio" in out
    assert "second / first" in out
    document = json.loads(json_path.read_text())
    assert document["schema"] == "holdfast.run/1"
    assert [run["policy"] for run in document["runs"]] == ["one", "two"]
    assert document["runs"][0]["prompt_tokens"] == document["runs"][1]["prompt_tokens"] > 0
    assert document["manifest"]["digests"]["sessions"]
    rows = [json.loads(line) for line in records_path.read_text().splitlines()]
    assert len(rows) == sum(run["num_turns"] for run in document["runs"])


async def test_load_not_reached_is_warned_of(engine: Any, tmp_path: Path) -> None:
    path = tmp_path / "runs.json"
    code, out, err = await run_command(
        *common_arguments(engine.url), *("--concurrency", "64", "--json", str(path))
    )
    assert code == 0, err
    [run] = json.loads(path.read_text())["runs"]
    assert f"{run['num_sessions']} sessions cannot be 64 at once" in err
    assert f"at most {run['peak_live_sessions']} of 64 sessions were live at once" in err
    assert "goodput, all live" in out
    assert run["concurrency"] == 64
    assert 0 < run["mean_live_sessions"] <= run["peak_live_sessions"] <= run["num_sessions"]
    assert 0 < run["all_live_s"] <= run["makespan_s"]


async def test_interrupt_keeps_partial_results(engine: Any, tmp_path: Path) -> None:
    engine.token_interval_s = 0.01
    json_path = tmp_path / "out.json"
    process = await start_command(
        *common_arguments(engine.url), *("--json", str(json_path), "--against", engine.url)
    )
    await until_async(lambda: len(engine.bodies) >= 4)
    process.send_signal(signal.SIGINT)
    _, err = await asyncio.wait_for(process.communicate(), LONGEST_S)
    assert process.returncode == 0, err.decode()
    (run,) = json.loads(json_path.read_text())["runs"]
    assert run["partial"] is True
    assert run["num_turns"] >= 1
    assert run["num_errors"] == 0


async def test_failed_turns_are_printed(engine: Any, behaviour: Any) -> None:
    engine.behaviours = [behaviour["refuse"]]
    code, _, err = await run_command(*common_arguments(engine.url))
    assert code == 0
    assert "1 turns failed (http_status)" in err
    assert "out of memory" in err


async def test_gap_defect_is_printed(engine: Any, tmp_path: Path) -> None:
    requests: list[dict[str, Any]] = [
        {
            "t": 0,
            "type": "s",
            "in": 70,
            "out": 1,
            "hash_ids": [1],
            "api_time": 2.0,
            "think_time": 0.0,
            "stop": "tool_use",
        }
    ]
    for _ in range(20):
        requests.append(
            {
                **requests[0],
                "t": requests[-1]["t"] + 9.0,
                "think_time": 7.0,
                "trigger": "tool_result",
            }
        )
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"id": "a", "block_size": 64, "requests": requests}))
    code, _, err = await run_command(
        *("--traces", str(path), "--url", engine.url, "--time-scale", "0")
    )
    assert code == 0, err
    assert "known defect" in err
    assert "1 of 1 files" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--traces", "synthetic:x", "--url", "http://127.0.0.1:1"), "synthetic:SEED"),
        (
            ("--traces", "synthetic", "--url", "http://127.0.0.1:1", "--json", "no/where.json"),
            "its directory does not exist",
        ),
    ],
)
def test_wrong_arguments_are_errors_with_a_message(arguments: Any, message: Any) -> None:
    with pytest.raises(ConfigError, match=message):
        replay.main(list(arguments), standalone_mode=False)


def test_missing_figure_is_a_dash_without_ratio() -> None:
    run = summarize_run([], [], policy="p", seed=0, concurrency=1, makespan_s=None, partial=True)
    table = replay_table([run, run])
    assert {row[3] for row in table.groups[0].rows} == {"\N{EN DASH}"}
    assert table.columns[1].heading == "p (partial)"
