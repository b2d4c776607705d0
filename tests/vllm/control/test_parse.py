"""HTTP requests to the control routes become commands, or errors that name what is wrong."""

from __future__ import annotations

import json
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from holdfast.core.commands import (
    CloseSession,
    DeclareWorkflow,
    EndWorkflow,
    ToolFinished,
    ToolStarted,
)
from holdfast.core.workflow_graph import AgentStep, WorkflowGraph
from holdfast.vllm.control.messages import ControlRequest, StateQuery, decode_request, encode
from holdfast.vllm.control.parse import HttpCall, RouteError, parse_call

GRAPH = {"agents": [{"agent_id": "planner"}, {"agent_id": "writer", "after": ["planner"]}]}
STEPS = WorkflowGraph((AgentStep("planner"), AgentStep("writer", ("planner",))))


def _call(
    method: str, path: str, body: object = None, *, query: str = "", tenant: str | None = None
) -> ControlRequest:
    content = b"" if body is None else json.dumps(body).encode()
    return parse_call(HttpCall(method, f"/holdfast/v1{path}", query, tenant, content))


def _refused(method: str, path: str, body: object = None, *, query: str = "") -> RouteError:
    with pytest.raises(RouteError) as caught:
        _call(method, path, body, query=query)
    return caught.value


def test_each_route_is_a_command() -> None:
    tools = "/sessions/s/tools"
    started = {"event": "started", "tool": "Bash", "expected_s": 2}
    assert [
        _call("PUT", "/workflows/w", GRAPH, tenant="t"),
        _call("DELETE", "/workflows/w"),
        _call("POST", tools, started, tenant="t"),
        _call("POST", tools, {"event": "started"}),
        _call("POST", tools, {"event": "finished"}),
        _call("DELETE", "/sessions/s"),
        _call("GET", "/state"),
        _call("GET", "/state", query="after=7&limit=2", tenant="t"),
    ] == [
        DeclareWorkflow("t", "w", STEPS),
        EndWorkflow("", "w"),
        ToolStarted("t", "s", "Bash", 2.0),
        ToolStarted("", "s"),
        ToolFinished("", "s"),
        CloseSession("", "s"),
        StateQuery(),
        StateQuery("t", 7, 2),
    ]


def test_sessions_are_asked_for_by_id_or_all() -> None:
    assert _call("GET", "/sessions") == StateQuery()
    assert _call("GET", "/sessions/a%2Fb") == StateQuery(session_id="a/b")


@pytest.mark.parametrize("name", ["a/sub-agent/b", "ü n", "100%", "..", "a?b#c"])
def test_an_id_may_have_escaped_characters(name: str) -> None:
    path = f"/sessions/{quote(name, safe='')}"
    assert _call("DELETE", path) == CloseSession("", name)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "", 404),
        ("GET", "/", 404),
        ("GET", "/nothing", 404),
        ("DELETE", "/sessions/a/b", 404),
        ("GET", "/state/", 404),
        ("GET", "/workflows/w", 405),
        ("GET", "/sessions/s/tools", 405),
        ("POST", "/state", 405),
        ("DELETE", "/sessions/", 400),
        ("DELETE", "/sessions/%20", 400),
        ("DELETE", "/sessions/%FF", 400),
        ("DELETE", "/sessions/a%00b", 400),
        ("DELETE", "/sessions/" + "a" * 5000, 400),
    ],
)
def test_a_wrong_address_is_refused(method: str, path: str, status: int) -> None:
    assert _refused(method, path).status == status


def test_a_wrong_method_names_the_right_ones() -> None:
    assert _refused("PATCH", "/workflows/w").allowed == ("PUT", "DELETE")


@pytest.mark.parametrize(
    ("body", "where", "reason"),
    [
        ({"event": "started", "tool": 7}, "body $.tool", "Expected `str`"),
        ({"event": "started", "expected_s": -1}, "body $.expected_s", ">= 0"),
        ({"event": "started", "expectd_s": 1}, "body $", "expectd_s"),
        ({"event": "begun"}, "body $.event", "begun"),
        ({"event": "started", "tool": "x" * 2000}, "body $.tool", "length <= 1024"),
        ({}, "body $", "event"),
        ([], "body $", "Expected `object`"),
        (None, "body $", "not JSON"),
    ],
)
def test_a_wrong_tool_event_is_refused(body: object, where: str, reason: str) -> None:
    error = _refused("POST", "/sessions/s/tools", body)
    assert (error.status, error.where) == (400, where)
    assert reason in error.message


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"agents": []}, "0 agents"),
        ({"agents": [{"agent_id": "a", "after": ["b"]}]}, "unknown 'b'"),
        ({"agents": [{"agent_id": "a"}, {"agent_id": "a"}]}, "declared twice"),
        ({"agents": [{"agent_id": "a", "join": "most"}]}, "most"),
        ({}, "agents"),
    ],
)
def test_a_wrong_graph_is_refused(body: object, reason: str) -> None:
    error = _refused("PUT", "/workflows/w", body)
    assert error.status == 400 and reason in error.message


@pytest.mark.parametrize("query", ["limit=0", "limit=9999", "limit=x", "after=-2", "x=1", "&&"])
def test_a_wrong_query_is_refused(query: str) -> None:
    error = _refused("GET", "/state", query=query)
    assert (error.status, error.where) == (400, "query")


@pytest.mark.parametrize(
    ("method", "path"), [("DELETE", "/sessions/s"), ("DELETE", "/workflows/w"), ("GET", "/state")]
)
def test_a_body_where_none_belongs_is_refused(method: str, path: str) -> None:
    assert _refused(method, path, GRAPH).where == "body"
    _call(method, path, {})  # some clients send one with every request


def test_a_deep_body_is_refused() -> None:
    call = HttpCall("PUT", "/holdfast/v1/workflows/w", body=b"[" * 100_000)
    with pytest.raises(RouteError):
        parse_call(call)


_PATHS = st.sampled_from(
    ["/state", "/workflows/w", "/sessions/s", "/sessions/s/tools", "/sessions/%ff/tools", "/%"]
)


@given(
    method=st.sampled_from(["GET", "PUT", "POST", "DELETE", "HEAD", ""]),
    path=_PATHS | st.text(max_size=30).map("/{}".format),
    query=st.text(max_size=30),
    tenant=st.none() | st.text(max_size=30),
    body=st.binary(max_size=200)
    | st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=9),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=9), inner),
    ).map(lambda content: json.dumps(content).encode()),
)
@example("POST", "/sessions/s/tools", "", None, b'{"event":"started","expected_s":1e999}')
@example("POST", "/sessions/s/tools", "", None, b'{"event":"started","expected_s":NaN}')
@example("POST", "/sessions/s/tools", "", None, b'{"event":"started","tool":"\\ud800"}')
@example("GET", "/state", "after=99999999999999999999999", None, b"")
def test_anything_else_is_refused_without_an_error_of_ours(
    method: str, path: str, query: str, tenant: str | None, body: bytes
) -> None:
    try:
        request = parse_call(HttpCall(method, f"/holdfast/v1{path}", query, tenant, body))
    except RouteError as error:
        assert error.status in (400, 404, 405)
    else:
        assert decode_request(encode(request)) == request


@given(st.binary(max_size=100))
def test_garbage_is_no_request(data: bytes) -> None:
    with pytest.raises(ValueError, match="not a request"):
        decode_request(data)
