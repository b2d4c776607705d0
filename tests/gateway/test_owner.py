"""One owner decides for several replicas; any of them may die."""

from __future__ import annotations

import asyncio
from time import monotonic

import pytest
from tests.gateway.owner_link import OwnerHere, path
from tests.waiting import LONGEST_S, until_async

from holdfast.gateway.answer_tail import AnswerTail
from holdfast.gateway.coordinator import Asked, Placed
from holdfast.gateway.owner import Owner
from holdfast.gateway.owner_messages import Ended, Known, Refused, Report
from holdfast.gateway.prompt_path import PromptPath
from holdfast.gateway.refusal import Refusal
from holdfast.gateway.remote_coordinator import RemoteCoordinator

TAIL = AnswerTail(100, 10, None)


async def finished(replica: RemoteCoordinator, asked: Asked) -> Placed:
    """A whole request, and the report of its end."""
    placed = await replica.place(asked)
    replica.started(placed)
    replica.ended(placed, TAIL)
    await replica._reported()
    return placed


def in_flight(world: OwnerHere) -> int:
    return sum(engine.num_in_flight for engine in world.engines)


@pytest.mark.parametrize("session_id", ["s", None])
async def test_replicas_send_a_session_to_one_engine(session_id: str | None) -> None:
    world = OwnerHere()
    one, two = world.replica("one"), world.replica("two")
    first = await finished(one, Asked(session_id, path("x")))
    for turn in range(1, 5):
        texts = [str(number) for number in range(turn)]
        placed = await finished((one, two)[turn % 2], Asked(session_id, path("x", *texts)))
        assert (placed.engine.name, placed.reason) == (first.engine.name, "origin")
    assert in_flight(world) == 0


async def test_new_sessions_go_where_other_replicas_sent_less() -> None:
    world = OwnerHere()
    replicas = [world.replica(str(number)) for number in range(4)]
    placed = [await r.place(Asked(str(n), path(str(n)))) for n, r in enumerate(replicas)]
    assert sorted(each.engine.name for each in placed) == ["e0", "e0", "e1", "e1"]


async def test_requests_that_come_together_all_go() -> None:
    world = OwnerHere()
    replicas = [world.replica(str(number)) for number in range(2)]
    asked = [Asked(f"s{number}", path(str(number))) for number in range(12)]
    async with asyncio.timeout(LONGEST_S):
        await asyncio.gather(*(replicas[n % 2].place(each) for n, each in enumerate(asked)))
    assert in_flight(world) == 12
    assert world.coordinator._held == {}


async def test_a_new_owner_learns_where_sessions_were() -> None:
    world = OwnerHere()
    one, two = world.replica("one"), world.replica("two")
    before = {
        name: (await finished(one, Asked(name, path(name)))).engine.name for name in "abcdefgh"
    }
    world.restart()
    await one._reported()
    await two._reported()
    after = {name: await finished(two, Asked(name, path(name, "1"))) for name in before}
    assert {name: placed.engine.name for name, placed in after.items()} == before
    assert {placed.reason for placed in after.values()} == {"origin"}
    assert {placed.missing_bytes for placed in after.values()} == {1000}


async def test_the_latest_news_of_a_session_counts() -> None:
    world = OwnerHere()
    one, two = world.replica("one"), world.replica("two")
    asked = Asked("s", path("x"))
    first = (await finished(one, asked)).engine.name
    moved = await finished(two, asked._replace(without=(first,)))
    world.restart()
    await two._reported()
    await one._reported()
    assert (await finished(one, asked)).engine.name == moved.engine.name != first


async def test_requests_of_a_silent_replica_are_over() -> None:
    world = OwnerHere()
    one, two = world.replica("one"), world.replica("two")
    await one.place(Asked("s", path("x")))
    await two._reported()
    assert in_flight(world) == 1
    world.owner.forget_silent(monotonic() + 9.0)
    assert in_flight(world) == 1
    world.owner.forget_silent(monotonic() + 11.0)
    assert in_flight(world) == 0
    await one._reported()  # it was only slow: it joins again
    await finished(one, Asked("s", path("x")))
    assert in_flight(world) == 0


async def test_a_lost_report_is_made_up_for_by_the_next() -> None:
    world = OwnerHere()
    one = world.replica("one")
    placed = await one.place(Asked("s", path("x")))
    one.ended(placed, TAIL)
    one._events.clear()
    await one._reported()
    assert in_flight(world) == 0


async def test_a_request_that_left_before_it_arrived_is_not_counted() -> None:
    world = OwnerHere()
    world.owner.join("one", Known())
    world.owner.report("one", Report(5, frozenset()))
    reply = await world.owner.place("one", 4, Asked("s", path("x")))
    assert isinstance(reply, Refused)
    assert in_flight(world) == 0


async def held_world() -> tuple[OwnerHere, RemoteCoordinator, asyncio.Task[Placed]]:
    """An engine that is full, and a request that waits for it."""
    world = OwnerHere(["http://a"])
    world.engines[0].learn_capacity(1000)
    one = world.replica("one")
    first, second = (PromptPath.of([name], 3600) for name in (b"x", b"y"))
    await one.place(Asked("x", first))
    waiting = asyncio.ensure_future(one.place(Asked("y", second)))
    await until_async(lambda: world.coordinator.dispatcher.held(world.engines[0])[0])
    return world, one, waiting


async def test_a_held_request_goes_when_another_ends() -> None:
    _, one, waiting = await held_world()
    assert not waiting.done()
    number = min(one._open)
    one.ended(Placed(str(number), one._engines["e0"], "space", 0, "x"), TAIL)
    await one._reported()
    assert (await waiting).engine.name == "e0"


async def test_a_client_that_leaves_while_held_frees_its_request() -> None:
    world, one, waiting = await held_world()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await one._reported()
    assert in_flight(world) == 1
    assert world.coordinator.dispatcher.held(world.engines[0])[0] == 0
    assert world.coordinator._held == {}


async def test_a_dead_replicas_held_request_is_answered() -> None:
    """The owner's call must end, or calls of dead replicas would pile up."""
    world, _, waiting = await held_world()
    world.owner.forget_silent(monotonic() + 11.0)
    with pytest.raises(Refusal):
        await waiting
    assert in_flight(world) == 0


async def test_stored_answers_go_to_their_engine_and_tenant() -> None:
    world = OwnerHere()
    one, two = world.replica("one"), world.replica("two")
    placed = await one.place(Asked("s", path("x"), "gold"))
    one.answered("resp_1", placed.engine, "gold")
    await one._reported()
    await two._reported()
    for _ in range(2):
        asked = Asked(None, path("z"), "gold", "resp_1")
        assert (await two.place(asked)).engine.name == placed.engine.name
        with pytest.raises(Refusal) as refused:
            await two.place(asked._replace(tenant="other"))
        assert refused.value.status == 404
        world.restart()
        await one._reported()


async def test_an_engine_that_one_replica_finds_dead_is_dead_for_all() -> None:
    world = OwnerHere()
    one, two = world.replica("one"), world.replica("two")
    await one._reported()
    one.lost(one._engines["e0"])
    await one._reported()
    await one._reported()
    await two._reported()
    await two._reported()
    assert not two._engines["e0"].is_up
    assert (await two.place(Asked("s", path("x")))).reason == "only"


def test_unknown_requests_and_engines_are_ignored() -> None:
    world = OwnerHere()
    owner: Owner = world.owner
    owner.join("one", Known())
    report = Report(9, frozenset(), (Ended(3, TAIL),), metrics="a 1\n")
    assert owner.report("one", report) is not None
    assert owner.replica_metrics() == {"one": "a 1\n"}
    assert owner.state()["replicas"] == [{"name": "one", "requests": 0}]
