"""The step graph: hand-worked graphs, and all others against a naive fixed point."""

from __future__ import annotations

import random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.core import workflow_graph
from holdfast.predict.step_graph import AgentStep, StepGraph, StepsAhead, WorkflowGraph


def graph(*agents: str) -> WorkflowGraph:
    """Agents as "name", "name<a,b" (after all) or "name<a|b" (after any).

    "*" marks an entry, "!" an agent after which one other runs.
    """
    steps = []
    for agent in agents:
        name, _, before = agent.partition("<")
        after = tuple(filter(None, before.replace("|", ",").split(",")))
        steps.append(
            AgentStep(
                name.strip("*!"),
                after,
                join="any" if "|" in before else "all",
                fork="one" if "!" in name else "all",
                entry="*" in name,
            )
        )
    return WorkflowGraph(tuple(steps))


def steps_of(steps: StepGraph) -> dict[str, int | None]:
    return {agent.agent_id: steps.steps_to(agent.agent_id) for agent in steps.graph.agents}


def run(steps: StepGraph, agents: str) -> None:
    """Run agents, one after the other."""
    for agent in agents:
        steps.began(agent)
        steps.ended(agent)


def test_entries_are_one_step_away_before_anything_runs() -> None:
    assert steps_of(StepGraph(graph("a", "b", "c<a,b", "d<c"))) == {"a": 1, "b": 1, "c": 2, "d": 3}


def test_join_of_all_waits_for_the_last() -> None:
    steps = StepGraph(graph("a", "b<a", "c<b", "d<a,c"))
    steps.began("a")
    assert steps_of(steps) == {"a": 0, "b": 1, "c": 2, "d": 3}


def test_join_of_any_waits_for_the_first() -> None:
    steps = StepGraph(graph("a", "b<a", "c<b", "d<a|c"))
    steps.began("a")
    assert steps_of(steps) == {"a": 0, "b": 1, "c": 2, "d": 1}


def test_agent_that_has_ended_does_not_delay_a_join() -> None:
    steps = StepGraph(graph("p", "x<p", "y<p", "z<y", "j<x,z"))
    run(steps, "p")
    assert steps_of(steps) == {"p": None, "x": 1, "y": 1, "z": 2, "j": 3}
    run(steps, "x")
    assert steps_of(steps) == {"p": None, "x": None, "y": 1, "z": 2, "j": 3}
    steps.began("y")
    assert steps.steps_to("j") == 2
    steps.ended("y")
    assert (steps.steps_to("z"), steps.steps_to("j")) == (1, 2)
    steps.began("z")
    assert steps.steps_to("j") == 1


def test_cycle_counts_the_way_around() -> None:
    steps = StepGraph(graph("*a<c", "b<a", "c<b"))
    assert steps_of(steps) == {"a": 1, "b": 2, "c": 3}
    run(steps, "ab")
    assert steps_of(steps) == {"a": 2, "b": 3, "c": 1}
    steps.began("c")
    assert steps_of(steps) == {"a": 1, "b": 2, "c": 0}


def test_cycle_without_an_entry_is_far_until_it_begins() -> None:
    steps = StepGraph(graph("a<c", "b<a", "c<b"))
    assert steps_of(steps) == {"a": None, "b": None, "c": None}
    steps.began("b")
    assert steps_of(steps) == {"a": 2, "b": 0, "c": 1}
    assert steps.num_unexpected == 0


def test_loop_is_not_its_own_reason_to_run() -> None:
    steps = StepGraph(graph("a", "x<x|y", "y<x"))
    steps.began("a")
    assert steps_of(steps) == {"a": 0, "x": None, "y": None}


def test_agent_may_follow_itself() -> None:
    steps = StepGraph(graph("*a<a", "b<a"))
    run(steps, "a")
    assert steps_of(steps) == {"a": 1, "b": 1}


def test_review_loops_back_or_goes_on() -> None:
    # PEER: plan, execute, express, review; review may send the task back to the planner.
    steps = StepGraph(graph("*plan<review", "execute<plan", "express<execute", "review<express"))
    for agent in ("plan", "execute", "express"):
        run_one(steps, agent)
    steps.began("review")
    assert steps_of(steps) == {"plan": 1, "execute": 2, "express": 3, "review": 0}


def run_one(steps: StepGraph, agent: str) -> None:
    steps.began(agent)
    steps.ended(agent)


def test_one_of_several_branches_runs() -> None:
    # A supervisor picks one worker, which reports to it.
    steps = StepGraph(graph("*!s<w|v", "w<s", "v<s"))
    run(steps, "s")
    assert steps_of(steps) == {"s": 2, "w": 1, "v": 1}
    steps.began("w")
    assert steps_of(steps) == {"s": 1, "w": 0, "v": 2}


def test_all_branches_run_without_a_fork_of_one() -> None:
    steps = StepGraph(graph("s", "w<s", "v<s"))
    run(steps, "s")
    steps.began("w")
    assert steps_of(steps) == {"s": None, "w": 0, "v": 1}


def test_workflow_may_begin_again_when_nothing_follows() -> None:
    steps = StepGraph(graph("a", "b<a"))
    run(steps, "ab")
    assert steps_of(steps) == {"a": 1, "b": 2}


def test_agent_runs_until_its_last_call_ends() -> None:
    steps = StepGraph(graph("m", "r<m"))
    for _ in range(3):
        steps.began("m")
    steps.ended("m")
    assert steps_of(steps) == {"m": 0, "r": 1}


def test_steps_beyond_the_farthest_are_unknown() -> None:
    steps = StepGraph(graph("a", "b<a", "c<b", "d<c"), max_steps=2)
    assert steps_of(steps) == {"a": 1, "b": 2, "c": None, "d": None}
    steps.began("a")
    assert steps_of(steps) == {"a": 0, "b": 1, "c": 2, "d": None}


def test_next_agents_come_by_steps() -> None:
    steps = StepGraph(graph("a", "b<a", "c<a", "d<b", "e<d"))
    steps.began("a")
    assert list(steps.next_agents(2)) == [(1, "b"), (1, "c"), (2, "d")]


def test_changes_tell_the_steps_before_once() -> None:
    steps = StepGraph(graph("*a<c", "b<a", "c<b"))
    run(steps, "a")
    steps.take_changes()
    steps.began("b")
    assert steps.take_changes() == {"b": 1, "c": 2, "a": 3}
    assert steps.take_changes() == {}


def test_resumed_agent_runs_and_is_no_new_call() -> None:
    steps = StepGraph(graph("a", "b<a", "c<b"))
    run(steps, "ab")
    steps.resumed("b")
    steps.resumed("stranger")
    assert steps_of(steps) == {"a": None, "b": 0, "c": 1}
    assert (steps.num_calls, steps.num_unexpected) == (2, 0)


def test_agents_before_an_agent_are_known() -> None:
    steps = StepGraph(graph("a", "b", "c<a,b"))
    assert list(steps.agents_before("c")) == ["a", "b"]
    assert not list(steps.agents_before("stranger"))


def test_unknown_agent_changes_nothing_and_is_counted() -> None:
    steps = StepGraph(graph("a", "b<a"))
    before = steps_of(steps)
    steps.began("stranger")
    steps.ended("stranger")
    assert steps_of(steps) == before
    assert (steps.num_unexpected, steps.steps_to("stranger"), "stranger" in steps) == (
        *(1, None),
        False,
    )


def test_graph_that_calls_disagree_with_is_not_trusted() -> None:
    steps = StepGraph(graph("a", "b<a", "c<b", "d<c"))
    run(steps, "ab")
    assert steps.is_trusted
    run(steps, "dada")
    assert not steps.is_trusted
    assert steps.num_unexpected == 4
    run(steps, "bcdabcd")
    assert steps.is_trusted


def test_end_of_what_did_not_run_is_ignored() -> None:
    steps = StepGraph(graph("a", "b<a"))
    steps.ended("a")
    assert steps_of(steps) == {"a": 1, "b": 2}


def test_step_graph_is_a_source_of_steps() -> None:
    source: StepsAhead = StepGraph(graph("a"))
    assert source.steps_to("a") == 1


# Declarations.


def test_graph_is_read_from_json() -> None:
    text = b'{"agents": [{"agent_id": "p"}, {"agent_id": "w", "after": ["p"], "join": "any"}]}'
    read = msgspec.json.decode(text, type=WorkflowGraph)
    assert read == WorkflowGraph((AgentStep("p"), AgentStep("w", ("p",), "any")))
    assert msgspec.json.decode(msgspec.json.encode(read), type=WorkflowGraph) == read
    assert read.size == 3


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"agents": []}', "0 agents"),
        ('{"agents": [{"agent_id": "a"}, {"agent_id": "a"}]}', "'a' is declared twice"),
        ('{"agents": [{"agent_id": "a", "after": ["b"]}]}', "'a' comes after unknown 'b'"),
        ('{"agents": [{"agent_id": "a", "after": ["a", "a"]}]}', "after one agent twice"),
        ('{"agents": [{"agent_id": ""}]}', "length >= 1"),
        ('{"agents": [{"agent_id": "a", "join": "some"}]}', "Invalid enum value"),
        ('{"agents": [{"agent_id": "a", "before": ["a"]}]}', "unknown field"),
        ('{"agents": [{"after": []}]}', "agent_id"),
    ],
)
def test_bad_graph_is_refused_with_a_reason(text: str, reason: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=reason):
        msgspec.json.decode(text, type=WorkflowGraph)


def test_too_large_graph_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workflow_graph, "MAX_AGENTS", 2)
    monkeypatch.setattr(workflow_graph, "MAX_EDGES", 2)
    with pytest.raises(ValueError, match="3 agents; expected 1 to 2"):
        graph("a", "b", "c")
    with pytest.raises(ValueError, match="3 entries of 'after'; expected 2 at most"):
        graph("a<a,b", "b<a")


# Against a naive fixed point.


class Naive:
    """Every step from scratch by iteration, with a token for each end that is not used up."""

    def __init__(self, graph: WorkflowGraph, max_steps: int) -> None:
        self.agents = {agent.agent_id: agent for agent in graph.agents}
        self.max_steps = max_steps
        self.running = dict.fromkeys(self.agents, 0)
        self.may_begin = {name for name, agent in self.agents.items() if agent.is_entry}
        self.tokens: set[tuple[str, str]] = set()

    def began(self, name: str) -> None:
        self.running[name] += 1
        self.may_begin.discard(name)
        for earlier in self.agents[name].after:
            if (earlier, name) in self.tokens:
                self.tokens.discard((earlier, name))
                if self.agents[earlier].fork == "one":
                    self.tokens = {token for token in self.tokens if token[0] != earlier}

    def ended(self, name: str) -> None:
        if not self.running[name]:
            return
        self.running[name] -= 1
        if self.running[name]:
            return
        self.tokens |= {(name, n) for n, agent in self.agents.items() if name in agent.after}
        if not any(self.running.values()) and all(s is None for s in self.steps().values()):
            self.tokens.clear()
            self.may_begin = {n for n, agent in self.agents.items() if agent.is_entry}

    def steps(self) -> dict[str, int | None]:
        far = 10**6
        steps = dict.fromkeys(self.agents, far)
        while True:
            new = {name: self._step(name, steps, far) for name in self.agents}
            if new == steps:
                return {n: s if s <= self.max_steps else None for n, s in steps.items()}
            steps = new

    def _step(self, name: str, steps: dict[str, int], far: int) -> int:
        agent = self.agents[name]
        if self.running[name]:
            return 0
        if name in self.may_begin:
            return 1
        if not agent.after:
            return far
        before = [0 if (e, name) in self.tokens else steps[e] for e in agent.after]
        return min(1 + (max(before) if agent.join == "all" else min(before)), far)


def random_graph(rng: random.Random, num_agents: int) -> WorkflowGraph:
    names = [f"a{number}" for number in range(num_agents)]
    return WorkflowGraph(
        tuple(
            AgentStep(
                name,
                tuple(rng.sample(names, rng.randint(0, min(3, num_agents)))),
                join=rng.choice(("all", "any")),
                fork=rng.choice(("all", "all", "one")),
                entry=rng.random() < 0.2,
            )
            for name in names
        )
    )


@settings(max_examples=300, deadline=None)
@given(
    seed=st.integers(0, 10**9), num_agents=st.integers(1, 12), max_steps=st.sampled_from((2, 5, 64))
)
def test_steps_equal_the_naive_fixed_point(seed: int, num_agents: int, max_steps: int) -> None:
    rng = random.Random(seed)
    declared = random_graph(rng, num_agents)
    steps, naive = StepGraph(declared, max_steps), Naive(declared, max_steps)
    assert steps_of(steps) == naive.steps()
    for _ in range(40):
        before = naive.steps()
        steps.take_changes()
        likely = [name for name, count in before.items() if count == 1]
        running = [name for name, number in naive.running.items() if number]
        if running and rng.random() < 0.5:
            name = rng.choice(running)
            steps.ended(name)
            naive.ended(name)
        else:
            pick_next = likely and rng.random() < 0.8
            name = rng.choice(likely if pick_next else list(naive.agents))
            steps.began(name)
            naive.began(name)
        after = naive.steps()
        assert steps_of(steps) == after
        changed = {n: s for n, s in before.items() if s != after[n]}
        changes = steps.take_changes()
        assert {n: s for n, s in changes.items() if after[n] != s} == changed
        nearest = sorted((s, n) for n, s in after.items() if s is not None and 1 <= s <= 3)
        assert sorted(steps.next_agents(3)) == nearest
    again = steps_of(steps)
    steps.recompute()
    assert steps_of(steps) == again


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 10**9), num_agents=st.integers(1, 12), max_work=st.integers(1, 8))
def test_steps_settle_over_several_updates(seed: int, num_agents: int, max_work: int) -> None:
    rng = random.Random(seed)
    declared = random_graph(rng, num_agents)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StepGraph.settle, "__defaults__", (max_work,))
        steps, naive = StepGraph(declared), Naive(declared, 64)
        for _ in range(40):
            running = [name for name, number in naive.running.items() if number]
            if running and rng.random() < 0.5:
                name = rng.choice(running)
                steps.ended(name)
                naive.ended(name)
                steps.settle(10_000)  # whether all may begin again is known when all is settled
            else:
                name = rng.choice(list(naive.agents))
                steps.began(name)
                naive.began(name)
    steps.settle(10_000)
    assert steps_of(steps) == naive.steps()


def test_update_settles_only_agents_whose_steps_change() -> None:
    names = [f"a{number}" for number in range(1000)]
    ring = [AgentStep(n, (names[i - 1],), entry=i == 0) for i, n in enumerate(names)]
    steps = StepGraph(WorkflowGraph(tuple(ring)), max_steps=8)
    for name in names[:10]:
        before = steps.num_settled
        steps.began(name)
        steps.ended(name)
        assert steps.num_settled - before <= 8 + 2
