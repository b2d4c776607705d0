"""KVFlow on declared step graphs: steps, ends of fixed prefixes, prefetch, order of requests."""

from __future__ import annotations

from tests.policies.host import Cache, hashes_of

from holdfast.core.agents import AgentKey
from holdfast.core.identity import Identity
from holdfast.core.turn import Turn
from holdfast.policies.admission import Budget
from holdfast.policies.base import Priority, PriorityClass
from holdfast.policies.published.kvflow import KVFlow
from holdfast.predict.step_graph import AgentStep, WorkflowGraph

ROUNDS = 6
SUFFIX: Priority = (PriorityClass.AWAY, 0.0)


def fixed(steps: int) -> Priority:
    return PriorityClass.LIVE, float(-steps)


def announced(cache: Cache) -> list[str]:
    """Prefixes that prefetch should bring."""
    assert isinstance(cache.eviction, KVFlow)
    return [node.hashes[-1].decode() for node in cache.eviction.candidates()]


FAR = fixed(33)


def ring(agents: str) -> WorkflowGraph:
    """Agents in a circle; the first may begin."""
    return WorkflowGraph(
        tuple(AgentStep(name, (agents[i - 1],), entry=i == 0) for i, name in enumerate(agents))
    )


def declared(graph: WorkflowGraph, num_blocks: int = 100, policy: str = "kvflow") -> Cache:
    cache = Cache(policy, num_blocks, has_oracle=False)
    cache.runtime.declare_workflow("", "w", graph)
    return cache


def begin(cache: Cache, call: str, workflow: str | None = "w", fixed: int | None = None) -> Turn:
    """Begin a call named by its agent and a number: four blocks of the agent, one of the call."""
    name = call[0]
    agent = name if workflow is not None else None
    identity = Identity(agent_id=agent, workflow_id=workflow)
    prompt = hashes_of(name * 4 + chr(0x100 + int(call[1:])))
    turn = cache.arrive(call, prompt, identity=identity, fixed_blocks=fixed)
    cache.step()
    cache.start(turn)
    return turn


def call(cache: Cache, *names: str, workflow: str | None = "w", fixed: int | None = None) -> None:
    for name in names:
        cache.end(begin(cache, name, workflow, fixed), None)


def test_declared_graph_gives_the_steps() -> None:
    cache = declared(ring("ABC"))
    call(cache, "A0", "B1", "C2", "A3", "B4", "C5")
    assert [cache.priority(name * 4) for name in "ABC"] == [fixed(1), fixed(2), fixed(3)]
    begin(cache, "A6")
    assert [cache.priority(name * 4) for name in "ABC"] == [fixed(0), fixed(1), fixed(2)]


def test_suffix_of_a_declared_agent_ranks_below_every_prefix() -> None:
    cache = declared(ring("ABC"))
    call(cache, "A0", "B1", "C2", "A3", "B4", "C5")
    for number, name in enumerate("ABCABC"):
        assert cache.priority(name * 4 + chr(0x100 + number)) == SUFFIX


def test_prompt_of_a_first_call_is_fixed_until_the_second() -> None:
    cache = declared(ring("AB"))
    call(cache, "A0")
    assert cache.priority("AAAA" + chr(0x100)) == fixed(2)
    call(cache, "B1", "A2")
    assert cache.priority("AAAA" + chr(0x100)) == SUFFIX
    assert cache.priority("AAAA") == fixed(2)


def test_client_marks_the_end_of_the_fixed_prefix() -> None:
    cache = declared(ring("AB"))
    call(cache, "A0", fixed=2)
    call(cache, "B1", "A2", fixed=2)
    # The node of four blocks is fixed as long as its first block is.
    assert cache.priority("AAAA") == fixed(2)
    assert cache.priority("AAAA" + chr(0x102)) == SUFFIX


def test_mark_counts_where_prompts_part_later() -> None:
    cache = declared(ring("AB"))
    cache.arrive("0", hashes_of("AAx"))  # another session parts from A's prompts after two blocks
    call(cache, "A1", "B2", "A3", fixed=2)
    assert cache.priority("AA") == fixed(2)
    assert cache.priority("AAAA") == SUFFIX


def test_mark_counts_when_another_session_splits_the_node() -> None:
    cache = declared(ring("AB"))
    call(cache, "A0", fixed=4)
    cache.arrive("1", hashes_of("AAAAx"))
    assert cache.priority("AAAA") == fixed(2)
    assert cache.priority("AAAA" + chr(0x100)) == SUFFIX


def test_suffix_that_another_session_shares_is_no_suffix() -> None:
    cache = declared(ring("AB"))
    call(cache, "A0", fixed=2)
    cache.arrive("1", hashes_of("AAx"))
    cache.arrive("2", hashes_of("AAAAy"))
    assert cache.priority("AAAA") == FAR
    assert cache.priority("AAAA" + chr(0x100)) == SUFFIX


def test_node_shared_by_agents_has_the_nearest_ones_steps() -> None:
    cache = declared(ring("ABC"))
    for number, name in enumerate("ABCABC"):
        identity = Identity(agent_id=name, workflow_id="w")
        turn = cache.arrive(
            f"{number}", hashes_of("SS" + name * 2 + str(number)), identity=identity
        )
        cache.start(turn)
        cache.end(turn, None)
    assert cache.priority("SS") == fixed(1)
    assert [cache.priority("SS" + name * 2) for name in "ABC"] == [fixed(1), fixed(2), fixed(3)]


def test_prefix_that_no_step_leads_to_is_far() -> None:
    line = AgentStep("A"), AgentStep("B", ("A",)), AgentStep("C", ("B",))
    cache = declared(WorkflowGraph(line))
    call(cache, "A0", "B1", "C2", "A3")
    begin(cache, "B4")
    assert cache.priority("AAAA") == FAR


def test_sessions_without_a_workflow_rank_as_far_prefixes() -> None:
    cache = declared(ring("ABC"))
    call(cache, "A0", "B1", "C2", "A3")
    call(cache, "X4", workflow=None)
    assert cache.priority("XXXX" + chr(0x104)) == FAR
    assert cache.priority("AAAA" + chr(0x103)) == SUFFIX


def test_growing_session_of_an_agent_is_its_fixed_prefix() -> None:
    cache = declared(ring("AB"))
    for number, prompt in enumerate(("AAaa", "BBbb", "AAaaAA", "BBbbBB")):
        turn = cache.arrive(
            f"{number}",
            hashes_of(prompt),
            prompt[0],
            Identity(prompt[0], agent_id=prompt[0], workflow_id="w"),
        )
        cache.start(turn)
        cache._prompts[turn] = hashes_of(prompt + "!?")  # with its answer
        cache.end(turn, None)
    assert cache.priority("AAaaAA!?") == cache.priority("AAaa") == fixed(1)
    assert cache.priority("BBbbBB!?") == fixed(2)


def test_branch_not_taken_is_farther() -> None:
    graph = WorkflowGraph(
        (
            AgentStep("S", ("W", "V"), "any", fork="one", entry=True),
            *(AgentStep(name, ("S",)) for name in "WV"),
        )
    )
    cache = declared(graph)
    call(cache, "W0", "S1", "V2", "S3", "W4", "S5", "V6", "S7")
    assert cache.priority("WWWW") == cache.priority("VVVV") == fixed(1)
    begin(cache, "W8")
    assert cache.priority("VVVV") == fixed(2)


def test_prefixes_of_an_ended_workflow_are_ranked_anew() -> None:
    cache = declared(ring("AB"), num_blocks=17)
    call(cache, "A0", "B1", "A2", "B3")  # A is next
    call(cache, "X4", workflow=None)
    assert all(len(suffix) == 5 for suffix in cache.evict(4))
    cache.runtime.end_workflow("", "w")
    cache.arrive("Y5", hashes_of("Y"))
    lost = cache.evict(13)
    assert lost.index("AAAA") < lost.index("XXXX")


def test_all_branches_are_prefetched_up_to_the_cap() -> None:
    graph = WorkflowGraph((AgentStep("S"), *(AgentStep(name, ("S",)) for name in "TUVWX")))
    for policy, most in (("kvflow", 4), ("kvflow:prefetch_candidates=2", 2)):
        cache = declared(graph, policy=policy)
        call(cache, *(f"{name}{n}" for n, name in enumerate("STUVWXSTUVWX")))
        begin(cache, "S20")
        assert len(announced(cache)) == most


def test_next_prefixes_of_all_workflows_are_prefetched() -> None:
    cache = declared(ring("ABC"))
    cache.runtime.declare_workflow("", "v", ring("XYZ"))
    call(cache, "A0", "B1", "C2", "A3", "B4", "C5")
    call(cache, "X0", "Y1", "Z2", "X3", workflow="v")
    call(cache, "Y4", workflow="v")
    assert announced(cache) == ["AAAA", "Z" * 4 + chr(0x102)]


def test_disagreeing_graph_leaves_recency() -> None:
    cache = declared(ring("ABCD"))
    call(cache, "C0", "A1", "C2", "A3", "C4", "A5")
    assert AgentKey("", "A") not in cache.runtime.workflows
    assert cache.priority("AAAA") == cache.priority("AAAA" + chr(0x101)) == FAR


def test_ended_workflow_leaves_recency() -> None:
    cache = declared(ring("ABC"))
    call(cache, "A0", "B1", "C2", "A3")
    cache.runtime.end_workflow("", "w")
    assert cache.priority("AAAA") == cache.priority("AAAA" + chr(0x100)) == FAR
    assert not announced(cache)


def test_declared_order_keeps_a_cycle_larger_than_the_cache() -> None:
    found = {}
    for policy in ("vllm-default", "kvflow"):
        cache = declared(ring("ABC"), 10, policy)
        before = 0
        for number, name in enumerate("ABC" * ROUNDS):
            turn = begin(cache, f"{name}{number}")
            cache.end(turn, None)
            before += turn.resident_blocks if number >= 6 else 0
        found[policy] = before
    assert found["vllm-default"] == 0
    assert found["kvflow"] >= 4 * (ROUNDS - 2)


# Order of requests.


def budget(cache: Cache, slots: int = 8) -> Budget:
    return cache.runtime._reservations.budget(100, slots, 1, cache.runtime.policies.admission)


def test_request_whose_prefix_is_loading_is_passed() -> None:
    cache = declared(ring("ABC"))
    turns = [cache.arrive(f"{name}0", hashes_of(name * 5)) for name in "ABC"]
    turns[0].is_loading = True
    admit = cache.runtime.policies.admission.admit
    assert list(admit(turns, budget(cache)).admitted) == turns[1:]
    assert list(admit(turns, budget(cache, 1)).admitted) == turns[1:2]
    turns[0].is_loading = False
    assert list(admit(turns, budget(cache)).admitted) == turns


def test_due_request_does_not_wait_for_its_prefix() -> None:
    cache = declared(ring("ABC"))
    turn = cache.arrive("A0", hashes_of("AAAAA"))
    turn.is_loading, turn.due_s = True, 0.0
    assert list(cache.runtime.policies.admission.admit([turn], budget(cache)).admitted) == [turn]
