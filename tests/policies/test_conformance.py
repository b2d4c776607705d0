"""What every registered policy must do, whatever it decides, alone and in a product."""

from __future__ import annotations

import random
from copy import copy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.policies.host import HUMAN, TOOL, Cache, FixedOracle, hashes_of

from holdfast.policies.base import EvictionPolicy, Need
from holdfast.policies.engine_modes import ENGINE_MODES
from holdfast.policies.registry import policy_class, policy_names, policy_spec
from holdfast.tool_calls.turn_end import TurnEnd

NAMES = policy_names()
PRODUCTS = tuple(
    f"{name}+working-set"
    for name in NAMES
    if name not in ENGINE_MODES and issubclass(policy_class(name), EvictionPolicy)
)
"""Every eviction with our admission."""
SET = ("thunderagent:acting_half_life_s=inf:idle_lease_s=5", "llm-d-thunderagent:idle_lease_s=1")
"""Policies with settings."""
CAUSAL = [name for name in (*NAMES, *PRODUCTS, *SET) if Need.FUTURE not in policy_spec(name).needs]
NUM_BLOCKS = 24
ENDS = (TOOL, HUMAN, None)

every_policy = pytest.mark.parametrize("name", (*NAMES, *PRODUCTS, *SET))


def grown_sessions(seed: int, num_turns: int) -> list[tuple[str, str, int, float]]:
    """Turns of sessions that share a beginning, grow, and sometimes start over.

    Each is a session, its prompt, what ends it, and the pause before.
    """
    rng = random.Random(seed)
    prompts: dict[str, str] = {}
    turns = []
    for _ in range(num_turns):
        name = rng.choice("abcdef")
        prompt = prompts.get(name, "SY" + name)
        if len(prompt) > NUM_BLOCKS - 4 or rng.random() < 0.05:
            prompt = "SY" + name
        prompts[name] = prompt + rng.choice("012") * rng.randint(1, 3)
        turns.append((name, prompts[name], rng.randrange(len(ENDS)), rng.choice((0.1, 1.0, 30.0))))
    return turns


def ask_everything(cache: Cache) -> None:
    """Ask for every priority, reservation and prefetch."""
    policies = cache.runtime.policies
    for node in list(cache.runtime.tree.root.subtree()):
        if node.parent is not None:
            policies.eviction.priority(node)
    for session in cache.runtime.sessions:
        policies.eviction.session_priority(session)
        policies.admission.retains(session)
        policies.admission.idle_s(session)
    list(policies.prefetch.candidates())


@every_policy
def test_spec_has_name_summary_and_source(name: str) -> None:
    spec = policy_spec(name)
    assert spec.name == name
    assert spec.summary and spec.source


@every_policy
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_no_block_is_lost_or_evicted_while_in_use(name: str, seed: int) -> None:
    cache = Cache(name, NUM_BLOCKS)
    for index, (_, prompt, end, pause_s) in enumerate(grown_sessions(seed, 40)):
        cache.now_s += pause_s
        cache.run(f"r{index}", hashes_of(prompt), ENDS[end])
        cache.check()
        assert cache.queue.num_free_blocks == NUM_BLOCKS
    assert cache.num_stored == len(cache.cached) + len(cache.evicted)


@every_policy
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_block_is_evicted_before_those_it_extends(name: str, seed: int) -> None:
    cache = Cache(name, NUM_BLOCKS)
    for index, (_, prompt, end, pause_s) in enumerate(grown_sessions(seed, 40)):
        cache.now_s += pause_s
        cache.run(f"r{index}", hashes_of(prompt), ENDS[end])
        for content in cache.cached:
            assert len(content) == 1 or content[:-1] in cache.cached


@every_policy
def test_questions_do_not_change_what_is_evicted(name: str) -> None:
    orders = []
    for num_questions in (0, 3):
        cache = Cache(name, NUM_BLOCKS)
        for index, (_, prompt, end, pause_s) in enumerate(grown_sessions(7, 60)):
            cache.now_s += pause_s
            cache.run(f"r{index}", hashes_of(prompt), ENDS[end])
            for _ in range(num_questions):
                ask_everything(cache)
        orders.append(cache.evicted)
    assert orders[0] == orders[1]


@every_policy
def test_same_history_leads_to_the_same_evictions(name: str) -> None:
    orders = []
    for _ in range(2):
        cache = Cache(name, NUM_BLOCKS)
        for index, (_, prompt, end, pause_s) in enumerate(grown_sessions(11, 60)):
            cache.now_s += pause_s
            cache.run(f"r{index}", hashes_of(prompt), ENDS[end])
        orders.append(cache.evicted)
    assert orders[0] == orders[1]


@every_policy
def test_only_waiting_turns_are_admitted_each_once(name: str) -> None:
    cache = Cache(name, NUM_BLOCKS)
    for index in range(3):
        cache.run(f"warm{index}", hashes_of(f"SY{index}abc"))
    waiting = []
    for index in range(6):
        turn = cache.runtime.turn_arrived(f"w{index}", hashes_of(f"Z{index}" + "x" * index))
        turn.missing_blocks = turn.demand_blocks = turn.footprint_blocks = 2 + index
        waiting.append(turn)
    offers = cache.offers(list(waiting))
    assert offers
    assert len({turn.request_id for turn in offers}) == len(offers)
    assert all(turn in waiting for turn in offers)


@every_policy
def test_admission_changes_nothing_in_the_policy(name: str) -> None:
    cache = Cache(name, NUM_BLOCKS)
    for index, (_, prompt, end, pause_s) in enumerate(grown_sessions(5, 20)):
        cache.now_s += pause_s
        cache.run(f"r{index}", hashes_of(prompt), ENDS[end])
    waiting = [cache.arrive(f"w{n}", hashes_of(f"Z{n}" + "x" * 5 * n)) for n in range(4)]
    cache.at(cache.now_s + 60.0)
    admission = cache.runtime.policies.admission
    budget = cache.runtime._reservations.budget(4, 8, 1, admission)
    books = [book for book in vars(admission).values() if isinstance(book, dict | set | list)]
    before = [copy(book) for book in books]
    first = admission.admit(waiting, budget)
    assert books == before
    assert list(admission.admit(waiting, budget).admitted) == list(first.admitted)


@every_policy
def test_only_reserved_sessions_are_released(name: str) -> None:
    cache = Cache(name, NUM_BLOCKS)
    for index, (_, prompt, end, pause_s) in enumerate(grown_sessions(3, 30)):
        cache.now_s += pause_s
        cache.run(f"r{index}", hashes_of(prompt), ENDS[end])
    cache.at(cache.now_s + 1000.0)
    reserved = {session for session in cache.runtime.sessions if session.has_reservation}
    admission = cache.admit([cache.arrive("new", hashes_of("Z" * NUM_BLOCKS))])
    assert set(admission.released) <= reserved
    assert len(set(admission.released)) == len(admission.released)
    assert not any(session.has_reservation for session in admission.released)


@every_policy
def test_unknown_ends_and_closed_sessions_are_accepted(name: str) -> None:
    cache = Cache(name, NUM_BLOCKS)
    cache.run("r0", hashes_of("abc"), None)
    cache.run("r1", hashes_of("abcd"), TurnEnd("unknown", ()))
    (session,) = cache.runtime.sessions
    cache.runtime.session_closed(session)
    cache.run("r2", hashes_of("xyz"))
    turn = cache.runtime.turn_arrived("aborted", hashes_of("mno"))
    cache.runtime.turn_ended(turn, [], None)
    cache.queue.forget_content()
    cache.runtime.content_dropped()
    cache.cached.clear()
    cache.run("r3", hashes_of("abc"))
    cache.check()


@every_policy
def test_nothing_is_remembered_of_forgotten_sessions(name: str) -> None:
    cache = Cache(name, NUM_BLOCKS)
    cache.runtime.sessions.max_sessions = 2
    for index, (_, prompt, end, pause_s) in enumerate(grown_sessions(5, 40)):
        cache.now_s += pause_s
        cache.run(f"r{index}", hashes_of(prompt), ENDS[end])
    assert len(cache.runtime.sessions) == 2
    for memory in cache.runtime._memories:
        assert set(memory) <= set(cache.runtime.sessions)


@settings(max_examples=40, deadline=None)
@given(
    accesses=st.lists(st.integers(0, 7), min_size=10, max_size=60),
    pauses=st.lists(st.sampled_from((0.5, 2.0, 20.0)), min_size=60, max_size=60),
    num_blocks=st.integers(2, 6),
)
def test_no_causal_policy_beats_the_bound_at_equal_costs(
    accesses: list[int], pauses: list[float], num_blocks: int
) -> None:
    """Sessions of one block that never grow: Belady's own setting, where his order is optimal."""
    starts_s, time_s = [], 0.0
    for pause_s in pauses[: len(accesses)]:
        time_s += pause_s
        starts_s.append(time_s)
        time_s += 0.1
    oracle = FixedOracle()
    for index, session in enumerate(accesses):
        later = [i for i in range(index + 1, len(accesses)) if accesses[i] == session]
        if later:
            oracle.gaps_s[f"r{index}"] = starts_s[later[0]] - starts_s[index] - 0.1
    evictions = {}
    for name in ("clairvoyant", *CAUSAL):
        cache = Cache(name, num_blocks, oracle)
        for index, session in enumerate(accesses):
            cache.now_s = starts_s[index]
            cache.run(f"r{index}", [f"s{session}".encode()])
        evictions[name] = len(cache.evicted)
    assert all(evictions["clairvoyant"] <= count for count in evictions.values()), evictions
