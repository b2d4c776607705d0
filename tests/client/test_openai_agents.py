"""The OpenAI Agents SDK's agents, tools and hand-offs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import openai
import pytest
from tests.client.recording_server import RecordingServer, call_of

from holdfast.client import attach, flush, session
from holdfast.core.workflow_graph import WorkflowGraph

pytest.importorskip("agents")

import agents

from holdfast.client import scope
from holdfast.client.openai_agents import HoldfastTracing, step_graph


@pytest.fixture
async def model(server: RecordingServer, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Any]:
    """A model whose client is attached, and tracing that nothing is sent of."""
    monkeypatch.setattr(scope, "_sources", [])
    agents.set_tracing_disabled(False)
    agents.set_trace_processors([HoldfastTracing()])
    client = openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none")
    async with attach(client, token="secret"):
        yield agents.OpenAIChatCompletionsModel("m", client)
    agents.set_trace_processors([])


def agent_of(name: str, model: Any, **options: Any) -> Any:
    return agents.Agent(name=name, instructions=f"You are {name}.", model=model, **options)


async def test_agent_has_a_session_of_its_conversation(server: RecordingServer, model: Any) -> None:
    for _ in range(2):
        config = agents.RunConfig(group_id="chat-7")
        await agents.Runner.run(agent_of("coder", model), "hello", run_config=config)
    sent = {"session-id": "chat-7/coder", "agent-id": "coder"}
    assert [request.ours for request in server.turns] == [sent, sent]
    assert flush()
    assert server.commands == []


async def test_session_of_a_lone_run_ends_with_it(server: RecordingServer, model: Any) -> None:
    await agents.Runner.run(agent_of("coder", model), "hello")
    (request,) = server.turns
    assert flush()
    quoted = request.ours["session-id"].replace("/", "%2F")
    assert server.commands == [("DELETE", f"/sessions/{quoted}", None)]


async def test_block_around_a_run_names_its_conversation(
    server: RecordingServer, model: Any
) -> None:
    with session("ticket-1"):
        await agents.Runner.run(agent_of("coder", model), "hello")
    assert server.turns[0].ours == {"session-id": "ticket-1/coder", "agent-id": "coder"}


async def test_tools_are_the_agents_that_call_them(server: RecordingServer, model: Any) -> None:
    def look(place: str) -> str:
        """Look somewhere."""
        return place

    server.messages = [call_of("look", place="here")]
    coder = agent_of("coder", model, tools=[agents.function_tool(look)])
    await agents.Runner.run(coder, "hello", run_config=agents.RunConfig(group_id="c"))
    assert flush()
    assert server.commands == [
        ("POST", "/sessions/c%2Fcoder/tools", {"event": "started", "tool": "look"}),
        ("POST", "/sessions/c%2Fcoder/tools", {"event": "finished", "tool": "look"}),
    ]


async def test_agent_after_a_hand_off_is_no_sub_agent(server: RecordingServer, model: Any) -> None:
    server.messages = [call_of("transfer_to_billing")]
    triage = agent_of("triage", model, handoffs=[agent_of("billing", model)])
    await agents.Runner.run(triage, "hello", run_config=agents.RunConfig(group_id="c"))
    assert [request.ours for request in server.turns] == [
        {"session-id": "c/triage", "agent-id": "triage"},
        {"session-id": "c/billing", "agent-id": "billing"},
    ]


async def test_agent_as_a_tool_is_a_sub_agent(server: RecordingServer, model: Any) -> None:
    server.messages = [call_of("research", input="caches")]
    researcher = agent_of("researcher", model).as_tool("research", "Finds things out.")
    lead = agent_of("lead", model, tools=[researcher])
    await agents.Runner.run(lead, "hello", run_config=agents.RunConfig(group_id="c"))
    first, inner, last = [request.ours for request in server.turns]
    assert first == last == {"session-id": "c/lead", "agent-id": "lead"}
    assert inner["parent-session-id"] == "c/lead"
    assert inner["agent-id"] == "researcher"
    assert inner["session-id"].startswith("c/lead/researcher/")
    assert flush()
    assert [method for method, _, _ in server.commands] == ["POST", "DELETE", "POST"]


async def test_runs_at_once_keep_their_agents(server: RecordingServer, model: Any) -> None:
    async def run(name: str) -> None:
        config = agents.RunConfig(group_id=name)
        await agents.Runner.run(agent_of(f"agent-{name}", model), name, run_config=config)

    await asyncio.gather(*(run(name) for name in "abcdef"))
    for request in server.turns:
        name = request.body["messages"][-1]["content"]
        assert request.ours == {
            "session-id": f"{name}/agent-{name}",
            "agent-id": f"agent-{name}",
        }
    assert len(server.turns) == 6


def test_hand_offs_are_a_step_graph() -> None:
    billing, support = agents.Agent(name="billing"), agents.Agent(name="support")
    triage = agents.Agent(name="triage", handoffs=[billing, agents.handoff(support)])
    support.handoffs = [triage]
    assert step_graph(triage) == {
        "agents": [
            {
                "agent_id": "triage",
                "fork": "one",
                "after": ["support"],
                "join": "any",
                "entry": True,
            },
            {"agent_id": "billing", "fork": "one", "after": ["triage"], "join": "any"},
            {"agent_id": "support", "fork": "one", "after": ["triage"], "join": "any"},
        ]
    }
    assert len(msgspec.convert(step_graph(triage), WorkflowGraph).agents) == 3
