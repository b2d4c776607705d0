"""What every registered policy must do, whatever it decides."""

from __future__ import annotations

import random
from importlib.metadata import EntryPoint
from typing import ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.policies.host import Cache, FixedOracle, chain

from holdfast.errors import PolicyError
from holdfast.policies import registry
from holdfast.policies.base import EvictionPolicy, Need, PolicySpec
from holdfast.policies.registry import (
    build_policies,
    policy_class,
    policy_names,
    policy_spec,
    policy_specs,
)
from holdfast.runtime.runtime import AgentRuntime
from holdfast.tool_calls.turn_end import TurnEnd

NAMES = policy_names()
CAUSAL = [name for name in NAMES if Need.FUTURE not in policy_spec(name).needs]
NUM_BLOCKS = 24
ENDS = (TurnEnd("tool", ()), TurnEnd("human", ()), None)


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


@pytest.mark.parametrize("name", NAMES)
def test_it_says_what_it_is_and_where_it_comes_from(name: str) -> None:
    spec = policy_spec(name)
    assert spec.name == name
    assert spec.summary and spec.source


def test_no_two_policies_share_a_name() -> None:
    names = [spec.name for spec in policy_specs()]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_blocks_are_neither_lost_nor_given_away_while_in_use(name: str, seed: int) -> None:
    cache = Cache(name, NUM_BLOCKS)
    for index, (_, prompt, end, pause_s) in enumerate(grown_sessions(seed, 40)):
        cache.now_s += pause_s
        cache.run(f"r{index}", chain(prompt), ENDS[end])
        cache.check()
        assert cache.queue.num_free_blocks == NUM_BLOCKS
    assert cache.num_stored == len(cache.cached) + len(cache.evicted)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_a_cached_block_is_never_left_without_the_blocks_before_it(name: str, seed: int) -> None:
    cache = Cache(name, NUM_BLOCKS)
    for index, (_, prompt, end, pause_s) in enumerate(grown_sessions(seed, 40)):
        cache.now_s += pause_s
        cache.run(f"r{index}", chain(prompt), ENDS[end])
        for content in cache.cached:
            assert len(content) == 1 or content[:-1] in cache.cached


@pytest.mark.parametrize("name", NAMES)
def test_asking_changes_nothing(name: str) -> None:
    """The order of victims is the same however often worths are asked for in between."""
    orders = []
    for num_questions in (0, 3):
        cache = Cache(name, NUM_BLOCKS)
        for index, (_, prompt, end, pause_s) in enumerate(grown_sessions(7, 60)):
            cache.now_s += pause_s
            cache.run(f"r{index}", chain(prompt), ENDS[end])
            for _ in range(num_questions):
                policies = cache.runtime.policies
                for node in list(cache.runtime.tree.root.subtree()):
                    if node.parent is not None:
                        policies.eviction.priority(node)
                for session in cache.runtime.sessions:
                    policies.eviction.session_priority(session)
                    policies.admission.retains(session)
        orders.append(cache.evicted)
    assert orders[0] == orders[1]


@pytest.mark.parametrize("name", NAMES)
def test_it_never_offers_what_does_not_wait_nor_anything_twice(name: str) -> None:
    cache = Cache(name, NUM_BLOCKS)
    for index in range(3):
        cache.run(f"warm{index}", chain(f"SY{index}abc"))
    waiting = []
    for index in range(6):
        turn = cache.runtime.turn_arrived(f"w{index}", chain(f"Z{index}" + "x" * index), None)
        turn.missing_blocks = turn.demand_blocks = turn.footprint_blocks = 2 + index
        waiting.append(turn)
    offers = cache.offers(list(waiting))
    assert offers
    assert len({turn.request_id for turn in offers}) == len(offers)
    assert all(turn in waiting for turn in offers)


@pytest.mark.parametrize("name", NAMES)
def test_unknown_endings_and_sessions_that_vanish_are_taken_in_stride(name: str) -> None:
    cache = Cache(name, NUM_BLOCKS)
    cache.run("r0", chain("abc"), None)
    cache.run("r1", chain("abcd"), TurnEnd("unknown", ()))
    (session,) = cache.runtime.sessions
    cache.runtime.session_closed(session)
    cache.run("r2", chain("xyz"))
    turn = cache.runtime.turn_arrived("aborted", chain("mno"), None)
    cache.runtime.turn_ended(turn, [], None)
    cache.queue.forget_content()
    cache.runtime.content_dropped()
    cache.cached.clear()
    cache.run("r3", chain("abc"))
    cache.check()


@pytest.mark.parametrize("name", [name for name in NAMES if name not in CAUSAL])
def test_the_future_is_refused_where_there_is_none(name: str) -> None:
    with pytest.raises(PolicyError, match="future"):
        AgentRuntime(max_sessions=10, max_wait_ratio=1.5, policy=name)


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(PolicyError, match="unknown policy 'belady'") as caught:
        policy_class("belady")
    assert caught.value.hint is not None
    assert all(name in caught.value.hint for name in NAMES)


class Third(EvictionPolicy):
    spec: ClassVar[PolicySpec] = PolicySpec("third", "Somebody else's.", "a test")


def test_somebody_elses_policy_is_found_by_its_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("third", f"{__name__}:Third", registry.ENTRY_POINT_GROUP)
    monkeypatch.setattr(EntryPoint, "load", lambda self: Third)
    monkeypatch.setattr(registry, "entry_points", lambda **_: [point])
    assert policy_class("third") is Third
    assert isinstance(build_policies("third", Cache("holdfast", 4).runtime).eviction, Third)


def test_what_is_no_policy_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("odd", "builtins:int", registry.ENTRY_POINT_GROUP)
    monkeypatch.setattr(registry, "entry_points", lambda **_: [point])
    with pytest.raises(PolicyError, match="not a subclass"):
        policy_class("odd")


@settings(max_examples=40, deadline=None)
@given(
    accesses=st.lists(st.integers(0, 7), min_size=10, max_size=60),
    pauses=st.lists(st.sampled_from((0.5, 2.0, 20.0)), min_size=60, max_size=60),
    num_blocks=st.integers(2, 6),
)
def test_no_causal_policy_evicts_less_than_the_bound_when_all_costs_are_equal(
    accesses: list[int], pauses: list[float], num_blocks: int
) -> None:
    """Sessions of one block that never grow: Belady's own setting, where he is optimal."""
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
