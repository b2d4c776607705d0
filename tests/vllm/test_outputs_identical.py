"""Real servers, stock and Holdfast: the same tokens, and nothing lost when a client hangs up."""

from __future__ import annotations

import http.client
import json
import random
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from holdfast.bench.model import build_tiny_model
from holdfast.bench.scrape import parse_metrics
from holdfast.bench.server import EngineOptions, EngineServer
from holdfast.config import HoldfastConfig

# Two servers start in the first test's setup.
pytestmark = [pytest.mark.engine, pytest.mark.server]

_KV_TOKENS = 1536
_NUM_SESSIONS = 5
_NUM_TURNS = 6
_NUM_OUTPUT_TOKENS = 12
_SHARED_TOKENS = 96

Tokens = list[int]


def _complete(server: EngineServer, prompt: Tokens) -> Tokens:
    """The greedy continuation of a prompt, as token ids."""
    body = {
        "model": str(server.options.model),
        "prompt": prompt,
        "max_tokens": _NUM_OUTPUT_TOKENS,
        "temperature": 0,
        "ignore_eos": True,
        "return_token_ids": True,
    }
    request = urllib.request.Request(
        server.url + "/v1/completions",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=120) as response:
        tokens: Tokens = json.load(response)["choices"][0]["token_ids"]
    return tokens


class _Sessions:
    """Sessions with a common beginning, each prompt the last one, its answer and some more."""

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


def _converse(server: EngineServer, *, num_at_once: int) -> list[Tokens]:
    """Take all turns of all sessions; returns the answers in order."""
    answers: list[Tokens] = []
    sessions = _Sessions()
    with ThreadPoolExecutor(num_at_once) as pool:
        for _ in range(_NUM_TURNS):
            turn = list(pool.map(lambda prompt: _complete(server, prompt), sessions.prompts))
            sessions.extend(turn)
            answers += turn
    return answers


def _totals(server: EngineServer) -> dict[str, float]:
    time.sleep(1.0)  # the engine core publishes a few times a second
    with urllib.request.urlopen(server.url + "/metrics", timeout=10) as response:
        return dict(parse_metrics(response.read().decode()).totals)


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
def stock(options: EngineOptions, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What stock vLLM answers; its server is gone before the other starts."""
    with EngineServer("vllm-default", options, tmp_path_factory.mktemp("stock") / "log") as server:
        one_by_one = _converse(server, num_at_once=1)
        server.reset_prefix_cache()
        return {
            "one by one": one_by_one,
            "together": _converse(server, num_at_once=_NUM_SESSIONS),
            "totals": _totals(server),
        }


@pytest.fixture(scope="module")
def server(
    stock: dict[str, Any], options: EngineOptions, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[EngineServer]:
    with EngineServer("holdfast", options, tmp_path_factory.mktemp("ours") / "log") as server:
        yield server


def test_answers_one_by_one_are_those_of_stock_vllm(
    server: EngineServer, stock: dict[str, Any]
) -> None:
    answers = _converse(server, num_at_once=1)
    assert {len(answer) for answer in answers} == {_NUM_OUTPUT_TOKENS}
    assert len({tuple(answer) for answer in answers}) > 1
    assert answers == stock["one by one"]


def test_answers_in_a_batch_are_those_of_stock_vllm(
    server: EngineServer, stock: dict[str, Any]
) -> None:
    # Batches differ between the engines, and with them the rounding of float32. The tiny model's
    # greedy choices are far enough apart that no token depends on it.
    server.reset_prefix_cache()
    assert _converse(server, num_at_once=_NUM_SESSIONS) == stock["together"]


def test_the_cache_was_too_small_and_was_used_on_both(
    server: EngineServer, stock: dict[str, Any]
) -> None:
    for totals in (stock["totals"], _totals(server)):
        assert totals["holdfast_evicted_blocks_total"] > 0
        assert totals["vllm:prefix_cache_hits_total"] > 0


def test_metrics_of_holdfast_stand_beside_those_of_vllm(server: EngineServer) -> None:
    _complete(server, list(range(300, 400)))
    totals = _totals(server)
    assert totals["holdfast_admissions_total"] >= 1
    assert totals["holdfast_decision_seconds_total"] > 0
    assert totals["vllm:prompt_tokens_total"] >= 100
    assert "holdfast_fallbacks_total" not in totals


def test_what_ends_a_turn_is_read_from_its_output(server: EngineServer) -> None:
    _converse(server, num_at_once=1)
    with urllib.request.urlopen(server.url + "/metrics", timeout=10) as response:
        page: str = response.read().decode()
    (line,) = [line for line in page.splitlines() if 'state="human_away"' in line]
    assert float(line.rsplit(maxsplit=1)[1]) > 0


def test_a_prompt_larger_than_the_cache_is_refused_and_the_next_one_served(
    server: EngineServer,
) -> None:
    with pytest.raises(urllib.error.HTTPError, match="400") as refusal:
        _complete(server, [500] * (_KV_TOKENS + 1))
    refusal.value.close()
    assert len(_complete(server, [500] * 100)) == _NUM_OUTPUT_TOKENS


def test_a_session_goes_on_after_its_client_hung_up(server: EngineServer) -> None:
    server.reset_prefix_cache()
    prompt = [1000 + i for i in range(320)]
    expected = _complete(server, prompt)
    _hang_up_amid(server, prompt)
    deadline_s = time.monotonic() + 30
    while _totals(server)["vllm:num_requests_running"]:
        assert time.monotonic() < deadline_s
    before = _totals(server)
    assert _complete(server, prompt) == expected
    after = _totals(server)
    hits = after["vllm:prefix_cache_hits_total"] - before["vllm:prefix_cache_hits_total"]
    assert hits == 320 - 32  # all but the block of the last token
    assert server.is_running


def _hang_up_amid(server: EngineServer, prompt: Tokens) -> None:
    body = {
        "model": str(server.options.model),
        "prompt": prompt,
        "max_tokens": 1000,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
    }
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    connection.request(
        "POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"}
    )
    response = connection.getresponse()
    for _ in range(5):
        assert response.readline()
    response.close()
    connection.close()
