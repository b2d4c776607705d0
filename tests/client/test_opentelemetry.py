"""Sessions, agents and tools from OpenTelemetry's GenAI spans."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import httpx
import pytest
from tests.client.recording_server import RecordingServer

from holdfast.client import agent, attach, flush, scope, session

pytest.importorskip("opentelemetry.sdk")

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import Tracer

from holdfast.client import spans
from holdfast.client.opentelemetry import HoldfastSpanProcessor

AGENT = {"gen_ai.operation.name": "invoke_agent"}


@pytest.fixture
def tracer(monkeypatch: pytest.MonkeyPatch) -> Tracer:
    monkeypatch.setattr(scope, "_sources", [])
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(HoldfastSpanProcessor())
    return provider.get_tracer("test")


@pytest.fixture
def client(server: RecordingServer) -> Iterator[httpx.Client]:
    with attach(httpx.Client(base_url=server.url), token="secret") as attached:
        yield attached


def send(client: httpx.Client) -> None:
    client.post("/v1/completions", json={})


def invoke(name: str, conversation: str = "") -> dict[str, str]:
    named = {"gen_ai.conversation.id": conversation} if conversation else {}
    return AGENT | {"gen_ai.agent.name": name} | named


def test_agent_span_names_its_requests(
    server: RecordingServer, client: httpx.Client, tracer: Tracer
) -> None:
    with (
        tracer.start_as_current_span("invoke", attributes=invoke("coder", "chat-7")),
        tracer.start_as_current_span("chat", attributes={"gen_ai.operation.name": "chat"}),
        tracer.start_as_current_span("POST"),
    ):
        send(client)
    send(client)
    assert [request.ours for request in server.turns] == [
        {"session-id": "chat-7/coder", "agent-id": "coder"},
        {},
    ]
    assert flush()
    assert server.commands == []


def test_attributes_may_be_set_after_the_start(
    server: RecordingServer, client: httpx.Client, tracer: Tracer
) -> None:
    with tracer.start_as_current_span("invoke") as span:
        span.set_attributes(invoke("coder", "c"))
        send(client)
    assert server.turns[0].ours == {"session-id": "c/coder", "agent-id": "coder"}


def test_conversation_without_an_agent_is_a_session(
    server: RecordingServer, client: httpx.Client, tracer: Tracer
) -> None:
    with tracer.start_as_current_span("chat", attributes={"gen_ai.conversation.id": "c"}):
        send(client)
    assert server.turns[0].ours == {"session-id": "c"}


def test_agent_in_an_agent_is_a_sub_agent(
    server: RecordingServer, client: httpx.Client, tracer: Tracer
) -> None:
    with tracer.start_as_current_span("outer", attributes=invoke("lead", "c")):
        send(client)
        with tracer.start_as_current_span("inner", attributes=invoke("researcher", "c")):
            send(client)
    inner = server.turns[1].ours
    assert inner["session-id"].startswith("c/lead/researcher/")
    assert (inner["parent-session-id"], inner["agent-id"]) == ("c/lead", "researcher")
    assert flush()
    ((method, path, _),) = server.commands
    assert (method, path) == ("DELETE", "/sessions/" + inner["session-id"].replace("/", "%2F"))


def test_session_of_a_trace_ends_with_it(
    server: RecordingServer, client: httpx.Client, tracer: Tracer
) -> None:
    with (
        tracer.start_as_current_span("request"),
        tracer.start_as_current_span("invoke", attributes=invoke("coder")) as span,
    ):
        send(client)
    name = f"{span.get_span_context().trace_id:032x}/coder"
    assert server.turns[0].ours["session-id"] == name
    assert flush()
    assert server.commands == [("DELETE", f"/sessions/{name.replace('/', '%2F')}", None)]


def test_tool_spans_are_the_agents_tools(
    server: RecordingServer, client: httpx.Client, tracer: Tracer
) -> None:
    run = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "bash"}
    with tracer.start_as_current_span("invoke", attributes=invoke("coder", "c")):
        send(client)
        with tracer.start_as_current_span("tool", attributes=run):
            pass
        with agent("helper", session_id="h"):
            send(client)
            with tracer.start_as_current_span("tool", attributes=run):
                pass
    with session("s"):
        send(client)
        with tracer.start_as_current_span("tool", attributes=run):
            pass
    assert flush()
    assert [(path, body["event"]) for _, path, body in server.commands] == [
        ("/sessions/c%2Fcoder/tools", "started"),
        ("/sessions/c%2Fcoder/tools", "finished"),
        ("/sessions/h/tools", "started"),
        ("/sessions/h/tools", "finished"),
        ("/sessions/s/tools", "started"),
        ("/sessions/s/tools", "finished"),
    ]


def test_workflow_span_names_a_workflow(
    server: RecordingServer, client: httpx.Client, tracer: Tracer
) -> None:
    crew = {"gen_ai.operation.name": "invoke_workflow", "gen_ai.workflow.name": "crew"}
    with (
        tracer.start_as_current_span("workflow", attributes=crew) as span,
        tracer.start_as_current_span("invoke", attributes=invoke("writer")),
    ):
        send(client)
    assert server.turns[0].ours["workflow-id"] == f"crew/{span.get_span_context().trace_id:032x}"


def test_block_inside_of_an_agents_span_wins(
    server: RecordingServer, client: httpx.Client, tracer: Tracer
) -> None:
    with tracer.start_as_current_span("invoke", attributes=invoke("lead", "c")):
        send(client)
        with agent("helper", session_id="h"):
            with tracer.start_as_current_span("chat"):
                send(client)
            with tracer.start_as_current_span("inner", attributes=invoke("deep", "c")):
                send(client)
    _, helper, deep = [request.ours for request in server.turns]
    assert helper == {"session-id": "h", "parent-session-id": "c/lead", "agent-id": "helper"}
    assert (deep["agent-id"], deep["parent-session-id"]) == ("deep", "h")


async def test_tasks_have_the_agent_of_their_span(server: RecordingServer, tracer: Tracer) -> None:
    async with attach(httpx.AsyncClient(base_url=server.url)) as client:

        async def run(name: str) -> None:
            with tracer.start_as_current_span("invoke", attributes=invoke(name, "c")):
                await client.post("/v1/completions", json={"name": name})

        await asyncio.gather(*(run(name) for name in "abcd"))
    assert [request.ours["agent-id"] for request in server.turns] == [
        request.body["name"] for request in server.turns
    ]


def test_processor_names_nothing_after_its_shutdown(
    server: RecordingServer, client: httpx.Client, tracer: Tracer
) -> None:
    (source,) = scope._sources
    with tracer.start_as_current_span("invoke", attributes=invoke("coder", "c")):
        source.__self__.shutdown()  # type: ignore[attr-defined]
        send(client)
    assert server.turns[0].ours == {}


def test_spans_that_never_end_are_forgotten(
    tracer: Tracer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spans, "_MAX_SPANS", 10)
    (source,) = scope._sources
    open_spans = source.__self__._spans  # type: ignore[attr-defined]
    started = [tracer.start_span("invoke", attributes=invoke("a", f"c{n}")) for n in range(50)]
    assert len(open_spans._spans) == 10
    for span in started:
        span.end()
    assert len(open_spans._spans) == 0


def test_failing_source_fails_no_request(
    server: RecordingServer,
    client: httpx.Client,
    tracer: Tracer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(spans.OpenSpans, "frame", broken)
    with session("s"), tracer.start_as_current_span("invoke", attributes=invoke("a", "c")):
        send(client)
        send(client)
    assert [request.ours for request in server.turns] == [{"session-id": "s"}] * 2
    assert len(caplog.records) == 1
