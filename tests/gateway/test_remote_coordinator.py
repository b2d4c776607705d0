"""Replicas go on while the owner of decisions is away."""

from __future__ import annotations

import asyncio
import json

import aiohttp
import pytest
from tests.gateway.owner_link import LEASE_S, OwnerHere, path
from tests.waiting import until_async

from holdfast.gateway.answer_tail import AnswerTail
from holdfast.gateway.coordinator import Asked
from holdfast.gateway.metrics import GatewayMetrics
from holdfast.gateway.prompt_path import PromptPath
from holdfast.gateway.refusal import Refusal
from holdfast.gateway.remote_coordinator import RemoteCoordinator


def body(*texts: str) -> bytes:
    return json.dumps({"messages": [{"role": "user", "content": text} for text in texts]}).encode()


def alone(replica: RemoteCoordinator) -> float:
    return sum(s.value for m in replica._metrics.placed_alone.collect() for s in m.samples[:1])


async def test_without_an_owner_all_replicas_hash_alike() -> None:
    world = OwnerHere(["http://a", "http://b", "http://c"])
    world.is_cut = True
    replicas = [world.replica(str(number)) for number in range(3)]
    await replicas[0].place(Asked("of this replica only", path("x")))
    used = set()
    for number in range(30):
        session_id = f"s{number}" if number % 2 else None
        text = body(f"question {number}", "more")
        asked = Asked(session_id, path(str(number)), body=text)
        placed = [await each.place(asked) for each in replicas]
        assert len({each.engine.name for each in placed}) == 1
        assert {each.reason for each in placed} == {"hash"}
        used.add(placed[0].engine.name)
    assert used == {"e0", "e1", "e2"}
    assert [alone(each) for each in replicas] == [31.0, 30.0, 30.0]


async def test_later_turns_without_id_hash_as_the_first() -> None:
    world = OwnerHere(["http://a", "http://b", "http://c"])
    world.is_cut = True
    one, two = world.replica("one"), world.replica("two")
    used = set()
    for number in range(12):
        opening = f"question {number}"
        first = await one.place(Asked(None, path("system", opening), body=body(opening)))
        later = Asked(None, path("system", opening, "more"), body=body(opening, "more"))
        assert (await two.place(later)).engine.name == first.engine.name
        used.add(first.engine.name)
    assert len(used) == 3


async def test_known_sessions_stay_while_the_owner_is_away() -> None:
    world = OwnerHere()
    one = world.replica("one")
    before = [(await one.place(Asked(f"s{n}", path(str(n))))).engine.name for n in range(10)]
    world.is_cut = True
    after = [await one.place(Asked(f"s{n}", path(str(n), "1"))) for n in range(10)]
    assert [each.engine.name for each in after] == before
    assert {(each.reason, each.missing_bytes) for each in after} == {("origin", 1000)}


async def test_a_dead_engine_is_passed_by_without_an_owner() -> None:
    world = OwnerHere()
    world.is_cut = True
    one = world.replica("one")
    first = await one.place(Asked("s", path("x")))
    one.lost(first.engine)
    second = await one.place(Asked("s", path("x"), without=(first.engine.name,)))
    assert second.engine.name != first.engine.name
    for number in range(10):
        placed = await one.place(Asked(f"s{number}", path(str(number))))
        assert placed.engine.name == second.engine.name
    with pytest.raises(Refusal) as refused:
        await one.place(Asked("s", path("x"), without=("e0", "e1")))
    assert refused.value.status == 503


async def test_requests_that_wait_go_when_the_owner_dies() -> None:
    world = OwnerHere(["http://a"])
    world.engines[0].learn_capacity(1000)
    one = world.replica("one")
    await one.place(Asked("x", PromptPath.of([b"x"], 3600)))
    held = Asked("y", PromptPath.of([b"y"], 3600))
    waiting = asyncio.ensure_future(one.place(held))
    await until_async(lambda: world.coordinator.dispatcher.held(world.engines[0])[0])
    world.is_cut = True
    await one._reported()
    assert one.is_away
    assert (await waiting).reason == "hash"
    world.is_cut = False
    await one._reported()
    assert not one.is_away


class Silent(OwnerHere):
    """An owner whose process hangs."""

    async def _pass(self) -> None:
        if self.is_cut:
            await asyncio.Event().wait()


async def test_an_owner_that_hangs_is_away() -> None:
    world = Silent()
    world.is_cut = True
    engines = world.known_engines()
    one = RemoteCoordinator("one", engines, world, LEASE_S, GatewayMetrics(), away_s=0.05)
    waiting = asyncio.ensure_future(one.place(Asked("s", path("x"))))
    await one._reported()
    assert (await waiting).reason == "hash"


async def test_reports_come_without_being_asked_for() -> None:
    world = OwnerHere()
    engines, metrics = world.known_engines(), GatewayMetrics()
    one = RemoteCoordinator("one", engines, world, LEASE_S, metrics, beat_s=0.01)
    async with aiohttp.ClientSession() as client:
        running = asyncio.ensure_future(one.run(client))
        await until_async(lambda: world.num_reports > 2)
        world.is_cut = True
        await until_async(lambda: one.is_away)
        world.is_cut = False
        world.restart()
        await until_async(lambda: not one.is_away)
        placed = await one.place(Asked("s", path("x")))
        one.ended(placed, AnswerTail(None, None, None))
        await until_async(lambda: all(e.num_in_flight == 0 for e in world.engines))
        await until_async(lambda: "one" in world.owner.replica_metrics())
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
