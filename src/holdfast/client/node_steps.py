"""A LangGraph graph as a step graph of the nodes that call a model."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from holdfast.client.names import clean_id
from holdfast.client.workflow import Step, StepGraph
from holdfast.errors import ConfigError

__all__ = ["NodeSteps", "steps_of"]

_START: Final = "__start__"
_END: Final = "__end__"


@dataclass(frozen=True, slots=True)
class NodeSteps:
    """The agents of a graph.

    Attributes:
        graph: Their order.
        before_passed: Nodes that are no agents, each with the agents right before it.
    """

    graph: StepGraph
    before_passed: Mapping[str, frozenset[str]]


@dataclass(frozen=True, slots=True)
class _Inputs:
    """What leads to a node.

    Attributes:
        agents: Agents before it, and whether all ways from each are conditional.
        joins_all: Whether it waits for all of them.
        is_entry: Whether a run may begin with it.
    """

    agents: Mapping[str, bool]
    joins_all: bool
    is_entry: bool


@dataclass(frozen=True, slots=True)
class _Edges:
    """Edges of a graph.

    Attributes:
        agents: Nodes that call a model.
        joins: Nodes that wait for several others, each with these.
        before: Sources of each node, and whether all edges from each are conditional.
    """

    agents: frozenset[str]
    joins: Mapping[str, frozenset[str]]
    before: dict[str, dict[str, bool]] = field(default_factory=lambda: defaultdict(dict))


def steps_of(graph: Any, agents: Collection[str] | None = None) -> NodeSteps:
    """Return the steps of a compiled graph. Pure.

    Args:
        graph: The compiled graph.
        agents: Nodes that call a model; None for all but tool nodes.

    Raises:
        ConfigError: An agent is no node of the graph.
    """
    drawn = graph.get_graph(xray=True)
    tool_nodes = {name for name, node in drawn.nodes.items() if "__tools" in (node.metadata or {})}
    nodes = [name for name in drawn.nodes if name.rpartition(":")[2] not in (_START, _END)]
    unknown = sorted(set(agents or ()) - set(nodes))
    if unknown:
        raise ConfigError(
            f"the graph has no node {unknown[0]!r}", hint=f"its nodes are {', '.join(nodes)}"
        )
    chosen = [n for n in nodes if (n not in tool_nodes if agents is None else n in agents)]
    edges = _Edges(frozenset(chosen), dict(_joins(graph, "")))
    for edge in drawn.edges:
        known = edges.before[edge.target].get(edge.source, True)
        edges.before[edge.target][edge.source] = bool(edge.conditional) and known
    inputs = {node: _inputs(node, edges) for node in nodes}
    passed = {n: frozenset(inputs[n].agents) for n in nodes if n not in chosen}
    return NodeSteps(_graph({node: inputs[node] for node in chosen}), passed)


def _joins(graph: Any, prefix: str) -> Iterator[tuple[str, frozenset[str]]]:
    """Nodes that wait for several others, each with these; subgraphs included."""
    builder = getattr(graph, "builder", None)
    for sources, target in getattr(builder, "waiting_edges", ()):
        yield prefix + target, frozenset(prefix + source for source in sources)
    for name, subgraph in graph.get_subgraphs():
        yield from _joins(subgraph, f"{prefix}{name}:")


def _inputs(node: str, edges: _Edges) -> _Inputs:
    """What leads to a node, over nodes that are no agents."""
    reached = _reached(node, edges)
    always = _reached(node, edges, is_conditional=False)
    agents = {agent: agent not in always for agent in reached & edges.agents}
    joining = node
    for _ in range(len(reached)):
        sources = edges.before[joining].keys()
        if len(sources) != 1 or sources & edges.agents:
            break
        (joining,) = sources
    joins_all = _is_join(edges.joins.get(joining, frozenset()), edges.before[joining])
    return _Inputs(agents, joins_all, _START in reached)


def _reached(node: str, edges: _Edges, *, is_conditional: bool = True) -> set[str]:
    """Nodes on the ways back from a node to agents, without it unless it loops."""
    found: set[str] = set()
    waiting = [node]
    while waiting:
        for source, is_conditional_edge in edges.before[waiting.pop()].items():
            if source in found or (is_conditional_edge and not is_conditional):
                continue
            found.add(source)
            if source not in edges.agents:
                waiting.append(source)
    return found


def _is_join(awaited: Collection[str], sources: Collection[str]) -> bool:
    """Whether the sources are those awaited; a subgraph is by its one end. Pure."""
    found = [
        name
        for source in sources
        for name in awaited
        if source == name or source.startswith(f"{name}:")
    ]
    return bool(found) and sorted(found) == sorted(awaited) and len(found) == len(sources)


def _graph(inputs: Mapping[str, _Inputs]) -> StepGraph:
    after: dict[str, list[bool]] = defaultdict(list)
    for found in inputs.values():
        for agent, is_conditional in found.agents.items():
            after[agent].append(is_conditional)
    steps: list[Step] = []
    for node, found in inputs.items():
        step = Step(agent_id=_agent(node))
        if found.agents:
            step["after"] = [_agent(agent) for agent in sorted(found.agents)]
            if len(found.agents) > 1:
                step["join"] = "all" if found.joins_all else "any"
            if found.is_entry:
                step |= {"entry": True, "join": "any"}
        if len(after[node]) > 1 and all(after[node]):
            step["fork"] = "one"
        steps.append(step)
    return {"agents": steps}


def _agent(node: str) -> str:
    return clean_id(node, what="node")
