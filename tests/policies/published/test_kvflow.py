"""KVFlow: steps to execution, suffixes before fixed prefixes, ready requests first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tests.policies.host import Cache, FixedOracle, hashes_of

from holdfast.policies.base import Priority, PriorityClass
from holdfast.policies.published.kvflow import KVFlow

ROUNDS = 6
SUFFIX: Priority = (PriorityClass.AWAY, 0.0)


def calls(agents: str, first: int = 0) -> dict[str, list[bytes]]:
    """Calls of agents in this order: four blocks of the agent, then one of the call."""
    return {
        f"{n}{name}": hashes_of(name * 4 + chr(0x100 + n)) for n, name in enumerate(agents, first)
    }


def fixed(steps: int) -> Priority:
    return PriorityClass.LIVE, float(-steps)


def run(agents: str, num_run: int, num_blocks: int = 100) -> Cache:
    """A cache after the first calls of a workflow."""
    workflow = calls(agents)
    cache = Cache("kvflow", num_blocks, FixedOracle(prompts=workflow))
    for request_id in list(workflow)[:num_run]:
        cache.run(request_id, workflow[request_id])
    return cache


def announced(cache: Cache) -> list[str]:
    """Prefixes that prefetch should bring."""
    assert isinstance(cache.eviction, KVFlow)
    return [node.hashes[-1].decode() for node in cache.eviction.candidates()]


def test_prefix_has_the_steps_to_its_next_call() -> None:
    cache = run("ABCABC" + "ABC", 6)
    # C has just ended: A is next.
    assert [cache.priority(name * 4) for name in "ABC"] == [fixed(1), fixed(2), fixed(3)]


def test_running_agent_is_zero_steps_away() -> None:
    cache = run("ABCABC" + "ABC", 6)
    cache.arrive("6A", hashes_of("AAAA" + chr(0x100 + 6)))
    assert [cache.priority(name * 4) for name in "ABC"] == [fixed(0), fixed(1), fixed(2)]


def test_least_of_several_calls_counts() -> None:
    cache = run("ABCABC" + "BACAAB", 6)
    # A is called at steps 2, 4 and 5, B at 1 and 6, C at 3.
    assert [cache.priority(name * 4) for name in "ABC"] == [fixed(2), fixed(1), fixed(3)]


def test_suffix_ranks_below_every_prefix() -> None:
    cache = run("ABCABC" + "ABC", 6)
    for number, name in enumerate("ABCABC"):
        assert cache.priority(name * 4 + chr(0x100 + number)) == SUFFIX


def test_prefix_not_called_again_is_one_step_past_the_horizon() -> None:
    cache = run("ABCABC" + "AB" * 16 + "AC", 6)
    # C is called at step 34, and only the next 32 are known.
    assert cache.priority("CCCC") == fixed(33)


def test_prefix_of_one_call_is_fixed_if_a_coming_call_follows_it() -> None:
    cache = run("AB" + "AC", 2)
    # A's only call so far and its next one part after four of five blocks.
    assert cache.priority("AAAA") == fixed(1)
    assert cache.priority("BBBB") == SUFFIX


def test_suffixes_then_farthest_prefixes_evicted_first() -> None:
    cache = run("ABCABC" + "ABC", 6, num_blocks=18)  # three prefixes and six suffixes
    lost = cache.evict(18)
    assert lost[:6] == [name * 4 + chr(0x100 + n) for n, name in enumerate("ABCABC")]
    assert lost[6:] == [name * length for name in "CBA" for length in (4, 3, 2, 1)]


class TwoWorkflows(FixedOracle):
    """Two workflows, whose requests begin with x and y."""

    def session_id_of(self, request_id: str) -> str:
        return request_id[0]

    def prompts_after(self, request_id: str) -> Iterator[Sequence[bytes]]:
        own = [i for i in self.prompts if i[0] == request_id[0]]
        return (self.prompts[i] for i in own[own.index(request_id) + 1 :])


def test_shared_prefix_has_the_least_steps_of_all_workflows() -> None:
    first, second = calls("ABAB" + "ABA"), calls("AB" + "CBA", 100)
    prompts = {"x" + i: p for i, p in first.items()} | {"y" + i: p for i, p in second.items()}
    cache = Cache("kvflow", 100, TwoWorkflows(prompts=prompts))
    for request_id in (*(i for i in list(prompts)[:4]), "y100A", "y101B"):
        cache.run(request_id, prompts[request_id])
    # The first calls A in 1 step and B in 2; the second C in 1, B in 2 and A in 3.
    assert cache.priority("AAAA") == fixed(1)
    assert cache.priority("BBBB") == fixed(2)
    cache.run("x4A", prompts["x4A"])
    # Now the first calls B in 1 step and A in 2.
    assert cache.priority("AAAA") == fixed(2)
    assert cache.priority("BBBB") == fixed(1)


def test_call_known_before_a_node_is_split_needs_the_prefix_only() -> None:
    first, second = calls("AB" + "A"), calls("A", 100)
    prompts = {"x" + i: p for i, p in first.items()} | {"y" + i: p for i, p in second.items()}
    cache = Cache("kvflow", 100, TwoWorkflows(prompts=prompts))
    cache.run("x0A", prompts["x0A"])
    assert cache.priority("AAAA" + chr(0x100)) == fixed(2)  # one node as yet
    cache.run("y100A", prompts["y100A"])  # parts after four blocks
    assert cache.priority("AAAA") == fixed(2)
    assert cache.priority("AAAA" + chr(0x100)) == SUFFIX


def test_cycle_longer_than_the_cache_keeps_some_prefixes() -> None:
    found = {}
    for policy in ("vllm-default", "kvflow"):
        workflow = calls("ABC" * ROUNDS)
        cache = Cache(policy, 10, FixedOracle(prompts=workflow))
        found[policy] = sum([cache.run(i, prompt) for i, prompt in workflow.items()][6:])
    assert found["vllm-default"] == 0
    assert found["kvflow"] >= 4 * ROUNDS


def test_prefix_of_the_next_step_is_prefetched() -> None:
    assert announced(run("ABC" * ROUNDS, 7)) == ["BBBB"]


def test_nothing_is_prefetched_without_a_workflow() -> None:
    cache = Cache("kvflow", 40)
    for request_id, prompt in calls("ABC" * ROUNDS).items():
        cache.run(request_id, prompt)
    assert not announced(cache)


def test_all_goes_by_recency_without_a_workflow() -> None:
    found = {}
    for policy in ("vllm-default", "kvflow"):
        cache = Cache(policy, 22, has_oracle=False)
        for request_id, prompt in calls("ABACBDAABECADB").items():
            cache.run(request_id, prompt)
        found[policy] = cache.evicted
        assert not list(cache.runtime.policies.prefetch.candidates())
    assert found["kvflow"] == found["vllm-default"]


def test_steps_ahead_and_prefetched_are_settings() -> None:
    workflow = calls("ABCABC" + "ABC")
    name = "kvflow:steps_ahead=2:prefetch_steps=2"
    cache = Cache(name, 100, FixedOracle(prompts=workflow))
    for request_id in list(workflow)[:6]:
        cache.run(request_id, workflow[request_id])
    assert [cache.priority(name * 4) for name in "ABC"] == [fixed(1), fixed(2), fixed(3)]
    assert announced(cache) == ["AAAA", "BBBB"]
