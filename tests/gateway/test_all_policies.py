"""All policies of a gateway at once: they undo nothing of each other."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest
from prometheus_client import CollectorRegistry
from tests.gateway.fake_engine import FIRST, FakeEngine, gateway, stream
from tests.gateway.real_engines import MODEL, GatewayProcess, RealEngine, real_engines
from tests.gateway.test_forwarding import chat, post

from holdfast.gateway.policy_file import GatewayPolicies, read_policies
from holdfast.gateway.tenants import ApiKeys
from holdfast.policies.registry import REQUEST_POLICIES, ROUTING_POLICIES

USAGE = b'data: {"choices": [], "usage": {"prompt_tokens": 11, "completion_tokens": 7}}\n\n'
WORDS = b'data: {"choices": [{"index": 0, "delta": {"content": "some words"}}]}\n\n'
DONE = b"data: [DONE]\n\n"
KEYS = ApiKeys({f"key-of-tenant-{n}-long": f"t{n}" for n in range(3)})
TABLES = {
    "warm-ups": "tenants = ['t0']\n",
    "tenant-quotas": "requests_per_min = 1000\nmax_concurrent = 100\n",
    "tool-rules": "repeats = 3\n[[tool-rules.rules]]\naction = 'deny'\ntool = 'rm*'\n",
}
OTHERS = "[fairness]\nby = 'sessions'\nweights = { t1 = 2 }\n['cachewise+working-set']\n"


def everything(directory: Path, router: str) -> GatewayPolicies:
    """A file with every request policy, a router, an admission policy and fairness."""
    tables = [f"[{name}]\n{TABLES.get(name, '')}" for name in REQUEST_POLICIES.names()]
    path = directory / "policies.toml"
    path.write_text("".join(tables) + f"[{router}]\n" + OTHERS)
    return read_policies(path)


@pytest.mark.parametrize("router", ROUTING_POLICIES.names())
async def test_all_on_change_no_answer(tmp_path: Path, router: str) -> None:
    policies = everything(tmp_path, router)
    assert len(policies.requests) == len(REQUEST_POLICIES.names())
    engines = [FakeEngine(stream(FIRST, WORDS, USAGE, DONE)) for _ in range(2)]
    assert policies.routing is not None and policies.admission is not None
    async with (
        gateway(
            *engines,
            keys=KEYS,
            policies=policies.requests,
            routing=policies.routing,
            admission=policies.admission,
            fairness=policies.fairness,
        ) as url,
        aiohttp.ClientSession() as client,
    ):

        async def send(number: int) -> tuple[int, bytes]:
            headers = {
                "x-api-key": f"key-of-tenant-{number % 3}-long",
                "X-Session-ID": f"s{number % 7}",
            }
            body = chat(f"turn {number}") | {"stream": True}
            path = f"{url}/v1/chat/completions"
            async with client.post(path, json=body, headers=headers) as answer:
                return answer.status, await answer.read()

        found = await asyncio.gather(*(send(number) for number in range(42)))
        failed = failures(url.gateway.metrics.registry)
        tenants = url.coordinator.dispatcher.tenants
        assert all(each.num_turns == each.num_waiting == 0 for each in tenants.known())
    assert {status for status, _ in found} == {200}
    assert {content for _, content in found} == {b"".join((FIRST, WORDS, USAGE, DONE))}
    sent = [json.loads(body) for engine in engines for _, _, body in engine.requests]
    assert len(sent) == 42
    assert sum("vllm_xargs" in body for body in sent) == 14  # t0's
    assert all(body["cache_salt"] in ("t0", "t1", "t2") for body in sent)
    assert failed == {}


async def test_all_on_refuse_by_one_policy_alone(tmp_path: Path) -> None:
    everything(tmp_path, "round-robin")
    path = tmp_path / "policies.toml"
    path.write_text(path.read_text().replace("requests_per_min = 1000", "requests_per_min = 2"))
    policies = read_policies(path)
    engine = FakeEngine()
    async with gateway(engine, policies=policies.requests, routing=policies.routing) as url:
        found = [await post(url) for _ in range(3)]
        failed = failures(url.gateway.metrics.registry)
    assert [status for status, _, _ in found] == [200, 200, 429]
    assert "requests a minute" in json.loads(found[-1][1])["error"]["message"]
    assert len(engine.requests) == 2 and failed == {}


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[RealEngine]]:
    pytest.importorskip("vllm")
    with real_engines(tmp_path_factory.mktemp("engines"), "holdfast", "vllm-default") as running:
        yield running


@pytest.mark.engine
@pytest.mark.server
@pytest.mark.parametrize("is_stream", [False, True])
async def test_all_on_change_no_real_answer(
    engines: list[RealEngine], tmp_path: Path, is_stream: bool
) -> None:
    everything(tmp_path, "kv-routing")
    keys = tmp_path / "keys"
    keys.write_text("key-of-tenant-0-long t0\nkey-of-tenant-1-long t1\n")
    options = "--policies", str(tmp_path / "policies.toml"), "--api-keys", str(keys)
    with GatewayProcess(engines, *options) as process:
        for number in range(6):
            said = " ".join(f"p{number % 3} {word}" for word in range(30 + 5 * number))
            body = {
                **chat(said),
                "model": MODEL,
                "max_tokens": 8,
                "temperature": 0,
                "stream": is_stream,
            }
            key = f"key-of-tenant-{number % 2}-long"
            headers = {"x-api-key": key, "X-Session-ID": f"s{number % 3}"}
            status, through, _ = await post(process.url, json=body, headers=headers)
            direct = await post(engines[1].server.url, json=body)
            assert status == direct[0] == 200, through
            assert words_of(through) == words_of(direct[1]) != ""
        text = process.metrics()
    assert 'policy_actions_total{action="rewritten",policy="warm-ups"} 3.0' in text
    assert 'action="failed"' not in text


def words_of(answer: bytes) -> str:
    """The text of a chat completion, streamed or not."""
    if answer.startswith(b"{"):
        return str(json.loads(answer)["choices"][0]["message"]["content"])
    events = [line[6:] for line in answer.splitlines() if line.startswith(b"data: {")]
    choices = [choice for event in events for choice in json.loads(event)["choices"]]
    return "".join(choice["delta"].get("content") or "" for choice in choices)


def failures(registry: CollectorRegistry) -> dict[str, float]:
    """Policies that have failed."""
    samples = [s for metric in registry.collect() for s in metric.samples]
    return {
        s.labels["policy"]: s.value
        for s in samples
        if s.name.endswith("policy_actions_total") and s.labels["action"] == "failed"
    }
