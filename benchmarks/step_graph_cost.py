"""Measures the CPU time of step graphs of ten thousand agents.

python benchmarks/step_graph_cost.py [--agents N] [--updates N] [--output DIR]

Four graphs: a ring; layers of a hundred, each agent after three of the layer before, joining all or
any; a hub, all others, and a join of all; and a random graph with loops. Calls of agents that are
next begin and end in seeded random order, half of each, so that many run at once. Times are CPU
time of the thread, so that a busy machine disturbs them less; agents settled are counted. `runtime`
is what the scheduler does, `DeclaredWorkflows.follow`, with a thousand workflows of the same ten.
"""

from __future__ import annotations

import argparse
import gc
import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from holdfast.cache.prefix_tree import PrefixTree
from holdfast.core.agents import AgentKey
from holdfast.core.events import TurnArrived, TurnEnded
from holdfast.core.identity import Identity
from holdfast.core.session import SessionTable
from holdfast.core.turn import Turn
from holdfast.core.workflow_graph import AgentStep, WorkflowGraph
from holdfast.predict.declared_workflows import DeclaredWorkflows
from holdfast.predict.step_graph import StepGraph
from holdfast.report.manifest import run_manifest

LAYER = 100
FULL_REPEATS = 20
QUERY_REPEATS = 20_000
WORKFLOW_AGENTS = 10


class Cost(msgspec.Struct, frozen=True):
    """What one graph costs.

    Attributes:
        name: The graph.
        num_edges: Its edges (count).
        build_s: Time to build it (s).
        full_s: Times to compute all steps anew (s).
        update_s: Times of updates (s).
        num_settled: Agents that each update settled (counts).
        query_s: Mean time of a query (s).
    """

    name: str
    num_edges: int
    build_s: float
    full_s: list[float]
    update_s: list[float]
    num_settled: list[int]
    query_s: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--agents", type=int, default=10_000)
    parser.add_argument("--updates", type=int, default=4000)
    parser.add_argument("--output", type=Path, default=Path("out"))
    options = parser.parse_args()
    gc.disable()
    costs = [
        measure(name, graph, options.updates) for name, graph in graphs(options.agents, seed=0)
    ]
    costs.append(measure_runtime(options.agents // WORKFLOW_AGENTS, options.updates))
    arguments = {"agents": options.agents, "updates": options.updates}
    manifest = run_manifest(arguments=arguments, runs=())
    options.output.mkdir(parents=True, exist_ok=True)
    stem = options.output / "step_graph_cost"
    summary = [row(cost) for cost in costs]
    document = {"manifest": manifest, "costs": summary}
    stem.with_suffix(".json").write_bytes(msgspec.json.encode(document) + b"\n")
    text = "\n".join(table(summary)) + "\n"
    stem.with_suffix(".md").write_text(text)
    print(text)


def graphs(num_agents: int, seed: int) -> Iterator[tuple[str, WorkflowGraph]]:
    """The graphs, by name."""
    rng = random.Random(seed)
    names = [f"agent-{number}" for number in range(num_agents)]

    def join() -> str:
        return rng.choice(("all", "any"))

    def layered(number: int) -> AgentStep:
        first = number // LAYER * LAYER
        before = rng.sample(names[first - LAYER : first], 3) if first else ()
        return AgentStep(names[number], tuple(before), join())  # type: ignore[arg-type]

    ring = [AgentStep(n, (names[i - 1],), entry=i == 0) for i, n in enumerate(names)]
    hub = [
        AgentStep(names[0]),
        *(AgentStep(name, (names[0],)) for name in names[1:-1]),
        AgentStep(names[-1], tuple(names[1:-1])),
    ]
    loose = [
        AgentStep(name, tuple(rng.sample(names, rng.randint(0, 3))), join())  # type: ignore[arg-type]
        for name in names
    ]
    yield "ring", WorkflowGraph(tuple(ring))
    yield "layers", WorkflowGraph(tuple(map(layered, range(num_agents))))
    yield "hub and join", WorkflowGraph(tuple(hub))
    yield "random", WorkflowGraph(tuple(loose))


def measure(name: str, graph: WorkflowGraph, num_updates: int) -> Cost:
    """What a graph costs."""
    build_s, steps = timed(lambda: StepGraph(graph))
    full_s = [timed(steps.recompute)[0] for _ in range(FULL_REPEATS)]
    rng = random.Random(1)
    running: list[str] = []
    update_s: list[float] = []
    num_settled: list[int] = []
    while len(update_s) < num_updates:
        following = [agent for _, agent in steps.next_agents(1)]
        before = steps.num_settled
        if running and (rng.random() < 0.5 or not following):
            agent = running.pop(rng.randrange(len(running)))
            elapsed_s, _ = timed(lambda agent=agent: steps.ended(agent))  # type: ignore[misc]
        elif following:
            agent = rng.choice(following)
            running.append(agent)
            elapsed_s, _ = timed(lambda agent=agent: steps.began(agent))  # type: ignore[misc]
        else:
            elapsed_s, _ = timed(steps.settle)
        update_s.append(elapsed_s)
        num_settled.append(steps.num_settled - before)
    asked = graph.agents[len(graph.agents) // 2].agent_id
    num_edges = graph.size - len(graph.agents)
    return Cost(
        name, num_edges, build_s, full_s, update_s, num_settled, query(steps.steps_to, asked)
    )


def measure_runtime(num_workflows: int, num_updates: int) -> Cost:
    """What many small workflows cost that have the same agents."""
    names = [f"agent-{number}" for number in range(WORKFLOW_AGENTS)]
    ring = WorkflowGraph(
        tuple(AgentStep(n, (names[i - 1],), entry=i == 0) for i, n in enumerate(names))
    )
    workflows = DeclaredWorkflows()

    def declare() -> None:
        for number in range(num_workflows):
            workflows.declare("", f"w{number}", ring, 0.0)

    build_s, _ = timed(declare)
    rng = random.Random(2)
    table = SessionTable(PrefixTree(), 1)
    running: list[Turn | None] = [None] * num_workflows
    num_calls = [0] * num_workflows
    update_s, num_settled = [], []
    for _ in range(num_updates):
        number = rng.randrange(num_workflows)
        steps = workflows.graph_of("", f"w{number}")
        assert steps is not None
        before = steps.num_settled
        turn = running[number]
        if turn is None:
            session = table.add(None)
            agent = names[num_calls[number] % WORKFLOW_AGENTS]
            session.identity = Identity(agent_id=agent, workflow_id=f"w{number}")
            running[number] = turn = Turn("", session, 0, 0)
            num_calls[number] += 1
            event: TurnArrived | TurnEnded = TurnArrived(0.0, turn)
        else:
            running[number] = None
            event = TurnEnded(0.0, turn)
        update_s.append(timed(lambda event=event: workflows.follow(event))[0])  # type: ignore[misc]
        num_settled.append(steps.num_settled - before)
    asked = AgentKey("", names[0])
    num_edges = num_workflows * WORKFLOW_AGENTS
    cost_s = query(workflows.steps_to, asked)
    return Cost("runtime", num_edges, build_s, [build_s], update_s, num_settled, cost_s)


def timed(act: Callable[[], object]) -> tuple[float, StepGraph]:
    """CPU time of an act (s), and its result."""
    started_s = time.thread_time()
    result = act()
    return time.thread_time() - started_s, result  # type: ignore[return-value]


def query(steps_to: Callable[[AgentKey | str], object], agent: AgentKey | str) -> float:
    """Mean CPU time of a query (s)."""
    started_s = time.thread_time()
    for _ in range(QUERY_REPEATS):
        steps_to(agent)
    return (time.thread_time() - started_s) / QUERY_REPEATS


def row(cost: Cost) -> dict[str, Any]:
    """Medians and extremes of a graph's costs."""
    ordered = sorted(cost.update_s)
    return {
        "graph": cost.name,
        "edges": cost.num_edges,
        "build_ms": 1e3 * cost.build_s,
        "full_median_ms": 1e3 * statistics.median(cost.full_s),
        "full_worst_ms": 1e3 * max(cost.full_s),
        "update_median_us": 1e6 * statistics.median(ordered),
        "update_p99_us": 1e6 * ordered[int(0.99 * len(ordered))],
        "update_worst_us": 1e6 * ordered[-1],
        "settled_median": statistics.median(cost.num_settled),
        "settled_worst": max(cost.num_settled),
        "query_us": 1e6 * cost.query_s,
    }


def table(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """The rows as a table."""
    yield (
        "| graph | edges | build, ms | full, median and worst, ms "
        "| update, median, p99 and worst, us | settled by an update, median and worst | query, us |"
    )
    yield "|---|---|---|---|---|---|---|"
    for each in rows:
        yield (
            f"| {each['graph']} | {each['edges']:,} | {each['build_ms']:.1f} "
            f"| {each['full_median_ms']:.1f}, {each['full_worst_ms']:.1f} "
            f"| {each['update_median_us']:.0f}, {each['update_p99_us']:.0f}, "
            f"{each['update_worst_us']:.0f} "
            f"| {each['settled_median']:.0f}, {each['settled_worst']} | {each['query_us']:.2f} |"
        )


if __name__ == "__main__":
    main()
