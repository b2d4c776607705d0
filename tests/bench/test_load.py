"""The closed loop, also against endpoints that fail."""

from __future__ import annotations

import asyncio
import socket
import time
from itertools import pairwise
from typing import Any

import pytest
from tests.waiting import LONGEST_S, until_async

from holdfast.bench import client as client_module
from holdfast.bench.client import Client, Timeouts
from holdfast.bench.load import Load, LoadRecords, SendOptions
from holdfast.bench.prompts import PromptBuilder
from holdfast.core.results import TurnRecord
from holdfast.errors import ConfigError, EndpointError

SCALE = 1 / 16
QUICK = Timeouts(stall_s=2.0)


async def run(
    url: Any,
    sessions: Any,
    *,
    stop: asyncio.Event | None = None,
    timeouts: Timeouts | None = None,
    **options: Any,
) -> LoadRecords:
    settings = SendOptions(**{"concurrency": 2, "token_scale": SCALE} | options)
    async with Client(url, timeouts=timeouts or Timeouts()) as client:
        return await Load(client, "stub", sessions, settings, PromptBuilder(SCALE)).run(stop)


def end_of(turn: TurnRecord) -> float:
    assert turn.last_token_s is not None
    return turn.last_token_s


async def test_every_turn_is_sent_in_order_and_recorded(engine: Any, agent_session: Any) -> None:
    records = await run(engine.url, [agent_session("a"), agent_session("b", number=1)])
    assert not records.partial
    assert all(turn.error_kind is None for turn in records.turns)
    for name in ("a", "b"):
        turns = [turn for turn in records.turns if turn.session_id == name]
        assert [turn.turn_index for turn in turns] == [0, 1, 2]
        assert all(after.sent_s >= end_of(before) for before, after in pairwise(turns))
    assert [session.is_completed for session in records.sessions] == [True, True]


async def test_body_asks_for_exact_lengths_and_streaming(engine: Any, agent_session: Any) -> None:
    await run(engine.url, [agent_session("a", 1)])
    (body,) = engine.bodies
    assert body["max_tokens"] == body["min_tokens"] == 8
    assert body["ignore_eos"] is True
    assert body["stream_options"] == {"include_usage": True}
    assert body["temperature"] == 0
    assert len(body["prompt"]) == 3 * 4 + 2


async def test_no_more_sessions_are_live_than_the_concurrency(
    engine: Any, agent_session: Any
) -> None:
    engine.token_interval_s = 0.002
    sessions = [agent_session(f"s{n}", number=n) for n in range(7)]
    records = await run(engine.url, sessions, concurrency=3)
    assert engine.most_live == 3
    assert len(records.sessions) == 7


async def test_next_session_starts_when_one_ends(engine: Any, agent_session: Any) -> None:
    records = await run(
        engine.url, [agent_session("a", 2), agent_session("b", 1, number=1)], concurrency=1
    )
    ended_s = {session.session_id: session.ended_s for session in records.sessions}
    assert records.sessions[1].started_s >= ended_s["a"]


async def test_gaps_pass_after_the_answer_and_are_scaled(engine: Any, agent_session: Any) -> None:
    records = await run(engine.url, [agent_session("a", 2, gap_s=10.0)], time_scale=0.02)
    first, second = records.turns
    assert 0.2 <= second.sent_s - end_of(first) < 10.0


async def test_ttft_and_latency_are_measured_separately(engine: Any, agent_session: Any) -> None:
    engine.token_interval_s = 0.02
    (turn,) = (await run(engine.url, [agent_session("a", 1)])).turns
    assert turn.ttft_s is not None
    assert turn.request_latency_s is not None
    assert 0.02 <= turn.ttft_s < turn.request_latency_s
    assert turn.request_latency_s >= 8 * 0.02


async def test_engine_counts_are_recorded(engine: Any, agent_session: Any) -> None:
    engine.cached_tokens = 9
    (turn,) = (await run(engine.url, [agent_session("a", 1)])).turns
    assert (turn.prompt_tokens, turn.output_tokens, turn.cached_tokens) == (14, 8, 9)


async def test_tokens_that_any_session_sent_before_are_not_first_seen(
    engine: Any, agent_session: Any
) -> None:
    sessions = [agent_session("a", 2), agent_session("b", 1, number=1)]
    records = await run(engine.url, sessions, concurrency=1)
    # a: 3 blocks and tail, then one block and tail; b shares the two blocks of the head.
    assert [turn.first_seen_tokens for turn in records.turns] == [14, 6, 6]
    assert [turn.appended_tokens for turn in records.turns] == [14, 6, 14]


async def test_growing_prompt_adds_one_block_and_tail_per_turn(
    engine: Any, agent_session: Any
) -> None:
    records = await run(engine.url, [agent_session("a", 9)])
    assert [turn.first_seen_tokens for turn in records.turns] == [14] + 8 * [4 + 2]


async def test_nothing_identifies_sessions_by_default(engine: Any, agent_session: Any) -> None:
    await run(engine.url, [agent_session("a", 1)])
    assert "X-Session-ID" not in engine.headers[0]


async def test_session_ids_sent_in_header_on_request(engine: Any, agent_session: Any) -> None:
    await run(engine.url, [agent_session("a", 1)], session_ids=True)
    assert engine.headers[0]["X-Session-ID"] == "a"


async def test_turn_ends_are_sent_as_flat_extra_arguments(engine: Any, agent_session: Any) -> None:
    await run(engine.url, [agent_session("a", 2)])
    assert [body["vllm_xargs"] for body in engine.bodies] == [
        {"holdfast_turn_end": "tool"},
        {"holdfast_turn_end": "human"},
    ]


async def test_turn_ends_can_be_left_out(engine: Any, agent_session: Any) -> None:
    await run(engine.url, [agent_session("a", 1)], turn_ends=False)
    assert "vllm_xargs" not in engine.bodies[0]


@pytest.mark.parametrize(
    ("name", "kind", "text"),
    [
        ("refuse", "http_status", "500: out of memory"),
        ("hang_up", "disconnected", ""),
        ("stop_short", "incomplete", "without its end marker"),
        ("say_nothing", "stalled", "nothing arrived in time"),
        ("stall", "stalled", "nothing arrived in time"),
        ("babble", "malformed", "JSON"),
        ("fail_late", "http_status", "engine died"),
        ("answer_empty", "incomplete", "without a token"),
    ],
)
async def test_failed_turn_is_recorded_and_ends_only_its_session(
    engine: Any, agent_session: Any, behaviour: Any, name: Any, kind: Any, text: Any
) -> None:
    engine.behaviours = [behaviour[name]]
    sessions = [agent_session("a", 3), agent_session("b", 2, number=1)]
    timeouts = QUICK if kind == "stalled" else None
    records = await run(engine.url, sessions, concurrency=1, timeouts=timeouts)
    failed, *rest = records.turns
    assert failed.error_kind == kind
    assert text in (failed.error or "")
    assert failed.last_token_s is None
    assert [(turn.session_id, turn.error_kind) for turn in rest] == [("b", None), ("b", None)]
    assert [session.is_completed for session in records.sessions] == [False, True]
    assert not records.partial


async def test_tokens_received_before_a_failure_are_counted(
    engine: Any, agent_session: Any, behaviour: Any
) -> None:
    engine.behaviours = [behaviour["hang_up"]]
    (turn,) = (await run(engine.url, [agent_session("a", 1)])).turns
    assert turn.output_tokens == 1
    assert turn.first_token_s is not None


async def test_dead_endpoint_fails_every_session_quickly(
    agent_session: Any,
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        sessions = [agent_session(f"s{n}", number=n) for n in range(20)]
        async with asyncio.timeout(LONGEST_S):
            records = await run(url, sessions)
    assert [turn.error_kind for turn in records.turns] == ["connect"] * 20


async def test_stop_keeps_records_and_marks_them_partial(engine: Any, agent_session: Any) -> None:
    stop = asyncio.Event()
    engine.token_interval_s = 0.02
    sessions = [agent_session("a", 50, gap_s=0.01), agent_session("b", 50, gap_s=9e3, number=1)]
    started_s = time.monotonic()
    running = asyncio.create_task(run(engine.url, sessions, stop=stop))
    await until_async(lambda: len(engine.bodies) >= 4)  # "b" is away after its first turn
    stop.set()
    async with asyncio.timeout(LONGEST_S):
        records = await running
    assert records.partial
    assert any(turn.error_kind is None for turn in records.turns)
    assert [turn.error_kind for turn in records.turns].count("cancelled") <= 1
    assert not any(session.is_completed for session in records.sessions)
    assert records.makespan_s is not None
    assert 0.0 < records.makespan_s <= time.monotonic() - started_s


async def test_stop_after_last_turn_leaves_run_complete(engine: Any, agent_session: Any) -> None:
    stop = asyncio.Event()
    records = await run(engine.url, [agent_session("a", 1)], stop=stop)
    stop.set()
    assert not records.partial


async def test_cancelling_the_run_completes_its_records(
    engine: Any, agent_session: Any, behaviour: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrived, take = asyncio.Event(), client_module._take

    def take_and_tell(*given: Any) -> None:
        take(*given)
        arrived.set()

    monkeypatch.setattr(client_module, "_take", take_and_tell)
    engine.behaviours = [behaviour["stall"]]
    async with Client(engine.url, timeouts=Timeouts()) as client:
        options = SendOptions(concurrency=1, token_scale=SCALE)
        load = Load(client, "stub", [agent_session("a")], options, PromptBuilder(SCALE))
        running = asyncio.create_task(load.run())
        await arrived.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
    (turn,) = load.records.turns
    assert (turn.error_kind, turn.output_tokens) == ("cancelled", 1)
    assert load.records.partial
    assert load.records.makespan_s is not None


async def test_error_in_on_turn_ends_run_and_is_raised(engine: Any, agent_session: Any) -> None:
    def break_down(_record: Any) -> None:
        raise RuntimeError("observer")

    async with Client(engine.url) as client:
        options = SendOptions(concurrency=1, token_scale=SCALE)
        sessions = [agent_session("a"), agent_session("b", number=1)]
        load = Load(client, "stub", sessions, options, PromptBuilder(SCALE), break_down)
        with pytest.raises(RuntimeError, match="observer"):
            await load.run()


async def test_impossible_prompts_refused_before_sending(engine: Any, agent_session: Any) -> None:
    async with Client(engine.url) as client:
        options = SendOptions(concurrency=1, token_scale=1 / 100)
        with pytest.raises(ConfigError, match="whole number"):
            Load(client, "stub", [agent_session("a")], options, PromptBuilder(1 / 100))
    assert engine.bodies == []


@pytest.mark.parametrize(
    "wrong", [{"concurrency": 0}, {"time_scale": -1.0}, {"time_scale": float("nan")}]
)
def test_send_options_out_of_range_are_errors(wrong: Any) -> None:
    with pytest.raises(ConfigError, match="expected"):
        SendOptions(**{"concurrency": 1} | wrong)


async def test_model_name_comes_from_the_endpoint(engine: Any) -> None:
    async with Client(f"{engine.url}/v1/") as client:
        assert await client.model_name() == "stub"


@pytest.mark.parametrize(
    ("models", "message"), [("[]", "list of models"), ('{"data": []}', "lists no model")]
)
async def test_endpoint_without_models_is_an_error(engine: Any, models: Any, message: Any) -> None:
    engine.models = models
    async with Client(engine.url) as client:
        with pytest.raises(EndpointError, match=message):
            await client.model_name()


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "localhost:8000", "not a url"])
async def test_unreachable_endpoint_is_an_error(url: Any) -> None:
    async with Client(url) as client:
        with pytest.raises(EndpointError, match="cannot reach"):
            await client.model_name()
