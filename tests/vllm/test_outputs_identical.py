"""Real servers, stock and Holdfast: the same tokens, what both count, and a client that hangs up.

Both are started once for the whole file.
"""

from __future__ import annotations

import http.client
import json
import random
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from tests.engine_client import NUM_OUTPUT_TOKENS, EngineClient, Tokens, tokens_of
from tests.waiting import LONGEST_S, until

from holdfast.bench.model import VOCAB_SIZE, build_tiny_model
from holdfast.bench.server import EngineOptions, EngineServer
from holdfast.config import HoldfastConfig

pytestmark = [pytest.mark.engine, pytest.mark.server]

_KV_TOKENS = 1536
_NUM_SESSIONS = 5
_NUM_TURNS = 6
_SHARED_TOKENS = 96


class _Sessions:
    """Sessions with a common beginning; each prompt extends the last one and its answer."""

    def __init__(self) -> None:
        self._random = random.Random(7)
        shared = self._some(_SHARED_TOKENS)
        self.prompts = [shared + self._some(64 + 40 * i) for i in range(_NUM_SESSIONS)]

    def _some(self, num_tokens: int) -> Tokens:
        return [self._random.randrange(300, 2000) for _ in range(num_tokens)]

    def extend(self, answers: list[Tokens]) -> None:
        self.prompts = [
            prompt + answer + self._some(37)
            for prompt, answer in zip(self.prompts, answers, strict=True)
        ]


def _converse(client: EngineClient, *, num_at_once: int) -> list[Tokens]:
    """Take all turns of all sessions; returns the answers in order."""
    answers: list[Tokens] = []
    sessions = _Sessions()
    with ThreadPoolExecutor(num_at_once) as pool:
        for _ in range(_NUM_TURNS):
            turn = tokens_of(pool.map(client.ask, sessions.prompts))
            sessions.extend(turn)
            answers += turn
    return answers


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> EngineOptions:
    pytest.importorskip("vllm")
    return EngineOptions(
        model=build_tiny_model(tmp_path_factory.mktemp("model")),
        kv_tokens=_KV_TOKENS,
        max_model_len=_KV_TOKENS,
        config=HoldfastConfig(strict=True),
    )


@pytest.fixture(scope="module")
def stock(options: EngineOptions, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with EngineServer("vllm-default", options, tmp_path_factory.mktemp("stock") / "log") as server:
        yield EngineClient(server)


@pytest.fixture(scope="module")
def ours(options: EngineOptions, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with EngineServer("holdfast", options, tmp_path_factory.mktemp("ours") / "log") as server:
        yield EngineClient(server)


@pytest.fixture(params=["stock", "ours"])
def either(request: pytest.FixtureRequest) -> EngineClient:
    client: EngineClient = request.getfixturevalue(request.param)
    return client


def test_single_answers_equal_stock_vllm(stock: EngineClient, ours: EngineClient) -> None:
    answers = _converse(ours, num_at_once=1)
    assert {len(answer) for answer in answers} == {NUM_OUTPUT_TOKENS}
    assert len({tuple(answer) for answer in answers}) > 1
    assert answers == _converse(stock, num_at_once=1)


def test_batched_answers_equal_stock_vllm(stock: EngineClient, ours: EngineClient) -> None:
    # Batches differ between the engines, and with them the rounding of float32. The tiny model's
    # greedy choices are far enough apart that no token depends on it.
    answers = []
    for client in (stock, ours):
        client.server.reset_prefix_cache()
        answers.append(_converse(client, num_at_once=_NUM_SESSIONS))
    assert answers[0] == answers[1]


def test_both_servers_evicted_and_hit(either: EngineClient) -> None:
    _converse(either, num_at_once=_NUM_SESSIONS)
    either.totals_with("holdfast_evicted_blocks_total", "vllm:prefix_cache_hits_total")


def test_metrics_served_beside_vllms(ours: EngineClient) -> None:
    ours.ask(list(range(300, 400)))
    totals = ours.totals_with("holdfast_admissions_total", "holdfast_decision_seconds_total")
    assert totals["vllm:prompt_tokens_total"] >= 100
    assert "holdfast_fallbacks_total" not in totals


def test_turn_end_read_from_the_output(ours: EngineClient) -> None:
    letter, end = 64, VOCAB_SIZE - 1
    answer = {
        "model": str(ours.server.options.model),
        "prompt": [500] * 100,
        "min_tokens": 4,
        "max_tokens": 20,
        "allowed_token_ids": [letter, end],
        "logit_bias": {str(end): 100},
    }
    assert ours.post("/v1/completions", answer)["choices"][0]["finish_reason"] == "stop"
    until(lambda: ours.by_label("holdfast_sessions", "state")["human_away"])


def test_oversized_prompt_refused_and_next_one_served(
    ours: EngineClient,
) -> None:
    with pytest.raises(urllib.error.HTTPError, match="400") as refusal:
        ours.ask([500] * (_KV_TOKENS + 1))
    refusal.value.close()
    assert len(ours.ask([500] * 100).tokens) == NUM_OUTPUT_TOKENS


def test_session_continues_after_a_disconnect(ours: EngineClient) -> None:
    ours.server.reset_prefix_cache()
    prompt = [1000 + i for i in range(320)]
    expected = ours.ask(prompt).tokens
    _hang_up_amid(ours.server, prompt)
    until(lambda: ours.totals()["vllm:num_requests_running"] == 0)
    before = ours.totals()["vllm:prefix_cache_hits_total"]
    assert ours.ask(prompt).tokens == expected
    # All blocks except the last token's.
    assert ours.totals()["vllm:prefix_cache_hits_total"] - before == 320 - 32
    assert ours.server.is_running


def test_tiny_model_answers_chats_and_completions(either: EngineClient) -> None:
    model = str(either.server.options.model)
    chat = {"model": model, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 4}
    assert either.post("/v1/chat/completions", chat)["usage"]["completion_tokens"] > 0
    text = {"model": model, "prompt": "hello", "max_tokens": 4, "ignore_eos": True}
    assert either.post("/v1/completions", text)["usage"]["completion_tokens"] == 4


def test_evictions_counted_beside_vllms_metrics(either: EngineClient) -> None:
    either.server.reset_prefix_cache()
    before = either.totals()
    # Three prompts of 768 tokens in a cache of 1,536: the third evicts the first.
    for first_token in (100, 200, 300):
        either.ask([first_token] * 768)

    def num_evicted() -> float:
        evicted = either.totals()["holdfast_evicted_blocks_total"]
        return evicted - before["holdfast_evicted_blocks_total"]

    assert 24 <= until(lambda: num_evicted() >= 24 and num_evicted()) <= 28
    assert either.totals()["vllm:prompt_tokens_total"] - before["vllm:prompt_tokens_total"] == 2304


def _hang_up_amid(server: EngineServer, prompt: Tokens) -> None:
    body = {
        "model": str(server.options.model),
        "prompt": prompt,
        "max_tokens": 1000,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
    }
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=LONGEST_S)
    connection.request(
        "POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"}
    )
    response = connection.getresponse()
    for _ in range(5):
        assert response.readline()
    response.close()
    connection.close()


def test_without_a_token_there_are_no_routes(ours: EngineClient) -> None:
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(ours.server.url + "/holdfast/v1/state", timeout=LONGEST_S)
    assert caught.value.code == 404 and json.load(caught.value) == {"detail": "Not Found"}
