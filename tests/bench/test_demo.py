"""The demo's plan: order, sessions, and interruptions; no engine runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

import holdfast.bench.demo as module
from holdfast.bench.demo import (
    TIERED,
    Demo,
    DemoPlan,
    DemoPoint,
    DemoWatcher,
    Scheduling,
    kv_tokens_for,
    sessions_for,
)
from holdfast.bench.server import EngineOptions, ServedPolicy
from holdfast.core.results import RunResult
from holdfast.core.run_summary import summarize_run
from holdfast.errors import ConfigError, EngineError
from holdfast.traces.record import Session, Turn
from holdfast.traces.scaling import TokenScale


def _plan(**changes: Any) -> DemoPlan:
    settings: dict[str, Any] = {
        "traces": None,
        "points": (DemoPoint(1, 2), DemoPoint(3, 4)),
        "seeds": (0,),
        "kv_tokens": 4096,
        "max_model_len": 3000,
        "max_turns": 12,
        "token_scale": 1 / 16,
        "time_scale": 0.0,
        "gap_cap_s": 10.0,
        "has_tiers": False,
    }
    return DemoPlan(**(settings | changes))


class _Server:
    """Stands for a server; records what happens to it."""

    events: list[str]
    dies = False

    def __init__(self, policy: ServedPolicy, options: EngineOptions, log_path: Path) -> None:
        self.policy = policy
        self.options = options
        self.url = "http://127.0.0.1:9"
        pool = options.config.pool_dir
        self.name = policy if pool is None else f"{policy} on {Path(pool).name}"
        if pool is not None:
            self.events.append("the pool is there" if Path(pool).exists() else "the pool is new")
            Path(pool).mkdir(exist_ok=True)

    def __enter__(self) -> Self:
        self.events.append(f"start {self.name}")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.events.append(f"stop {self.name}")

    def reset_prefix_cache(self) -> None:
        self.events.append("reset")

    def check_running(self) -> None:
        if self.dies:
            raise EngineError("died")


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    happened: list[str] = []
    monkeypatch.setattr(_Server, "events", happened, raising=False)

    def replay(
        self: Demo,
        server: _Server,
        scheduling: Scheduling,
        seed: int,
        point: DemoPoint,
        sessions: Sequence[Session],
    ) -> RunResult:
        happened.append(f"run {point.concurrency} on {len(sessions)} of seed {seed}")
        self.digests[f"turns of run {len(self.runs) + len(self.restarted)}"] = str(
            [len(session.turns) for session in sessions]
        )
        if point.concurrency == 99:
            raise KeyboardInterrupt
        return summarize_run(
            [],
            [],
            policy=scheduling,
            seed=seed,
            concurrency=point.concurrency,
            makespan_s=1.0,
            partial=False,
        )

    monkeypatch.setattr(module, "EngineServer", _Server)
    monkeypatch.setattr(module, "build_tiny_model", lambda directory: directory)
    monkeypatch.setattr(module, "tier_arguments", lambda config, _: Path(config.pool_dir).mkdir())
    monkeypatch.setattr(Demo, "_replay", replay)
    return happened


def test_points_start_with_empty_cache_and_same_sessions(events: list[str], tmp_path: Path) -> None:
    Demo(_plan(), tmp_path).run()
    of_one = ["reset", "run 1 on 2 of seed 0", "reset", "run 3 on 4 of seed 0"]
    assert events == [
        *("start vllm-default", *of_one, "stop vllm-default"),
        *("start holdfast", *of_one, "stop holdfast"),
    ]


def test_policies_swap_order_at_every_second_seed(events: list[str], tmp_path: Path) -> None:
    Demo(_plan(seeds=(0, 1, 2)), tmp_path).run()
    starts = [event.removeprefix("start ") for event in events if event.startswith("start")]
    stock_first = ["vllm-default", "holdfast"]
    assert starts == [*stock_first, *stock_first[::-1], *stock_first]


def test_interruption_ends_server_and_keeps_finished_runs(
    events: list[str], tmp_path: Path
) -> None:
    demo = Demo(_plan(points=(DemoPoint(1, 2), DemoPoint(99, 4))), tmp_path)
    with pytest.raises(KeyboardInterrupt):
        demo.run()
    assert events[-1] == "stop vllm-default"
    assert [run.concurrency for run in demo.runs] == [1]


def test_dead_server_ends_demo_and_keeps_its_run(
    events: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_Server, "dies", True)
    demo = Demo(_plan(), tmp_path)
    with pytest.raises(EngineError):
        demo.run()
    assert len(demo.runs) == 1


def test_tiers_run_twice_on_one_pool_after_comparison(events: list[str], tmp_path: Path) -> None:
    demo = Demo(_plan(has_tiers=True), tmp_path)
    demo.run()
    run = "run 3 on 4 of seed 0"
    started = ["start holdfast on pool-0", run, "stop holdfast on pool-0"]
    new, there = "the pool is new", "the pool is there"
    assert events[-11:] == ["reset", run, "stop holdfast", new, *started, there, *started]
    assert [one.policy for one in demo.runs[-2:]] == ["holdfast", TIERED]
    assert [one.policy for one in demo.restarted] == ["holdfast", TIERED]


def test_last_turn_of_each_session_runs_after_restart(events: list[str], tmp_path: Path) -> None:
    plan = _plan(has_tiers=True)
    demo = Demo(plan, tmp_path)
    demo.run()
    turns = [len(session.turns) for session in sessions_for(plan, 0)]
    past_cliff, restarted = str([num - 1 for num in turns]), str([1, 1, 1, 1])
    num_turns = [demo.digests[f"turns of run {i}"] for i in (1, 3, 4, 5, 6)]
    assert num_turns == [past_cliff, past_cliff, restarted, past_cliff, restarted]


@pytest.mark.parametrize("how", ["ended", "interrupted"])
def test_pool_is_removed_at_the_end(
    events: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    if how == "interrupted":
        points = (DemoPoint(1, 2), DemoPoint(99, 4))
        monkeypatch.setattr(Demo, "_measure", lambda *_, **__: None)
        with pytest.raises(KeyboardInterrupt):
            Demo(_plan(has_tiers=True, points=points), tmp_path).run()
    else:
        Demo(_plan(has_tiers=True), tmp_path).run()
    assert any("pool-0" in event for event in events)
    assert list(tmp_path.glob("pool-*")) == []


def test_demo_runs_without_tiers_and_names_reason(
    events: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> list[str]:
        raise EngineError("host_gib needs vLLM 0.32 or newer, this is 0.28")

    class Watcher(DemoWatcher):
        def tiers_left_out(self, why: str) -> None:
            events.append(why)

    monkeypatch.setattr(module, "tier_arguments", refuse)
    demo = Demo(_plan(has_tiers=True), tmp_path, Watcher())
    demo.run()
    assert events[0] == "host_gib needs vLLM 0.32 or newer, this is 0.28"
    assert len(demo.runs) == 4
    assert demo.restarted == []


def test_cache_holds_quarter_of_second_load() -> None:
    plan = _plan(max_model_len=2, kv_tokens=None, max_turns=3)
    sessions = [_session("a", 800), _session("b", 800), _session("c", 8000)]
    assert kv_tokens_for(_with_points(plan, 1, 3), [sessions]) == (50 + 50 + 500 + 3) // 4
    of_another_seed = [sessions[0]] * 3
    assert kv_tokens_for(_with_points(plan, 1, 3), [sessions, of_another_seed]) == (
        (603 + 153) // 2 // 4
    )


def test_cache_holds_first_load_and_longest_request() -> None:
    plan = _plan(max_model_len=2, kv_tokens=None, max_turns=3)
    sessions = [_session("a", 8000), _session("b", 800)]
    assert kv_tokens_for(_with_points(plan, 1, 2), [sessions]) == 501
    longer = _plan(max_model_len=3000, kv_tokens=None, max_turns=3)
    assert kv_tokens_for(_with_points(longer, 1, 2), [sessions]) == 3000


def _session(session_id: str, num_tokens: int) -> Session:
    return Session(session_id, 16, (Turn(0.0, num_tokens, 1, tuple(range(num_tokens // 16))),), "")


def _with_points(plan: DemoPlan, *loads: int) -> DemoPlan:
    return replace(plan, points=tuple(DemoPoint(load, load) for load in loads))


def test_digests_name_the_sessions_of_each_seed(events: list[str], tmp_path: Path) -> None:
    demo = Demo(_plan(seeds=(0, 1)), tmp_path)
    demo.run()
    assert len({demo.digests["sessions-0"], demo.digests["sessions-1"]}) == 2


def test_sessions_fit_the_context_and_the_cap() -> None:
    sessions = sessions_for(_plan(), seed=0)
    scale = TokenScale.from_factor(1 / 16, trace_block_tokens=sessions[0].block_size_tokens)
    assert len(sessions) == 4
    assert all(2 <= len(session.turns) <= 13 for session in sessions)
    assert all(scale.peak_tokens(session) <= 3000 for session in sessions)
    assert max(turn.gap_s for session in sessions for turn in session.turns) == 10.0


def test_scale_that_splits_a_block_is_refused() -> None:
    with pytest.raises(ConfigError, match="token scale"):
        sessions_for(_plan(token_scale=0.05), seed=0)


def test_context_too_short_for_all_sessions_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MAX_GENERATED", 20)
    with pytest.raises(ConfigError, match="no session is left"):
        sessions_for(_plan(max_model_len=2), seed=0)
