"""A running gateway counts prompts that do not extend their session's last one."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from tests.gateway.fake_engine import FIRST, FakeEngine, gateway
from tests.gateway.test_forwarding import post
from tests.waiting import until_async

from holdfast.bench.engine_totals import engine_explanation
from holdfast.core.prompt_history import PromptHistory
from holdfast.core.request_body import RequestBody
from holdfast.gateway.tenants import ApiKeys
from holdfast.policies.requests import Refused, Request, RequestPolicy
from holdfast.policies.spec import PolicySpec

TOTAL = "holdfast_gateway_changed_prompts_total"
TOKENS = "holdfast_gateway_changed_prompt_tokens_total"
LONG = "word " * 800
CLAUDE = {"User-Agent": "claude-cli/2.1.332", "X-Claude-Code-Session-Id": "s1"}


def chat(day: str, num_turns: int = 1) -> dict[str, Any]:
    messages = [{"role": "system", "content": f"{LONG}\nToday is {day}."}]
    for number in range(num_turns):
        messages += [{"role": "user", "content": f"question {number} {LONG}"}]
        messages += [{"role": "assistant", "content": f"answer {number}"}]
    return {"model": "m", "messages": messages[:-1]}


async def test_a_prompt_that_grew_is_not_counted() -> None:
    async with gateway(FakeEngine()) as url:
        for num_turns in (1, 2, 2, 3):
            await post(url, json=chat("2026-11-28", num_turns), headers=CLAUDE)
        await url.compared()
        assert (url.counted(TOTAL), url.counted("holdfast_gateway_prompts_total")) == (0, 4)


async def test_changed_prompts_are_counted_by_kind_and_client() -> None:
    async with gateway(FakeEngine()) as url:
        await post(url, json=chat("2026-11-28"), headers=CLAUDE)
        await post(url, json=chat("2026-11-29", 2), headers=CLAUDE)
        await url.compared()
        (metric,) = url.gateway.metrics.prompts.changed.collect()
        samples = metric.samples
        labels = [sample.labels for sample in samples if sample.name == TOTAL]
        assert labels == [{"change": "date", "client": "Claude Code"}]
        assert url.counted(TOTAL) == 1
        assert url.counted(TOKENS) == pytest.approx(len(LONG) / 4, rel=0.3)


async def test_what_a_policy_repairs_is_not_counted() -> None:
    class Dateless(RequestPolicy):
        spec = PolicySpec("dateless", "Takes dates out.", "these tests")

        def rewrite(self, request: Request) -> bytes | None:
            return request.body.text.replace(b"2026-11-29", b"2026-11-28")

    async with gateway(FakeEngine(), policies=[Dateless()]) as url:
        await post(url, json=chat("2026-11-28"), headers=CLAUDE)
        await post(url, json=chat("2026-11-29", 2), headers=CLAUDE)
        await url.compared()
        assert url.counted(TOTAL) == 0


async def test_counting_tokens_is_no_turn() -> None:
    body = {"model": "m", "system": LONG, "messages": [{"role": "user", "content": "a"}]}
    async with gateway(FakeEngine()) as url:
        await post(url, "/v1/messages", json=body, headers=CLAUDE)
        await post(url, "/v1/messages/count_tokens", json=body | {"system": "x"}, headers=CLAUDE)
        await url.compared()
        assert url.counted(TOTAL) == 0


async def test_tenants_do_not_see_each_others_prompts() -> None:
    keys = ApiKeys({"k1": "t1", "k2": "t2"})
    async with gateway(FakeEngine(), keys=keys) as url:
        for key, day in (("k1", "2026-11-28"), ("k2", "2026-11-29")):
            headers = {**CLAUDE, "Authorization": f"Bearer {key}"}
            status, _, _ = await post(url, json=chat(day, 2), headers=headers)
            assert status == 200
        await url.compared()
        assert url.counted(TOTAL) == 0


async def test_explain_reads_a_gateway() -> None:
    class Refuser(RequestPolicy):
        spec = PolicySpec("refuser", "Refuses a model.", "these tests")

        def refuse(self, request: Request) -> Refused | None:
            return Refused("no", 429) if b'"other"' in request.body.text else None

    async with gateway(FakeEngine(), policies=[Refuser()]) as url:
        await post(url, json={**chat("2026-11-27"), "model": "other"}, headers=CLAUDE)
        await post(url, json=chat("2026-11-28"), headers=CLAUDE)
        await post(url, json=chat("2026-11-29", 2), headers=CLAUDE)
        await url.compared()
        url.gateway.metrics.prompts.sent()  # one more, which is not compared
        url.gateway.metrics.prompts.skipped("busy")
        runner = web.AppRunner(url.gateway.admin_app())
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        port = runner.addresses[0][1]
        found = await asyncio.to_thread(engine_explanation, f"http://127.0.0.1:{port}")
        await runner.cleanup()
    assert found.verdict.startswith("1 of 2 prompts did not extend their session's last one")
    (cause,) = found.causes
    assert (cause.reason, cause.num_turns) == ("mutated:date", 1)
    assert "rule dates" in cause.remedy
    assert found.actions == {"refuser": {"refused": 1}}


async def test_requests_do_not_wait_for_comparisons(monkeypatch: pytest.MonkeyPatch) -> None:
    num_steps, most_at_once = 0, 0

    def long(*_: object) -> Iterator[None]:
        nonlocal num_steps, most_at_once
        while most_at_once < 1_000_000:  # of which a slice has a hundredth
            num_steps += 1
            most_at_once = max(most_at_once, num_steps)
            yield

    async def others() -> None:
        nonlocal num_steps
        while True:
            num_steps = 0
            await asyncio.sleep(0)

    monkeypatch.setattr(PromptHistory, "comparing", long)
    async with gateway(FakeEngine()) as url:
        task = asyncio.create_task(others())
        for _ in range(3):
            status, _, _ = await post(url, json=chat("2026-11-28"), headers=CLAUDE)
            assert status == 200
        await until_async(lambda: most_at_once)
        assert url.counted("holdfast_gateway_prompts_total") == 3
        assert most_at_once < 1_000_000
        task.cancel()


async def test_an_open_answer_does_not_keep_its_request() -> None:
    async def held(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(FIRST)
        await released.wait()
        return response

    released = asyncio.Event()
    engine = FakeEngine(held)
    body = {**chat("2026-11-28"), "user": "of this test"}
    async with (
        gateway(engine) as url,
        aiohttp.ClientSession() as client,
        client.post(f"{url}/v1/chat/completions", json=body, headers=CLAUDE) as answer,
    ):
        await answer.content.readany()
        await url.compared()
        gc.collect()
        bodies = [each for each in gc.get_objects() if type(each) is RequestBody]
        assert not [each for each in bodies if each.value("user") == "of this test"]
        released.set()
