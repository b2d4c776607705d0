"""The control routes of a real server with two engines and two API processes."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from click.testing import CliRunner
from tests.engine_client import EngineClient
from tests.waiting import LONGEST_S, until

from holdfast.bearer_token import TOKEN_VARIABLE
from holdfast.bench.model import build_tiny_model
from holdfast.bench.server import EngineOptions, EngineServer
from holdfast.cli.main import cli
from holdfast.client.control import ControlChannel
from holdfast.client.workflow import StepGraph, Workflow
from holdfast.config import HoldfastConfig

pytestmark = [pytest.mark.engine, pytest.mark.server]

TOKEN = "a token of the tests"
SALT = "a salt that others cannot guess"
_PROMPT = list(range(300, 700))


class Application:
    """Sends turns and control requests to one server."""

    def __init__(self, server: EngineServer, log: Path) -> None:
        self.server = server
        self.client = EngineClient(server)
        self._log = log

    def turn(self, session_id: str, salt: str | None = None) -> None:
        body = {
            "model": str(self.server.options.model),
            "prompt": _PROMPT,
            "max_tokens": 4,
            "ignore_eos": True,
            "vllm_xargs": {"holdfast_session_id": session_id, "holdfast_agent_id": "writer"},
            **({} if salt is None else {"cache_salt": salt}),
        }
        self.client.post("/v1/completions", body)

    def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        salt: str | None = None,
        token: str | None = TOKEN,
    ) -> tuple[int, Any]:
        """A control request; returns status and content."""
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=60)
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        if salt is not None:
            headers["X-Holdfast-Cache-Salt"] = salt
        content = None if body is None else json.dumps(body)
        try:
            connection.request(method, f"/holdfast/v1{path}", content, headers)
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        finally:
            connection.close()

    def sessions(self, **options: Any) -> dict[str, dict[str, Any]]:
        """Sessions of all engines, by id."""
        status, content = self.ask("GET", "/state", **options)
        assert status == 200, content
        found = [session for engine in content["engines"] for session in engine["sessions"]]
        return {session["session_id"]: session for session in found}

    def logged(self, event: str) -> list[dict[str, Any]]:
        """Lines of the decision log."""
        lines = map(json.loads, self._log.read_text().splitlines())
        return [line for line in lines if line["event"] == event]


@pytest.fixture(scope="module")
def application(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Application]:
    pytest.importorskip("vllm")
    directory = tmp_path_factory.mktemp("routes")
    token = directory / "token"
    token.write_text(f"{TOKEN}\n")
    options = EngineOptions(
        model=build_tiny_model(directory),
        kv_tokens=4096,
        max_model_len=1024,
        config=HoldfastConfig(
            strict=True, routes_token_file=str(token), decision_log=str(directory / "decisions")
        ),
        extra_arguments=("--data-parallel-size", "2"),
    )
    with EngineServer("holdfast", options, directory / "log") as server:
        yield Application(server, directory / "decisions")


def test_tool_events_apply_while_the_engine_is_idle(application: Application) -> None:
    application.turn("a/b")
    tools = f"/sessions/{quote('a/b', safe='')}/tools"
    started = {"event": "started", "tool": "Bash", "expected_s": 600}
    assert application.ask("POST", tools, started) == (200, {"outcome": "accepted", "reason": ""})
    session = application.sessions()["a/b"]
    wait = session["waits_for"]
    assert (session["state"], wait["kind"], wait["tool"]) == ("at_tool", "shell", "Bash")
    assert 500 < wait["expected_s"] <= 600 and not wait["result_known"]
    assert session["agent_id"] == "writer" and session["resident_blocks"] > 0
    assert application.ask("POST", tools, {"event": "finished"})[0] == 200
    wait = application.sessions()["a/b"]["waits_for"]
    assert wait["result_known"] and wait["expected_s"] == 0


def test_a_session_is_closed_within_its_tenant(application: Application) -> None:
    application.turn("own", SALT)
    for salt in (None, "another"):
        status, content = application.ask("DELETE", "/sessions/own", salt=salt)
        assert status == 404 and content["error"]["param"] == "unknown_session"
    assert application.ask("DELETE", "/sessions/own", salt=SALT)[0] == 200
    session = application.sessions(salt=SALT)["own"]
    assert session["state"] == "closed" and SALT not in json.dumps(session)
    assert "own" not in application.sessions(salt="another")


def test_a_workflow_is_declared_and_ended(application: Application) -> None:
    graph = {"agents": [{"agent_id": "planner"}, {"agent_id": "writer", "after": ["planner"]}]}
    assert application.ask("PUT", "/workflows/w", graph)[0] == 200
    for engine in application.ask("GET", "/state")[1]["engines"]:
        (workflow,) = engine["workflows"]
        assert (workflow["workflow_id"], workflow["num_agents"]) == ("w", 2)
    assert application.ask("DELETE", "/workflows/w")[0] == 200
    assert application.ask("DELETE", "/workflows/w")[0] == 404


def test_wrong_requests_are_refused(application: Application) -> None:
    for token in (None, "wrong"):
        status, content = application.ask("GET", "/state", token=token)
        assert status == 401 and content["error"]["code"] == 401
    assert application.ask("PUT", "/state")[0] == 405
    assert application.ask("PUT", "/workflows/w", {"agents": []})[0] == 400
    status, content = application.ask("POST", "/sessions/x/tools", {"event": "started", "tool": 7})
    assert status == 400 and content["error"]["param"] == "body $.tool"


def test_commands_show_in_metrics_and_decision_log(application: Application) -> None:
    application.turn("logged")
    application.ask("DELETE", "/sessions/logged")
    totals = application.client.totals_with("holdfast_commands_total")
    assert totals["holdfast_commands_total"] >= 1

    def outcomes() -> set[str] | None:
        lines = [x for x in application.logged("command") if x.get("session_id") == "logged"]
        return {line["outcome"] for line in lines} if len(lines) == 2 else None

    assert until(outcomes) == {"accepted", "unknown_session"}  # one engine has the session


def test_every_engine_is_asked(application: Application) -> None:
    names = [f"s{number}" for number in range(6)]
    for name in names:
        application.turn(name)
    _, content = application.ask("GET", "/state")
    assert [one["engine"]["engine"] for one in content["engines"]] == [0, 1]
    assert all(one["sessions"] for one in content["engines"])
    assert all(application.ask("DELETE", f"/sessions/{name}")[0] == 200 for name in names)
    found = application.sessions()
    assert {found[name]["state"] for name in names} == {"closed"}


def test_top_shows_sessions_and_hits_of_a_live_engine(application: Application) -> None:
    for _ in range(3):  # one of the two engines gets two of them
        application.turn("watched")
    invoked = CliRunner(env={TOKEN_VARIABLE: TOKEN}).invoke(
        cli, ["top", application.server.url, "--interval", "1", "--json"]
    )
    (view,) = json.loads(invoked.output)["engines"]
    assert not view["error"] and not view["routes"] and view["policy"] == "holdfast"
    watched = [one for one in view["listed"] if one["session_id"] == "watched"]
    assert sum(one["num_turns"] for one in watched) == 3
    assert all(one["resident_blocks"] > 0 for one in watched)
    assert any(one["last_miss"]["cached_tokens"] > 0 for one in watched)
    assert view["capacity_blocks"] > view["reserved_blocks"] >= 0
    assert sum(view["sessions"].values()) >= len(view["listed"])
    assert 0 <= view["hit_ratio"] <= view["possible_hit_ratio"] <= 1
    assert view["evicted_blocks_per_s"] >= 0 and view["waiting"] == 0


# The server is started again: the last test of the file.


def test_a_restarted_server_takes_the_same_workflow_again(application: Application) -> None:
    """What applications said is forgotten; their next words are no error."""
    channel = ControlChannel(application.server.url, token=TOKEN)
    graph: StepGraph = {"agents": [{"agent_id": "planner"}]}
    running = Workflow("restarted", graph)
    running.note_request(channel)
    application.turn("before")
    application.server.stop()
    application.server.start()
    assert not application.ask("GET", "/state")[1]["engines"][0]["workflows"]
    assert application.ask("DELETE", "/sessions/before")[0] == 404
    running.close()
    again = Workflow("restarted", graph)
    again.note_request(channel)
    assert channel.flush(LONGEST_S) and not channel._failures
    assert application.ask("DELETE", "/workflows/restarted")[0] == 200
