"""LangGraph's graphs as step graphs, and its nodes as agents."""

from __future__ import annotations

import asyncio
import operator
from collections.abc import Iterator
from typing import Annotated, Any, Literal, TypedDict

import httpx
import msgspec
import pytest
from tests.client.recording_server import RecordingServer

from holdfast.client import agent, attach, flush, session
from holdfast.core.workflow_graph import WorkflowGraph
from holdfast.errors import ConfigError

pytest.importorskip("langgraph")

from langchain_core.messages import AIMessage
from langchain_core.tools import tool
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from langgraph.types import Command, Send

from holdfast.client.langgraph import graph_workflow, step_graph


class State(TypedDict):
    seen: Annotated[list[str], operator.add]


def quiet(state: State) -> dict[str, list[str]]:
    return {"seen": ["x"]}


def graph_of(*names: str, node: Any = quiet) -> StateGraph[Any, Any, Any, Any]:
    graph: StateGraph[Any, Any, Any, Any] = StateGraph(State)
    for name in names:
        graph.add_node(name, node)
    return graph


@pytest.fixture
def client(server: RecordingServer) -> Iterator[httpx.Client]:
    with attach(httpx.Client(base_url=server.url), token="secret") as attached:
        yield attached


def test_sequence_is_a_chain_of_agents() -> None:
    graph = graph_of("plan", "write").add_edge(START, "plan").add_edge("plan", "write")
    assert step_graph(graph.compile()) == {
        "agents": [{"agent_id": "plan"}, {"agent_id": "write", "after": ["plan"]}]
    }


def test_edge_from_several_nodes_joins_all() -> None:
    graph = graph_of("plan", "a", "b", "merge").add_edge(START, "plan")
    graph.add_edge("plan", "a").add_edge("plan", "b").add_edge(["a", "b"], "merge")
    *_, merge = step_graph(graph.compile())["agents"]
    assert merge == {"agent_id": "merge", "after": ["a", "b"], "join": "all"}


def test_separate_edges_join_any() -> None:
    graph = graph_of("a", "b", "merge").add_edge(START, "a").add_edge(START, "b")
    graph.add_edge("a", "merge").add_edge("b", "merge")
    *_, merge = step_graph(graph.compile())["agents"]
    assert merge == {"agent_id": "merge", "after": ["a", "b"], "join": "any"}


def test_conditional_edges_run_one_and_may_loop() -> None:
    graph = graph_of("write", "judge", "publish").add_edge(START, "write")
    graph.add_edge("write", "judge")
    graph.add_conditional_edges("judge", lambda state: "write", ["write", "publish"])
    assert step_graph(graph.compile())["agents"] == [
        {"agent_id": "write", "after": ["judge"], "entry": True, "join": "any"},
        {"agent_id": "judge", "after": ["write"], "fork": "one"},
        {"agent_id": "publish", "after": ["judge"]},
    ]


def test_command_destinations_are_conditional() -> None:
    def route(state: State) -> Command[Literal["a", "b"]]:
        return Command(goto="a")

    graph = graph_of("a", "b").add_node("route", route).add_edge(START, "route")
    found = {step["agent_id"]: step for step in step_graph(graph.compile())["agents"]}
    assert found["route"] == {"agent_id": "route", "fork": "one"}
    assert found["a"]["after"] == found["b"]["after"] == ["route"]


def test_subgraphs_are_taken_apart() -> None:
    team = graph_of("draft", "check").add_edge(START, "draft").add_edge("draft", "check")
    graph = graph_of("plan", "other", "end").add_node("team", team.compile())
    graph.add_edge(START, "plan").add_edge("plan", "team").add_edge("plan", "other")
    graph.add_edge(["team", "other"], "end")
    found = {step["agent_id"]: step for step in step_graph(graph.compile())["agents"]}
    assert found["team:draft"] == {"agent_id": "team:draft", "after": ["plan"]}
    assert found["end"] == {"agent_id": "end", "after": ["other", "team:check"], "join": "all"}


def test_nodes_that_call_no_model_are_passed_over() -> None:
    graph = graph_of("plan", "a", "b", "merge", "write").add_edge(START, "plan")
    graph.add_edge("plan", "a").add_edge("plan", "b").add_edge(["a", "b"], "merge")
    graph.add_edge("merge", "write")
    *_, write = step_graph(graph.compile(), ["plan", "a", "b", "write"])["agents"]
    assert write == {"agent_id": "write", "after": ["a", "b"], "join": "all"}


def test_engine_takes_the_step_graph() -> None:
    team = graph_of("draft", "check").add_edge(START, "draft").add_edge("draft", "check")
    team.add_conditional_edges("check", lambda state: END, ["draft", "check", END])
    graph = graph_of("plan", "other", "end").add_node("team", team.compile())
    graph.add_edge(START, "plan").add_edge("plan", "team").add_edge("plan", "other")
    graph.add_edge(["team", "other"], "end").add_edge("end", "plan")
    taken = msgspec.convert(step_graph(graph.compile()), WorkflowGraph)
    steps = {step.agent_id: step for step in taken.agents}
    assert steps["plan"].is_entry and steps["plan"].after == ("end",)
    assert set(steps["team:check"].after) == {"team:draft", "team:check"}
    assert steps["end"].join == "all"


def test_unknown_agents_are_refused() -> None:
    graph = graph_of("plan").add_edge(START, "plan").compile()
    with pytest.raises(ConfigError, match="no node 'plam'"):
        step_graph(graph, ["plam"])


def test_nodes_name_their_requests(server: RecordingServer, client: httpx.Client) -> None:
    def ask(state: State) -> dict[str, list[str]]:
        client.post("/v1/completions", json={})
        return {"seen": ["x"]}

    graph = graph_of("plan", "write", node=ask).add_edge(START, "plan").add_edge("plan", "write")
    app = graph.compile()
    with graph_workflow(app) as run:
        app.invoke({"seen": []})
        client.post("/v1/completions", json={})
    assert flush()
    assert [request.ours for request in server.turns] == [
        {"session-id": f"{run.id}/{name}", "agent-id": name, "workflow-id": run.id}
        for name in ("plan", "write")
    ] + [{"workflow-id": run.id}]
    assert (
        server.commands
        == [
            ("PUT", f"/workflows/{run.id}", step_graph(app)),
            ("DELETE", f"/sessions/{run.id}%2Fplan", None),
            ("DELETE", f"/sessions/{run.id}%2Fwrite", None),
            ("DELETE", f"/workflows/{run.id}", None),
        ]
        or set(map(str, server.commands)) == set()
    )


async def test_async_nodes_at_once_name_their_requests(server: RecordingServer) -> None:
    async with attach(httpx.AsyncClient(base_url=server.url)) as client:

        async def ask(state: State) -> dict[str, list[str]]:
            await client.post("/v1/completions", json={})
            return {"seen": ["x"]}

        graph = graph_of("plan", "look", node=ask).add_edge(START, "plan")
        graph.add_conditional_edges("plan", lambda s: [Send("look", s)] * 3, ["look"])
        with graph_workflow(graph.compile(), "w") as run:
            await graph.compile().ainvoke({"seen": []})
    assert run.id == "w"
    sent = sorted(request.ours["session-id"] for request in server.turns)
    assert sent == ["w/look/0", "w/look/1", "w/look/2", "w/plan"]


def test_loops_continue_a_nodes_session(server: RecordingServer, client: httpx.Client) -> None:
    def ask(state: State) -> dict[str, list[str]]:
        client.post("/v1/completions", json={})
        return {"seen": ["x"]}

    graph = graph_of("write", "judge", node=ask).add_edge(START, "write")
    graph.add_edge("write", "judge")
    graph.add_conditional_edges(
        "judge", lambda state: END if len(state["seen"]) > 3 else "write", ["write", END]
    )
    with graph_workflow(graph.compile(), "w"):
        graph.compile().invoke({"seen": []})
    sent = [request.ours["session-id"] for request in server.turns]
    assert sent == ["w/write", "w/judge", "w/write", "w/judge"]


def test_nodes_of_subgraphs_and_blocks_in_nodes(
    server: RecordingServer, client: httpx.Client
) -> None:
    def ask(state: State) -> dict[str, list[str]]:
        client.post("/v1/completions", json={})
        with agent("helper", session_id="h"):
            client.post("/v1/completions", json={})
        return {"seen": ["x"]}

    team = graph_of("draft", node=ask).add_edge(START, "draft")
    graph = graph_of().add_node("team", team.compile()).add_edge(START, "team").compile()
    with session("chat"), graph_workflow(graph, "w"):
        graph.invoke({"seen": []})
    draft, helper = [request.ours for request in server.turns]
    assert draft == {
        "session-id": "w/team:draft",
        "agent-id": "team:draft",
        "workflow-id": "w",
    }
    assert helper == {
        "session-id": "h",
        "parent-session-id": "w/team:draft",
        "agent-id": "helper",
        "workflow-id": "w",
    }


@pytest.mark.parametrize("is_async", [False, True])
def test_tool_nodes_run_tools_of_the_agent_before_them(
    is_async: bool, server: RecordingServer, client: httpx.Client
) -> None:
    def look(place: str) -> str:
        """Look somewhere."""
        client.post("/v1/completions", json={})
        if place == "broken":
            raise ValueError(place)
        return "nothing"

    def think(state: MessagesState) -> dict[str, Any]:
        client.post("/v1/completions", json={})
        if len(state["messages"]) > 1:
            return {"messages": [AIMessage("done")]}
        calls = [{"name": "look", "args": {"place": p}, "id": p} for p in ("here", "broken")]
        return {"messages": [AIMessage("", tool_calls=calls)]}

    graph: StateGraph[Any, Any, Any, Any] = StateGraph(MessagesState)
    graph.add_node("think", think)
    graph.add_node("tools", ToolNode([tool(look)], handle_tool_errors=True))
    graph.add_edge(START, "think").add_edge("tools", "think")
    graph.add_conditional_edges(
        "think", lambda s: "tools" if s["messages"][-1].tool_calls else END, ["tools", END]
    )
    app = graph.compile()
    assert step_graph(app)["agents"] == [
        {"agent_id": "think", "after": ["think"], "entry": True, "join": "any"}
    ]
    with graph_workflow(app, "w"):
        prompt: Any = {"messages": [("user", "look")]}
        asyncio.run(app.ainvoke(prompt)) if is_async else app.invoke(prompt)
    assert flush()
    assert {request.ours["session-id"] for request in server.turns} == {"w/think"}
    events = [body for _, path, body in server.commands if path == "/sessions/w%2Fthink/tools"]
    assert events[0] == {"event": "started", "tool": "look"}
    assert events[-1] == {"event": "finished", "tool": "look"}


def test_graphs_outside_of_the_block_name_nothing(
    server: RecordingServer, client: httpx.Client
) -> None:
    def ask(state: State) -> dict[str, list[str]]:
        client.post("/v1/completions", json={})
        return {"seen": ["x"]}

    graph_of("plan", node=ask).add_edge(START, "plan").compile().invoke({"seen": []})
    assert server.turns[0].ours == {}
