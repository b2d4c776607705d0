"""Warm-ups on a real server: prompts are computed ahead, and clients see nothing of it.

Two servers are started once for the whole file.
"""

from __future__ import annotations

import http.client
import time
from collections.abc import Iterator
from typing import Any

import pytest
from tests.engine_client import EngineClient
from tests.waiting import LONGEST_S, until

from holdfast.bench.model import build_tiny_model
from holdfast.bench.server import EngineOptions, EngineServer
from holdfast.config import HoldfastConfig

pytestmark = [pytest.mark.engine, pytest.mark.server]

_KV_TOKENS = 1536
_PREFIX_TOKENS = 256
_NEW_TOKENS = 40
_AGENTS = 4
_ROUNDS = 5
_PAUSES_S = (0.02, 0.4)


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> EngineOptions:
    pytest.importorskip("vllm")
    return EngineOptions(
        model=build_tiny_model(tmp_path_factory.mktemp("model")),
        kv_tokens=_KV_TOKENS,
        max_model_len=_KV_TOKENS,
        config=HoldfastConfig(strict=True, warm_up_share=0.5),
    )


@pytest.fixture(scope="module")
def stock(options: EngineOptions, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with EngineServer("vllm-default", options, tmp_path_factory.mktemp("stock") / "log") as server:
        yield EngineClient(server)


@pytest.fixture(scope="module")
def ours(options: EngineOptions, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with EngineServer("holdfast", options, tmp_path_factory.mktemp("ours") / "log") as server:
        yield EngineClient(server)


def call(client: EngineClient, prompt: list[int], **hints: Any) -> tuple[list[int], int]:
    """One call of an agent, a session of its own; its answer and its cached tokens."""
    content = client.post(
        "/v1/completions",
        {
            "model": str(client.server.options.model),
            "prompt": prompt,
            "max_tokens": 4,
            "temperature": 0,
            "ignore_eos": True,
            "return_token_ids": True,
            "vllm_xargs": {"holdfast_final": 1, **hints},
        },
    )
    details = content["usage"].get("prompt_tokens_details") or {}
    return content["choices"][0]["token_ids"], details.get("cached_tokens") or 0


def rounds(client: EngineClient, **hints: Any) -> list[list[int]]:
    """Call agents in a repeating order, then evict them all; the answers.

    Pauses are uneven: where they are alike, a silence counts as the end of the agents' work.
    """
    answers = []
    for number in range(_ROUNDS * _AGENTS):
        time.sleep(_PAUSES_S[number % 2])
        answers.append(call(client, prompt_of(number % _AGENTS, number), **hints)[0])
    answers.append(call(client, [700 + i % 500 for i in range(1400)])[0])
    return answers


def prompt_of(agent: int, number: int) -> list[int]:
    """An agent's fixed prefix and new tokens."""
    prefix = [300 + (agent * 97 + i * 7) % 1500 for i in range(_PREFIX_TOKENS)]
    return prefix + [300 + (number * 131 + i * 11) % 1500 for i in range(_NEW_TOKENS)]


def test_predicted_agents_prompt_is_computed_ahead(ours: EngineClient, stock: EngineClient) -> None:
    expected = rounds(stock)
    before = ours.totals()
    assert rounds(ours, holdfast_warm_up=1) == expected
    until(lambda: ours.by_label("holdfast_warm_ups_total", "outcome")["started"] > 0)
    until(lambda: ours.totals()["vllm:num_requests_running"] == 0)
    answer, num_cached = call(ours, prompt_of(0, 99), holdfast_warm_up=1)
    assert answer == call(stock, prompt_of(0, 99))[0]
    assert num_cached >= _PREFIX_TOKENS
    until(lambda: ours.by_label("holdfast_warm_ups_total", "outcome")["used"] > 0)
    after = ours.totals()
    num_calls = _ROUNDS * _AGENTS + 2
    for metric, number in {
        "vllm:request_success_total": num_calls,
        "vllm:prompt_tokens_total": (num_calls - 1) * (_PREFIX_TOKENS + _NEW_TOKENS) + 1400,
        "vllm:prefix_cache_queries_total": (num_calls - 1) * (_PREFIX_TOKENS + _NEW_TOKENS) + 1400,
    }.items():
        assert after.get(metric, 0) - before.get(metric, 0) == number, metric
    assert "holdfast_fallbacks_total" not in after


def test_nothing_computed_ahead_for_who_did_not_ask(ours: EngineClient) -> None:
    before = ours.by_label("holdfast_warm_ups_total", "outcome")["started"]
    rounds(ours)
    _, num_cached = call(ours, prompt_of(0, 98))
    assert num_cached < _PREFIX_TOKENS
    assert ours.by_label("holdfast_warm_ups_total", "outcome")["started"] == before


def test_without_a_token_there_are_no_control_routes(ours: EngineClient) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", ours.server.port, timeout=LONGEST_S)
    connection.request("GET", "/holdfast/v1/state", headers={"Authorization": "Bearer " + "x" * 32})
    assert connection.getresponse().status == http.HTTPStatus.NOT_FOUND
    connection.close()
