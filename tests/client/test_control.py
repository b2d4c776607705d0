"""Commands to the control routes: which ones, where, and what their failures do."""

from __future__ import annotations

import logging
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from tests.client.recording_server import RecordingServer, recording_server

from holdfast.client import StepGraph, agent, attach, flush, session, tool, workflow

GRAPH: StepGraph = {"agents": [{"agent_id": "a"}, {"agent_id": "b", "after": ["a"]}]}


@pytest.fixture
def client(server: RecordingServer) -> Iterator[httpx.Client]:
    with attach(httpx.Client(base_url=server.url), token="secret") as attached:
        yield attached


def send(client: httpx.Client) -> None:
    client.post("/v1/completions", json={})


def test_tool_is_started_and_finished(server: RecordingServer, client: httpx.Client) -> None:
    with session("s"):
        send(client)
        with tool("bash", expected_s=30):
            pass
    assert flush()
    assert server.commands == [
        ("POST", "/sessions/s/tools", {"event": "started", "tool": "bash", "expected_s": 30.0}),
        ("POST", "/sessions/s/tools", {"event": "finished", "tool": "bash"}),
    ]
    assert server.requests[-1].headers["Authorization"] == "Bearer secret"


def test_tool_is_finished_after_an_error(server: RecordingServer, client: httpx.Client) -> None:
    with session("s"):
        send(client)
        with pytest.raises(KeyError), tool("bash"):
            raise KeyError
    assert flush()
    assert [body["event"] for _, _, body in server.commands] == ["started", "finished"]


def test_tools_may_run_at_once(server: RecordingServer, client: httpx.Client) -> None:
    with session("s"):
        send(client)
        with tool("build", expected_s=60), tool("lint", expected_s=5):
            pass
    assert flush()
    assert [(body["event"], body["tool"]) for _, _, body in server.commands] == [
        ("started", "build"),
        ("started", "lint"),
        ("finished", "lint"),
        ("finished", "build"),
    ]


def test_tool_without_requests_is_told_to_no_engine(
    server: RecordingServer, client: httpx.Client
) -> None:
    with session("s"), tool("bash"):
        pass
    with tool("bash"):
        pass
    assert flush()
    assert server.commands == []


@pytest.mark.parametrize(
    ("name", "final", "is_closed"),
    [(None, None, True), (None, False, False), ("s", None, False), ("s", True, True)],
)
def test_session_is_closed_if_no_other_process_can_name_it(
    name: str | None,
    final: bool | None,
    is_closed: bool,
    server: RecordingServer,
    client: httpx.Client,
) -> None:
    with session(name, final=final) as opened:
        send(client)
    assert flush()
    assert server.commands == ([("DELETE", f"/sessions/{opened.id}", None)] if is_closed else [])


def test_ids_are_quoted_in_paths(server: RecordingServer, client: httpx.Client) -> None:
    with session("a/../b?c %", final=True):
        send(client)
    assert flush()
    assert server.commands[0][1] == "/sessions/a%2F..%2Fb%3Fc%20%25"


def test_workflow_is_declared_and_ended(server: RecordingServer, client: httpx.Client) -> None:
    with workflow("w", GRAPH):
        with agent("a", session_id="x"):
            send(client)
            send(client)
        with agent("b", session_id="y"):
            send(client)
    assert flush()
    assert server.commands == [("PUT", "/workflows/w", GRAPH), ("DELETE", "/workflows/w", None)]


def test_workflow_without_a_graph_is_ended(server: RecordingServer, client: httpx.Client) -> None:
    with workflow("w"), agent("a", session_id="x"):
        send(client)
    with workflow("unused"):
        pass
    assert flush()
    assert server.commands == [("DELETE", "/workflows/w", None)]


def test_commands_go_where_the_requests_went(server: RecordingServer) -> None:
    with recording_server() as other, httpx.Client() as client:
        for engine in (server, other):
            attach(client, base_url=engine.url, token="secret")
        with session(), tool("bash"):
            client.post(f"{other.url}/v1/completions", json={})
        assert flush()
        assert server.commands == []
        assert [method for method, _, _ in other.commands] == ["POST", "DELETE"]


def test_no_command_without_a_token(server: RecordingServer) -> None:
    with attach(httpx.Client(base_url=server.url)) as client, session(), workflow("w", GRAPH):
        send(client)
        with tool("bash"):
            pass
    assert flush()
    assert server.commands == []


def test_refused_commands_are_logged_once(
    server: RecordingServer, client: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    server.answers["/holdfast/v1/sessions/s/tools"] = (401, {"error": "no"})
    with caplog.at_level(logging.WARNING), session("s"):
        send(client)
        for _ in range(3):
            with tool("bash"):
                pass
        assert flush()
    assert len(server.commands) == 6
    assert len(caplog.records) == 1
    assert "answered 401" in caplog.text and "secret" not in caplog.text


@pytest.mark.parametrize(("status", "reason"), [(404, "unknown_session"), (409, "rejected")])
def test_forgotten_and_closed_sessions_are_no_failure(
    status: int,
    reason: str,
    server: RecordingServer,
    client: httpx.Client,
    caplog: pytest.LogCaptureFixture,
) -> None:
    error = {"message": "no such session", "param": reason, "code": status}
    server.answers["/holdfast/v1/sessions/s/tools"] = (status, {"error": error})
    with caplog.at_level(logging.WARNING), session("s"):
        send(client)
        with tool("bash"):
            pass
        assert flush()
    assert caplog.records == []


def test_commands_name_the_tenant(server: RecordingServer) -> None:
    with httpx.Client(base_url=server.url) as client:
        attach(client, token="secret", cache_salt="Mieter ü")
        with session():
            send(client)
    assert flush()
    sent = server.requests[-1].headers["X-Holdfast-Cache-Salt"]
    assert sent.encode("latin-1").decode() == "Mieter ü"


def test_forked_process_sends_commands(server: RecordingServer) -> None:
    script = (
        "import os, sys, httpx\n"
        "from holdfast.client import attach, flush, session\n"
        "lone = httpx.Client(base_url=sys.argv[1], headers={'Connection': 'close'})\n"
        "client = attach(lone, token='secret')\n"
        "def turn(name):\n"
        "    with session(name, final=True):\n"
        "        client.post('/v1/completions', json={})\n"
        "    assert flush()\n"
        "turn('parent')\n"
        "child = os.fork()\n"
        "turn('again' if child else 'child')\n"
        "child and os.waitpid(child, 0)\n"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", script, server.url], check=True)
    closed = sorted(path for _, path, _ in server.commands)
    assert closed == ["/sessions/again", "/sessions/child", "/sessions/parent"]


def test_end_of_the_process_sends_what_waits(server: RecordingServer) -> None:
    script = (
        "import sys, httpx\n"
        "from holdfast.client import attach, session\n"
        "client = attach(httpx.Client(base_url=sys.argv[1]), token='secret')\n"
        "with session('s', final=True):\n"
        "    client.post('/v1/completions', json={})\n"
    )
    subprocess.run([sys.executable, "-c", script, server.url], check=True)
    assert server.commands == [("DELETE", "/sessions/s", None)]


def test_unreachable_routes_are_logged_once(
    server: RecordingServer, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        dead = f"http://127.0.0.1:{unused.getsockname()[1]}"
        transport = httpx.MockTransport(lambda request: httpx.Response(200))
        with caplog.at_level(logging.WARNING), httpx.Client(transport=transport) as client:
            attach(client, base_url=dead, token="secret")
            with session():
                client.post(f"{dead}/v1/completions", json={})
                for _ in range(10):
                    with tool("bash"):
                        pass
            assert flush()
    assert len(caplog.records) == 1
    assert "requests are not affected" in caplog.text


def test_full_queue_drops_commands(
    server: RecordingServer, client: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    server.answers["/holdfast/v1/sessions/s/tools"] = (200, {})
    held = threading.Event()
    hold(server, held)
    with caplog.at_level(logging.WARNING), session("s"):
        send(client)
        for _ in range(1000):
            with tool("bash"):
                pass
        held.set()
        assert flush(60)
    assert 1000 <= len(server.commands) < 2000
    assert "commands wait" in caplog.text


def hold(server: RecordingServer, held: threading.Event) -> None:
    """Make the control routes wait for an event."""

    class Waiting(dict[str, Any]):
        def get(self, key: str, default: Any = None) -> Any:
            if key.startswith("/holdfast"):
                held.wait(60)
            return super().get(key, default)

    server.answers = Waiting(server.answers)
