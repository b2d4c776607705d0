"""`holdfast explain` and `holdfast plan` on a real engine that thrashes."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from click.testing import CliRunner
from tests.vllm.logged_server import TOKEN, LoggedServer
from tests.waiting import until

from holdfast.bearer_token import TOKEN_VARIABLE
from holdfast.bench.model import build_tiny_model
from holdfast.bench.server import EngineOptions, EngineServer
from holdfast.cli.main import cli
from holdfast.config import HoldfastConfig

pytestmark = [pytest.mark.engine, pytest.mark.server]

KV_TOKENS = 2048
NUM_SESSIONS = 6
NUM_TURNS = 5
FIRST_TOKENS, GROWTH_TOKENS, ANSWER_TOKENS = 700, 24, 8


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoggedServer]:
    """Sessions of twice the cache, in turn: each finds its blocks evicted."""
    directory = tmp_path_factory.mktemp("engine")
    token, log = directory / "token", directory / "decisions.log"
    token.write_text(TOKEN)
    token.chmod(0o600)
    options = EngineOptions(
        model=build_tiny_model(directory / "model"),
        kv_tokens=KV_TOKENS,
        max_model_len=KV_TOKENS,
        config=HoldfastConfig(routes_token_file=str(token), decision_log=str(log)),
    )
    with EngineServer("holdfast", options, directory / "server.log") as server:
        served = LoggedServer(server, log)
        prompts = [_prompt(number) for number in range(NUM_SESSIONS)]
        with ThreadPoolExecutor(NUM_SESSIONS) as pool:
            for turn in range(NUM_TURNS):
                list(pool.map(lambda n: _turn(served, prompts[n], n), range(NUM_SESSIONS)))
                for number, prompt in enumerate(prompts):
                    prompt += _prompt(number + 100 * turn, GROWTH_TOKENS)
        until(lambda: len(served.logged("missed")) == NUM_SESSIONS * NUM_TURNS)
        yield served


def _prompt(seed: int, num_tokens: int = FIRST_TOKENS) -> list[int]:
    draw = random.Random(seed)
    return [draw.randrange(300, 2000) for _ in range(num_tokens)]


def _turn(engine: LoggedServer, prompt: list[int], number: int) -> None:
    body = {
        "model": engine.model,
        "prompt": prompt,
        "max_tokens": ANSWER_TOKENS,
        "temperature": 0,
        "ignore_eos": True,
    }
    status, text = engine.post("/v1/completions", {"X-Session-ID": f"agent-{number}"}, body)
    assert status == 200, text


def run(*arguments: str, token: str = TOKEN) -> str:
    runner = CliRunner(env={TOKEN_VARIABLE: token})
    result = runner.invoke(cli, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def told(*arguments: str, **options: str) -> Any:
    return json.loads(run(*arguments, "--json", **options))


def test_it_says_that_it_thrashes_why_and_what_to_set(engine: LoggedServer) -> None:
    text = " ".join(run("explain", engine.url).split())
    assert text.startswith("The cache thrashes")
    assert "The live sessions need" in text and f"the KV cache holds {KV_TOKENS:,}" in text
    assert "1. evicted" in text and "--gpu-memory-utilization" in text
    assert "agent-" in text and "for session" in text


def test_its_log_and_its_routes_tell_the_same(engine: LoggedServer) -> None:
    log, live = told("explain", str(engine._log)), told("explain", engine.url)
    for found in (log, live):
        assert found["cached_tokens"] + sum(found["missed"].values()) == found["prompt_tokens"]
    # The metrics of turns that end in the last step come with the next one.
    last = NUM_SESSIONS * (FIRST_TOKENS + NUM_TURNS * GROWTH_TOKENS)
    assert 0 <= log["prompt_tokens"] - live["prompt_tokens"] <= last
    assert log["missed"].keys() == live["missed"].keys()
    assert {one["session_id"] for one in live["sessions"]} == {
        one["session_id"] for one in log["sessions"]
    }
    assert live["num_turns"] is None and log["num_turns"] == NUM_SESSIONS * NUM_TURNS
    ended = {one["reason"]: one["num_turns"] for one in log["waits"]}
    assert sum(ended.values()) > 0 and "blocks" in ended | {"order": 0}


def test_one_session_is_told_by_its_id(engine: LoggedServer) -> None:
    found = told("explain", engine.url, "--session", "agent-3")
    (session,) = found["sessions"]
    assert session["session_id"] == "agent-3" and found["num_turns"] == 4  # the last ones


def test_a_plan_goes_by_its_turns_sizes_and_speed(engine: LoggedServer) -> None:
    found = told("plan", engine.url, "--developers", "12", "--host-gib", "0.05")
    stock, tier = found["capacities"]
    assert found["source"] == "engine" and found["kv_tokens"] == KV_TOKENS
    assert found["num_sessions"] == NUM_SESSIONS
    assert found["observed"]["num_turns"] == 4 * NUM_SESSIONS
    assert found["observed"]["hit_ratio"] < found["observed"]["possible_hit_ratio"]
    assert found["best_hit_ratio"] > 0.7  # evictions do not count against the sessions
    # Prompts of 750 tokens on average in a cache of 2,048 for sessions without pauses.
    assert 1.0 <= stock["fits"]["median"] <= stock["cliff"]["median"] < 5.0
    assert tier["cliff"] is None or tier["cliff"]["median"] > stock["cliff"]["median"]
    assert stock["engines"] >= 3
    sentence = run("plan", engine.url).split("\n\n")[0]
    assert engine.url.removeprefix("http://") in sentence
    assert any("last four turns" in warning for warning in found["warnings"])


def test_a_plan_from_its_log_agrees(engine: LoggedServer) -> None:
    profile = ("--kv-tokens", str(KV_TOKENS))
    log = told("plan", str(engine._log), *profile)
    live = told("plan", engine.url, "--profile", "h100-llama3.1-8b", *profile)
    # Only the log has the first of the five turns, which repeats nothing.
    assert log["best_hit_ratio"] == pytest.approx(0.8 * live["best_hit_ratio"], abs=0.05)
    cliffs = [one["capacities"][0]["cliff"]["median"] for one in (log, live)]
    assert cliffs[0] == pytest.approx(cliffs[1], rel=0.25)


def test_a_watch_knows_later_turns_too(engine: LoggedServer) -> None:
    with ThreadPoolExecutor(1) as pool:
        watched = pool.submit(told, "plan", engine.url, "--observe", "8")
        for _ in range(2):
            _turn(engine, _prompt(999), 77)
        found = watched.result()
    assert found["observed"]["num_turns"] > 4 * NUM_SESSIONS
    assert found["num_sessions"] == NUM_SESSIONS + 1
