"""CacheSage: (p + delta) (exp(-lambda age) + delta), with hand-worked numbers.

delta and epsilon are 0.01, lambda 0.005, an edge is a transition of probability 0.1 or more, and
p = 1 - min(hops, 6) / 6.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from tests.policies.host import Cache, hashes_of

from holdfast.core.identity import Identity
from holdfast.core.session import Session
from holdfast.policies.base import PriorityClass
from holdfast.policies.published.cachesage import CacheSage


def call(cache: Cache, agents: str) -> dict[str, Session]:
    """Call agents in turn, each call a session of its own; returns each agent's latest.

    An agent's prompt begins with two blocks of its own.
    """
    latest = {}
    for agent in agents:
        number = len(cache.runtime.sessions)
        latest[agent] = cache.session(f"r{number}", hashes_of(agent * 2 + chr(0x100 + number)))
    return latest


def policy_of(cache: Cache) -> CacheSage:
    assert isinstance(cache.eviction, CacheSage)
    return cache.eviction


def hops_of(cache: Cache) -> dict[str, int]:
    """Hops from the agent called last, by agent."""
    policy = policy_of(cache)
    hops = policy._counts.hops(policy._current.values(), policy.settings.min_edge)
    return {agent.decode()[0]: number for agent, number in hops.items()}


def test_agent_called_last_scores_one_when_fresh() -> None:
    cache = Cache("cachesage", 100)
    latest = call(cache, "A")
    cache.runtime.step(0)
    # p = 1 - 0/6, age 0: (1 + 0.01) * (1 + 0.01)
    assert cache.eviction.session_priority(latest["A"]) == pytest.approx(1.0201)


def test_recency_decays_with_engine_steps() -> None:
    cache = Cache("cachesage", 100)
    latest = call(cache, "A")
    cache.runtime.step(200)
    # exp(-0.005 * 200) = exp(-1) = 0.367879: 1.01 * 0.377879
    assert cache.eviction.session_priority(latest["A"]) == pytest.approx(0.381658, abs=1e-6)


def test_agent_without_a_known_way_is_not_expected() -> None:
    cache = Cache("cachesage", 100)
    latest = call(cache, "AB")
    cache.runtime.step(9)
    # From B no transition is known, so A counts as 6 hops away: p = 0. One turn began after A's
    # last, whose step is the one that B's turn runs in: age 9 + 1 = 10.
    # 0.01 * (exp(-0.05) + 0.01) = 0.01 * (0.951229 + 0.01)
    assert cache.eviction.session_priority(latest["A"]) == pytest.approx(0.00961229, abs=1e-8)


def test_hops_follow_learned_transitions() -> None:
    cache = Cache("cachesage", 100)
    call(cache, "ABCA")
    # A -> B and B -> C were seen: from A they are one and two hops away.
    assert hops_of(cache) == {"A": 0, "B": 1, "C": 2}


def test_likelihood_falls_by_a_sixth_with_each_hop() -> None:
    cache = Cache("cachesage", 100)
    latest = call(cache, "ABCA")
    # p = 1 - 1/6 and 1 - 2/6. Ages: B's turn ended two steps ago, C's one step ago.
    # B has (0.833333 + 0.01) * (exp(-0.01) + 0.01) = 0.843333 * 1.000050
    # C has (0.666667 + 0.01) * (exp(-0.005) + 0.01) = 0.676667 * 1.005012
    assert cache.eviction.session_priority(latest["B"]) == pytest.approx(0.843375, abs=1e-6)
    assert cache.eviction.session_priority(latest["C"]) == pytest.approx(0.680058, abs=1e-6)


def test_agents_beyond_six_hops_count_as_six() -> None:
    cache = Cache("cachesage", 200)
    latest = call(cache, "ABCDEFGHA")
    assert hops_of(cache)["G"] == 6 and hops_of(cache)["H"] == 7
    # p = 0 for both; H was used one step later.
    assert policy_of(cache)._seen_step[latest["H"]] == policy_of(cache)._seen_step[latest["G"]] + 1
    ratio = cache.eviction.session_priority(latest["G"]) / cache.eviction.session_priority(
        latest["H"]
    )
    # Ages 2 and 1: (exp(-0.01) + 0.01) / (exp(-0.005) + 0.01) = 1.000050 / 1.005012
    assert ratio == pytest.approx(0.995062, abs=1e-6)


@pytest.mark.parametrize(("num_others", "is_edge"), [(9, True), (10, False)])
def test_transition_below_a_tenth_is_no_edge(num_others: int, is_edge: bool) -> None:
    cache = Cache("cachesage", 400)
    call(cache, "AB" * num_others + "ACA")
    # Of A's transitions `num_others` led to B and one to C, among three agents:
    # 9 to B: P(C | A) = (1 + 0.01) / (10 + 3 * 0.01) = 0.10070: an edge.
    # 10 to B: P(C | A) = (1 + 0.01) / (11 + 3 * 0.01) = 0.09157: none.
    assert ("C" in hops_of(cache)) == is_edge
    assert hops_of(cache)["B"] == 1


@pytest.mark.parametrize(("others", "is_edge"), [("DEFGHI", True), ("DEFGHIJK", False)])
def test_every_known_agent_counts_in_the_smoothing(others: str, is_edge: bool) -> None:
    cache = Cache("cachesage", 400)
    call(cache, "AB" * 9 + "AC" + others + "A")
    # Of A's ten transitions one led to C. Nine agents: (1 + 0.01) / (10 + 9 * 0.01) = 0.10010.
    # Eleven agents: (1 + 0.01) / (10 + 11 * 0.01) = 0.09990.
    assert ("C" in hops_of(cache)) == is_edge


def test_repeated_calls_of_an_agent_are_no_transition() -> None:
    cache = Cache("cachesage", 100)
    call(cache, "AAAB")
    assert {k: v for k, v in policy_of(cache)._counts._rows.items() if v} == {b"AAA": {b"BBB": 1.0}}


def test_agents_far_from_the_current_one_are_evicted_first() -> None:
    cache = Cache("cachesage", 12)
    call(cache, "ABCA")
    cache.rescore()
    # C is two hops away, B one.
    assert [prefix[0] for prefix in cache.evict(7)] == list("CCCBBBA")


def test_shared_node_has_the_highest_priority_of_its_users() -> None:
    cache = Cache("cachesage", 100)
    first, second = (cache.session(f"r{n}", hashes_of("AA" + n)) for n in "12")
    first.retention_priority, second.retention_priority = 0.25, 0.75
    assert cache.priority("AA") == (PriorityClass.LIVE, 0.75)


def test_priorities_are_rescored_every_eight_steps() -> None:
    cache = Cache("cachesage", 100)
    session = call(cache, "A")["A"]
    before = session.retention_priority
    cache.runtime.step(7)
    assert session.retention_priority == before
    cache.runtime.step()
    cache.runtime.step()
    assert session.retention_priority < before


def test_agents_that_share_one_block_are_apart() -> None:
    cache = Cache("cachesage", 100)
    for prompt in ("AX1", "AY1", "AX2", "AY2"):
        cache.run(prompt, hashes_of(prompt))
    eviction = cache.runtime.policies.eviction
    assert isinstance(eviction, CacheSage)
    agents = eviction._agent_of
    by_prompt = {session.tail.hashes[-1]: agent for session, agent in agents.items()}
    assert by_prompt[b"AX1"] == by_prompt[b"AX2"] == b"A" + b"AX"
    assert by_prompt[b"AY1"] == by_prompt[b"AY2"] == b"A" + b"AY"


def test_constants_are_settings() -> None:
    name = "cachesage:max_hops=2:decay_per_step=0.01:floor=0.5:fingerprint_blocks=1:min_edge=0.6"
    cache = Cache(name, 100)
    latest = call(cache, "ABCA")
    assert set(policy_of(cache)._agent_of.values()) == {b"A", b"B", b"C"}
    # B is one hop of two away, and its turn ended two steps ago: (1 - 1/2 + 0.5) * (e^-0.02 + 0.5)
    assert cache.eviction.session_priority(latest["B"]) == pytest.approx(1.480199, abs=1e-6)
    call(cache, "CA")  # of A's two transitions one led to B: below 0.6
    assert "B" not in hops_of(cache)


def test_each_workflow_has_its_own_current_agent() -> None:
    cache = Cache("cachesage", 200)
    for number, (agent, workflow) in enumerate(zip("AXBYAX", "wvwvwv", strict=True)):
        identity = Identity(workflow_id=workflow)
        cache.run(f"r{number}", hashes_of(agent * 2 + chr(0x100 + number)), identity=identity)
    rows = policy_of(cache)._counts._rows
    seen = {(a[:1], b[:1]) for a, row in rows.items() for b in row}
    assert seen == {(b"A", b"B"), (b"B", b"A"), (b"X", b"Y"), (b"Y", b"X")}
    assert hops_of(cache) == {"A": 0, "X": 0, "B": 1, "Y": 1}


def test_one_current_agent_for_all_where_set() -> None:
    cache = Cache("cachesage:scope=global", 200)
    for number, (agent, workflow) in enumerate(zip("AXBY", "wvwv", strict=True)):
        identity = Identity(workflow_id=workflow)
        cache.run(f"r{number}", hashes_of(agent * 2 + chr(0x100 + number)), identity=identity)
    assert hops_of(cache) == {"Y": 0}


def test_likeliest_next_agent_is_prefetched() -> None:
    cache = Cache("cachesage", 200)
    for agent in "ABCABC":
        cache.now_s += 5.0
        call(cache, agent)
    # C was called last, and A followed it: the anchor ends where A's prompts part.
    assert [node.hashes[-1] for node in policy_of(cache).candidates()] == [b"AA"]


def test_nothing_prefetched_below_the_least_predictability() -> None:
    cache = Cache("cachesage:min_predictability=0.7", 200)
    for agent in "ABACABAC":
        cache.now_s += 5.0
        call(cache, agent)
    # Of 7 transitions 4 leave A, for B or C alike: H(next | current) = 4/7 * 1 = 0.5714 bits.
    # Next is B twice, C twice, A three times: H = 2 * 2/7 * 1.8074 + 3/7 * 1.2224 = 1.5567.
    # R = 1 - 0.5714 / 1.5567 = 0.6329 < 0.7.
    assert not list(policy_of(cache).candidates())
    assert policy_of(cache)._counts.predictability == pytest.approx(0.6329, abs=1e-4)


def test_prefetches_are_two_seconds_apart() -> None:
    cache = Cache("cachesage", 200)
    for agent in "ABCABC":
        cache.now_s += 5.0
        call(cache, agent)
    cache.now_s += 1.0
    call(cache, "A")
    assert not list(policy_of(cache).candidates())
    cache.now_s += 2.0
    call(cache, "B")
    assert [node.hashes[-1] for node in policy_of(cache).candidates()] == [b"CC"]


def test_exact_survival_in_place_of_hops() -> None:
    cache = Cache("cachesage:survival=exact:max_hops=2", 200)
    latest = call(cache, "ABACABACA")
    cache.runtime.step(0)
    # From A, B is next with 1/2, or after C and A, which is more than two steps: p = 0.5.
    # Age: three turns began after B's end: exp(-0.005 * 3) = 0.985112.
    age_steps = cache.runtime.num_steps - policy_of(cache)._seen_step[latest["B"]]
    recency = math.exp(-0.005 * age_steps)
    assert cache.eviction.session_priority(latest["B"]) == pytest.approx(0.51 * (recency + 0.01))


def test_block_that_a_tier_stores_has_half_the_score() -> None:
    cache = Cache("cachesage", 100)
    session = call(cache, "A")["A"]
    session.retention_priority = 0.5
    assert cache.priority("AA") == (PriorityClass.LIVE, 0.5)

    class Tier:
        def num_stored(self, hashes: Sequence[bytes], first: int, guess: int = 0) -> int:
            del guess
            return len(hashes) - first

    cache.runtime.tier = Tier()  # type: ignore[assignment]
    assert cache.priority("AA") == (PriorityClass.LIVE, 0.25)
