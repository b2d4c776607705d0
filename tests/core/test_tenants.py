"""Tenants share the engine: none lives at the expense of the others."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.policies.host import Cache, hashes_of

from holdfast.cache.prefix_tree import PrefixTree
from holdfast.core.identity import Identity
from holdfast.core.session import Session, SessionState
from holdfast.core.tenants import Account, Fairness, Tenant, Tenants, account_name
from holdfast.core.turn import Turn
from holdfast.runtime.wait_bound import WaitBound


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

    def __init__(self, tenants: Tenants | None = None) -> None:
        self.cache = Cache("holdfast", 64, tenants=tenants)
        self.waiting: list[Turn] = []
        self._num_prompts = 0

    def send(self, tenant: str, num_blocks: int, session_id: str | None = None) -> None:
        self._num_prompts += 1
        runtime = self.cache.runtime
        prompt = [f"{self._num_prompts}/{i}".encode() for i in range(num_blocks)]
        turn = runtime.turn_arrived(
            f"r{self._num_prompts}", prompt, Identity(session_id, tenant=tenant), 0
        )
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


# Weights, sessions, and the bound, by the accounts alone.


@pytest.mark.parametrize(
    ("cache_salt", "name"),
    [("", ""), ("gold", "gold"), ("gold:1f", "gold"), ("gold:1f:2", "gold"), (":x", "")],
)
def test_a_tenants_own_salts_are_one_account(cache_salt: str, name: str) -> None:
    assert account_name(cache_salt) == name
    tenants = Tenants()
    assert tenants.enter(cache_salt) is tenants.enter(name)


def test_service_counts_by_weight() -> None:
    tenants = Tenants(Fairness(weights={"gold": 4.0}))
    gold, plain = tenants.enter("gold"), tenants.enter("plain")
    for tenant in (gold, plain):
        tenants.start(tenant, Account(), 2.0)
    assert (gold.served_s, plain.served_s) == (0.5, 2.0)


def test_without_fairness_nothing_counts() -> None:
    tenants = Tenants(Fairness(by="off"))
    tenant, session = tenants.enter("a"), Account()
    tenants.start(tenant, session, 2.0)
    assert (tenant.served_s, session.served_s) == (0.0, 0.0)


@pytest.mark.parametrize(("by", "served_s"), [("tenants", 0.0), ("sessions", 3.0)])
def test_sessions_count_inside_their_tenant(by: str, served_s: float) -> None:
    tenants = Tenants(Fairness(by=by))  # type: ignore[arg-type]
    long, new = Account(), Account()
    tenant = tenants.enter("a", long)
    tenants.start(tenant, long, 3.0)
    assert long.served_s == served_s
    tenants.enter("a", long)
    tenants.enter("a", new)
    assert new.served_s == served_s  # it starts level with those that wait


def test_who_waits_alone_after_others_starts_level_with_the_last() -> None:
    tenants = Tenants()
    busy = tenants.enter("busy")
    tenants.start(busy, Account(), 7.0)
    # None waits now; 5 s less than the last that did would be credit.
    assert tenants.enter("late").served_s == 7.0


def test_a_tenant_that_only_runs_saves_up_nothing() -> None:
    tenants = Tenants()
    resting, busy = tenants.enter("resting"), tenants.enter("busy")
    tenants.start(resting, Account(), 1.0)  # its turn runs on, and it asks for no other
    for _ in range(5):
        tenants.start(busy, Account(), 2.0)
        tenants.enter("busy")
    assert tenants.enter("resting").served_s == busy.served_s == 10.0


bursts = st.tuples(st.integers(0, 3), st.integers(0, 8), st.floats(0.1, 10.0), st.integers(0, 9))
"""A tenant's turns that come at once, their price, and the turns served after that."""


@given(
    st.lists(bursts, max_size=40),
    st.lists(st.sampled_from([0.5, 1.0, 4.0]), min_size=4, max_size=4),
    st.sampled_from(["tenants", "sessions"]),
)
def test_no_tenant_waits_while_another_exceeds_its_part(
    moves: list[tuple[int, int, float, int]], weights: list[float], by: str
) -> None:
    """While two tenants wait, neither is served more than the other by more than one turn each.

    Service is over weight, and a turn's is its price over its tenant's weight.
    """
    tenants = Tenants(Fairness(by=by, weights=dict(zip("0123", weights, strict=True))))  # type: ignore[arg-type]
    accounts = {(t, s): Account() for t in range(4) for s in range(3)}
    waiting: list[tuple[int, int, float, int]] = []
    served = [0.0] * 4
    since: dict[tuple[int, int], float] = {}  # difference of service when both began to wait
    most = [0.0] * 4
    for sender, num_sent, cost, num_served in moves:
        for number in range(num_sent):
            waiting.append((sender, number % 3, cost, len(waiting)))
            tenants.enter(str(sender), accounts[sender, number % 3])
            most[sender] = max(most[sender], cost / weights[sender])
        for _ in range(num_served):
            if not waiting:
                break
            known = {t.name: t for t in tenants.known()}
            chosen = min(
                waiting,
                key=lambda w: (known[str(w[0])].served_s, accounts[w[0], w[1]].served_s, w[3]),
            )
            waiting.remove(chosen)
            tenant, session, price, _ = chosen
            tenants.start(known[str(tenant)], accounts[tenant, session], price)
            served[tenant] += price / weights[tenant]
            since = checked(since, {each[0] for each in waiting}, served, most)
        since = checked(since, {each[0] for each in waiting}, served, most)


def checked(
    since: dict[tuple[int, int], float], now: set[int], served: list[float], most: list[float]
) -> dict[tuple[int, int], float]:
    """For each pair that waits: the difference of service from which on both have waited."""
    pairs = {(a, b) for a in now for b in now if a != b}
    since = {pair: since.get(pair, served[pair[0]] - served[pair[1]]) for pair in pairs}
    for a, b in pairs:
        assert served[a] - served[b] - since[a, b] <= most[a] + most[b] + 1e-9
    return since


def test_a_flood_is_due_by_its_own_turns_alone() -> None:
    bound = WaitBound(2.0, by_tenant=True)
    flood, gold, idle = Tenant(name="flood"), Tenant(name="gold", weight=3.0), Tenant(name="idle")
    turns = [bounded(bound, flood, 5.0) for _ in range(3)]
    # Alone it has all of the engine.
    assert [turn.due_s for turn in turns] == [10.0, 20.0, 30.0]
    # A quarter of the engine is the flood's, three quarters gold's: 2 s take 8/3 s.
    assert bounded(bound, gold, 2.0).due_s == pytest.approx(2 * 2.0 * 4 / 3)
    assert bounded(bound, flood, 5.0).due_s == pytest.approx(2 * 20.0 * 4)
    for turn in turns:
        bound.leave(turn)
    assert bounded(bound, idle, 1.0).due_s == pytest.approx(2 * 1.0 * 5)


def bounded(bound: WaitBound, tenant: Tenant, cold_s: float) -> Turn:
    root = PrefixTree[Any]().root
    turn = Turn("r", Session(0, None, SessionState.WAITING, root, root), 0, 0, tenant)
    bound.enter(turn, cold_s)
    return turn


def test_a_modest_tenants_first_token_does_not_wait_for_a_flood() -> None:
    served = {}
    for by in ("off", "tenants"):
        engine = Engine(Tenants(Fairness(by=by)))
        for _ in range(20):
            engine.send("flood", 10)
        engine.serve()
        engine.send("small", 10)
        served[by] = [engine.serve().tenant.name for _ in range(20)].index("small")
    assert served["off"] == 19 and served["tenants"] <= 1


def test_sessions_of_a_tenant_take_turns() -> None:
    engine = Engine(Tenants(Fairness(by="sessions")))
    for _ in range(3):
        engine.send("a", 10, "long")
    engine.send("a", 10, "new")
    order = [str(engine.serve().session.group).partition("\x00")[2] for _ in range(4)]
    assert order == ["long", "new", "long", "long"]
