"""Quotas and fairness between tenants, in a running gateway."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import aiohttp
import pytest
from tests.gateway.fake_engine import FakeEngine, gateway
from tests.gateway.test_admission import Gate, path, warmed
from tests.gateway.test_forwarding import chat, post
from tests.gateway.test_held_requests import OneByOne
from tests.waiting import until_async

from holdfast.core.identity import Identity
from holdfast.core.tenants import Fairness, Tenants
from holdfast.errors import ConfigError
from holdfast.gateway.dispatch import Dispatcher
from holdfast.gateway.engines import Engine
from holdfast.gateway.policy_file import read_policies
from holdfast.gateway.tenants import ApiKeys
from holdfast.policies.ours.tenant_quotas import Quota, TenantQuotas, TenantQuotasSettings

KEYS = ApiKeys({"key-of-the-flood-1": "flood", "key-of-the-small-1": "small"})


def quotas(**settings: object) -> TenantQuotas:
    return TenantQuotas(TenantQuotasSettings(**settings))  # type: ignore[arg-type]


@pytest.mark.parametrize("url_path", ["/v1/chat/completions", "/v1/messages", "/v1/responses"])
async def test_over_a_quota_the_api_says_when_to_come_again(url_path: str) -> None:
    engine = FakeEngine()
    body = chat("hello") | {"input": "hello"}
    async with gateway(engine, policies=[quotas(requests_per_min=2)]) as url:
        found = [await post(url, url_path, json=body) for _ in range(3)]
    assert [status for status, _, _ in found] == [200, 200, 429]
    _, text, headers = found[-1]
    assert int(headers["Retry-After"]) in (29, 30)
    assert "2 requests a minute" in json.loads(text)["error"]["message"]
    assert len(engine.requests) == 2


async def test_one_tenants_quota_is_no_others() -> None:
    policy = quotas(requests_per_min=1)
    async with gateway(FakeEngine(), keys=KEYS, policies=[policy]) as url:
        for key, expected in (("flood", 200), ("flood", 429), ("small", 200)):
            status, _, _ = await post(url, headers={"x-api-key": f"key-of-the-{key}-1"})
            assert status == expected


async def test_a_client_that_leaves_frees_its_place() -> None:
    answer = OneByOne()
    engine = FakeEngine(answer)
    async with (
        gateway(engine, policies=[quotas(max_concurrent=1)]) as url,
        aiohttp.ClientSession() as client,
    ):
        leaving = asyncio.create_task(client.post(f"{url}/v1/chat/completions", json=chat("a")))
        await until_async(lambda: len(engine.requests) == 1)
        assert (await post(url))[0] == 429
        (await leaving).close()
        await until_async(lambda: engine.num_cancelled == 1)
        answer.goes_on.set()
        assert (await post(url))[0] == 200


def send(gate: Gate, tenant: str, name: str, num_blocks: int = 10) -> str:
    """A turn of a new session."""
    pieces = path(name, num_blocks)
    gate.admission.arrived(name, pieces, Identity(name, tenant=tenant), gate.now_s)
    return name


def test_a_held_flood_delays_another_tenant_by_one_turn() -> None:
    order = {}
    for by in ("off", "tenants"):
        gate = warmed(12, tenants=Tenants(Fairness(by=by)))
        running = send(gate, "flood", "f0")
        assert gate.take() == [running]
        names = [send(gate, "flood", f"f{number}") for number in range(1, 6)]
        names.append(send(gate, "small", "s"))
        assert gate.take() == []
        taken: list[str] = []
        while len(taken) < len(names):
            gate.now_s += 1.0
            gate.admission.started(running, gate.now_s)
            gate.admission.ended(running, gate.now_s, 10)
            (running,) = gate.take()
            taken.append(running)
        order[by] = taken.index("s")
    assert order == {"off": 5, "tenants": 1}


def test_service_at_one_engine_counts_at_the_others() -> None:
    tenants = Tenants()
    here, there = warmed(12, tenants=tenants), warmed(40, tenants=tenants)
    running = send(here, "other", "o")
    assert here.take() == [running]
    send(here, "flood", "f1")
    send(here, "small", "s")
    assert here.take() == []
    assert there.now_s == here.now_s
    send(there, "flood", "f2", 20)
    assert there.take() == ["f2"]
    here.now_s += 1.0
    here.admission.ended(running, here.now_s, 10)
    assert here.take() == ["s"]


def test_engines_of_a_gateway_share_one_account() -> None:
    engines = [Engine("0", ""), Engine("1", "")]
    for engine in engines:
        engine.learn_capacity(4096)
    dispatcher = Dispatcher(engines, fairness=Fairness(weights={"flood": 2.0}))
    for number in range(4):
        name = f"f{number}"
        dispatcher.place(name, name, path(name, 8), 0.0, tenant="flood")
    assert {engine.num_in_flight for engine in engines} == {2}
    (flood,) = dispatcher.tenants.known()
    assert (flood.name, flood.num_turns, flood.weight) == ("flood", 4, 2.0)


def test_a_table_sets_weights_and_quotas(tmp_path: Path) -> None:
    file = tmp_path / "policies.toml"
    file.write_text(
        "[fairness]\nby = 'sessions'\nweights = { gold = 4 }\n"
        "[tenant-quotas]\nrequests_per_min = 60\n"
        "[tenant-quotas.tenants.gold]\ntokens_per_min = 1_000_000\n"
    )
    found = read_policies(file)
    assert found.fairness == Fairness(by="sessions", weights={"gold": 4.0})
    (policy,) = found.requests
    assert policy.settings == TenantQuotasSettings(
        requests_per_min=60, tenants={"gold": Quota(tokens_per_min=1e6)}
    )


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[fairness]\nby = 'luck'\n", "fairness: .*'luck'"),
        ("[fairness]\nweights = { gold = 0 }\n", "fairness: .*weights"),
        ("[fairness]\nweight = 2\n", "fairness: .*weight"),
        ("[tenant-quotas]\nmax_concurrent = 0\n", "policy 'tenant-quotas'"),
        ("[tenant-quotas.tenants.gold]\nrequests = 1\n", "policy 'tenant-quotas'"),
    ],
)
def test_wrong_tables_are_named(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "policies.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=says):
        read_policies(file)
