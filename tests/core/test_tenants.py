"""Tenants share the engine: none lives at the expense of the others."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.policies.host import Cache, hashes_of

from holdfast.core.identity import Identity
from holdfast.core.tenants import Tenants
from holdfast.core.turn import Turn


def test_a_new_tenant_starts_with_the_least_service() -> None:
    tenants = Tenants()
    tenants.enter("a").served_s = 50.0
    tenants.enter("b").served_s = 70.0
    assert tenants.enter("c").served_s == 50.0


def test_no_tenant_saves_up_service_by_staying_away() -> None:
    tenants = Tenants()
    away, busy = tenants.enter("away"), tenants.enter("busy")
    tenants.leave(away)
    busy.served_s = 100.0
    assert tenants.enter("away") is away
    assert away.served_s == 100.0


def test_no_tenant_sheds_its_service_by_leaving() -> None:
    tenants = Tenants()
    greedy = tenants.enter("greedy")
    tenants.enter("other").served_s = 1.0
    greedy.served_s = 100.0
    tenants.leave(greedy)
    assert tenants.enter("greedy").served_s == 100.0


def test_a_tenant_counts_as_there_until_its_last_turn_has_left() -> None:
    tenants = Tenants()
    one = tenants.enter("one")
    tenants.enter("one")
    tenants.leave(one)
    one.served_s = 5.0
    assert tenants.enter("two").served_s == 5.0


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), max_size=80))
def test_turns_are_counted_and_none_is_lost(moves: list[tuple[bool, int]]) -> None:
    tenants = Tenants()
    inside: dict[int, list] = {}  # type: ignore[type-arg]
    for enters, number in moves:
        if enters:
            inside.setdefault(number, []).append(tenants.enter(str(number)))
        elif inside.get(number):
            tenants.leave(inside[number].pop())
        for known, entered in inside.items():
            assert all(tenant.num_turns == len(entered) for tenant in entered), known


def test_only_so_many_idle_tenants_are_remembered() -> None:
    tenants = Tenants()
    for number in range(3000):
        tenants.leave(tenants.enter(str(number)))
    assert len(tenants._idle) <= 1024


class Engine:
    """Runs one cold turn at a time, chosen by the runtime among all that wait."""

    def __init__(self) -> None:
        self.cache = Cache("holdfast", 64)
        self.waiting: list[Turn] = []
        self._num_prompts = 0

    def send(self, tenant: str, num_blocks: int) -> None:
        self._num_prompts += 1
        runtime = self.cache.runtime
        prompt = [f"{self._num_prompts}/{i}".encode() for i in range(num_blocks)]
        turn = runtime.turn_arrived(f"r{self._num_prompts}", prompt, Identity(tenant=tenant), 0)
        turn.missing_blocks = turn.demand_blocks = num_blocks
        turn.due_s = float("inf")
        self.waiting.append(turn)

    def serve(self) -> Turn:
        runtime = self.cache.runtime
        chosen = runtime.admit(self.waiting, blocks=1, slots=1, num_running=0).admitted[0]
        self.waiting.remove(chosen)
        runtime.turn_started(chosen)
        runtime.turn_ended(chosen, [], None)
        return chosen


def test_a_flood_does_not_keep_another_tenant_waiting() -> None:
    engine = Engine()
    for _ in range(20):
        engine.send("flood", 10)
    engine.serve()
    engine.send("small", 10)
    # It starts level with the flood, which came first and is served once more at most.
    served = [engine.serve().tenant.name for _ in range(2)]
    assert "small" in served


@pytest.mark.parametrize("num_rounds", [30])
def test_tenants_that_always_wait_get_equal_time(num_rounds: int) -> None:
    engine = Engine()
    for _ in range(num_rounds):
        engine.send("long", 12)
        engine.send("short", 3)
    served = {"long": 0, "short": 0}
    for _ in range(num_rounds):
        turn = engine.serve()
        served[turn.tenant.name] += turn.missing_blocks
    assert abs(served["long"] - served["short"]) <= 12


def test_of_one_tenant_turns_go_by_arrival() -> None:
    engine = Engine()
    for num_blocks in (9, 3, 12, 1):
        engine.send("", num_blocks)
    assert [engine.serve().sequence for _ in range(4)] == [1, 2, 3, 4]


def test_a_turn_that_is_due_goes_before_the_least_served_tenant() -> None:
    engine = Engine()
    engine.send("flood", 10)
    engine.send("flood", 10)
    engine.serve()
    engine.waiting[0].due_s = 0.0
    engine.send("small", 10)
    assert engine.serve().tenant.name == "flood"


def test_what_is_cached_costs_a_tenant_nothing() -> None:
    engine = Engine()
    runtime = engine.cache.runtime
    turn = runtime.turn_arrived("warm", hashes_of("abcd"), Identity(tenant="a"), 0)
    turn.missing_blocks, turn.resident_blocks = 1, 3
    runtime.turn_started(turn)
    # One block of 16 tokens at 0.1 s a token.
    assert turn.tenant.served_s == pytest.approx(1.6)
