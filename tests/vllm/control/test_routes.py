"""The middleware with the control routes, before a stand-in for vLLM's application."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from holdfast.core.commands import CloseSession, Outcome, ToolStarted
from holdfast.errors import ConfigError
from holdfast.vllm.control.channel import EngineChannel
from holdfast.vllm.control.messages import (
    CommandReport,
    ControlRequest,
    EngineReport,
    StateQuery,
    StateReport,
    decode_request,
    encode,
)
from holdfast.vllm.control.routes import ControlRoutes

TOKEN = "a token of the tests"
_HOLDFAST = "/holdfast/v1"

Answerer = Callable[[int, ControlRequest], Any]


@dataclass
class Engines:
    """vLLM's engine client, as much of it as the channel uses."""

    answer: Answerer
    num_engines: int = 1
    errored: bool = False
    asked: list[ControlRequest] = field(default_factory=list)

    @property
    def engine_core(self) -> Any:
        return self

    @property
    def core_engines(self) -> list[int]:
        return list(range(self.num_engines))

    async def _call_utility_async(self, method: str, *args: Any, engine: int) -> Any:
        assert method == "scheduler"
        (data,) = args
        request = decode_request(data)
        self.asked.append(request)
        answer = self.answer(engine, request)
        return encode(await answer if asyncio.iscoroutine(answer) else answer)


@dataclass
class Answer:
    """One HTTP response."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def content(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        found: dict[str, Any] = self.content["error"]
        assert found["code"] == self.status
        return found


class Server:
    """The middleware before an application that answers 404 to everything."""

    def __init__(self, engines: Engines | None, channel: EngineChannel | None = None) -> None:
        self.routes = ControlRoutes(self._app, channel)
        self.num_passed = 0
        self._state = SimpleNamespace(state=SimpleNamespace(engine_client=engines))

    async def _app(self, scope: Any, receive: Any, send: Any) -> None:
        self.num_passed += 1
        await send({"type": "http.response.start", "status": 404, "headers": []})
        await send({"type": "http.response.body", "body": b"vLLM"})

    def ask(self, method: str, path: str, body: bytes | None = None, **options: Any) -> Answer:
        return asyncio.run(self.send(method, path, body, **options))

    async def send(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        token: str | None = TOKEN,
        headers: dict[str, str] | None = None,
        chunks: list[bytes] | None = None,
        root: str = "",
    ) -> Answer:
        pieces = chunks or [body or b""]
        messages = [
            {"type": "http.request", "body": piece, "more_body": index < len(pieces) - 1}
            for index, piece in enumerate(pieces)
        ]
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return messages.pop(0) if messages else {"type": "http.disconnect"}

        async def take(message: Any) -> None:
            sent.append(message)

        given = dict(headers or {})
        if token is not None:
            given["Authorization"] = f"Bearer {token}"
        address, _, query = path.partition("?")
        scope = {
            "type": "http",
            "method": method,
            "path": address,
            "raw_path": address.encode(),
            "root_path": root,
            "query_string": query.encode(),
            "headers": [(k.lower().encode(), v.encode()) for k, v in given.items()],
            "app": self._state,
        }
        await self.routes(scope, receive, take)
        start, *rest = sent
        return Answer(
            start["status"],
            {k.decode(): v.decode() for k, v in start["headers"]},
            b"".join(part["body"] for part in rest),
        )


def _accept(engine: int, _: ControlRequest) -> CommandReport:
    return CommandReport(engine, "accepted", "")


def _idle_state(engine: int) -> StateReport:
    whole = EngineReport(engine, "1", "holdfast", True, True, 9, 9, 0, 0, 0, {})
    return StateReport(whole, [], [], None)


@pytest.fixture(autouse=True)
def _token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOLDFAST_ROUTES_TOKEN", TOKEN)


@pytest.fixture
def engines() -> Engines:
    return Engines(_accept)


@pytest.fixture
def server(engines: Engines) -> Server:
    return Server(engines)


def test_a_command_reaches_the_engine(server: Server, engines: Engines) -> None:
    body = b'{"event": "started", "tool": "Bash", "expected_s": 3}'
    salt = {"X-Holdfast-Cache-Salt": "t\u00fc"}
    answer = server.ask("POST", f"{_HOLDFAST}/sessions/s/tools", body, headers=salt)
    assert (answer.status, answer.content) == (200, {"outcome": "accepted", "reason": ""})
    assert engines.asked == [ToolStarted("t\u00fc", "s", "Bash", 3.0)]
    assert answer.headers["content-type"] == "application/json"
    assert int(answer.headers["content-length"]) == len(answer.body)


@pytest.mark.parametrize("root", ["", "/proxy"])
def test_sessions_have_a_short_path(server: Server, engines: Engines, root: str) -> None:
    engines.answer = lambda engine, _: _idle_state(engine)
    for path, asked in (("", StateQuery()), ("/a%2Fb", StateQuery(session_id="a/b"))):
        answer = server.ask("GET", f"{root}/holdfast/sessions{path}", root=root)
        assert (answer.status, engines.asked[-1]) == (200, asked)
    assert server.ask("GET", f"{root}/holdfast/sessions", token=None, root=root).status == 401
    assert server.ask("GET", f"{root}/holdfast/sessionsx", root=root).status == 404
    assert server.num_passed == 1


def test_a_body_may_come_in_pieces(server: Server, engines: Engines) -> None:
    pieces = [b'{"event":', b' "started"', b"}"]
    assert server.ask("POST", f"{_HOLDFAST}/sessions/s/tools", chunks=pieces).status == 200
    assert engines.asked == [ToolStarted("", "s")]


@pytest.mark.parametrize("path", ["/v1/models", "/", "/holdfast/v2/state", "/holdfast/v1x"])
def test_other_paths_pass(server: Server, path: str) -> None:
    assert server.ask("GET", path, token=None).body == b"vLLM"
    assert server.num_passed == 1


def test_other_connections_pass(server: Server) -> None:
    passed: list[str] = []

    async def app(scope: Any, *_: Any) -> None:
        passed.append(scope["type"])

    routes = ControlRoutes(app)
    for kind in ("lifespan", "websocket"):
        asyncio.run(routes({"type": kind, "path": f"{_HOLDFAST}/state"}, None, None))  # type: ignore[arg-type]
    assert passed == ["lifespan", "websocket"]


def test_without_a_token_every_path_passes(
    engines: Engines, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("HOLDFAST_ROUTES_TOKEN")
    server = Server(engines)
    assert server.ask("GET", f"{_HOLDFAST}/state").body == b"vLLM"
    assert "HOLDFAST_ROUTES_TOKEN" in caplog.text and not engines.asked


def test_an_unusable_token_ends_the_start(
    engines: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOLDFAST_ROUTES_TOKEN", "short")
    with pytest.raises(ConfigError):
        Server(engines)


@pytest.mark.parametrize("token", [None, "", "another token of tests", TOKEN + "x"])
@pytest.mark.parametrize("path", ["/state", "/nothing", ""])
def test_a_wrong_token_is_refused(server: Server, token: str | None, path: str) -> None:
    answer = server.ask("GET", _HOLDFAST + path, token=token)
    assert answer.status == 401 and answer.headers["www-authenticate"] == "Bearer"
    assert "Authorization" in answer.error["message"] and server.num_passed == 0


def test_a_refused_request_says_where(server: Server, engines: Engines) -> None:
    answer = server.ask("POST", f"{_HOLDFAST}/sessions/s/tools", b'{"event": "started", "tool": 7}')
    assert answer.status == 400 and answer.error["param"] == "body $.tool"
    answer = server.ask("GET", f"{_HOLDFAST}/workflows/w")
    assert answer.status == 405 and answer.headers["allow"] == "PUT, DELETE"
    assert server.ask("GET", f"{_HOLDFAST}/none").status == 404
    assert server.num_passed == 0 and not engines.asked


@pytest.mark.parametrize("declared", ["99999999", "9" * 5000, None])
def test_a_large_body_is_refused(server: Server, engines: Engines, declared: str | None) -> None:
    headers = {} if declared is None else {"Content-Length": declared}
    chunks = [b" " * (1 << 20)] * 5
    path = f"{_HOLDFAST}/workflows/w"
    assert server.ask("PUT", path, chunks=chunks, headers=headers).status == 413
    assert not engines.asked


def test_a_proxys_prefix_is_removed(server: Server, engines: Engines) -> None:
    assert server.ask("DELETE", f"/llm{_HOLDFAST}/sessions/s", root="/llm").status == 200
    assert engines.asked == [CloseSession("", "s")]


@pytest.mark.parametrize(
    ("outcomes", "status"),
    [
        (["unknown_session", "accepted"], 200),
        (["clipped", "unknown_session"], 200),
        (["unknown_session", "unknown_session"], 404),
        (["unknown_session", "rejected"], 409),
        (["unknown_workflow", "unknown_workflow"], 404),
    ],
)
def test_the_best_outcome_of_all_engines_counts(outcomes: list[Outcome], status: int) -> None:
    engines = Engines(lambda engine, _: CommandReport(engine, outcomes[engine], "why"), 2)
    answer = Server(engines).ask("DELETE", f"{_HOLDFAST}/sessions/s")
    assert answer.status == status and len(engines.asked) == 2
    if status == 200:
        assert answer.content["reason"] == "why"
    else:
        assert answer.error["message"] == "why" and answer.error["param"] in outcomes


def test_the_state_is_that_of_every_engine() -> None:
    def report(engine: int, request: ControlRequest) -> StateReport:
        assert request == StateQuery(None, 5, 2)
        return _idle_state(engine)

    server = Server(Engines(report, 2))
    answer = server.ask("GET", f"{_HOLDFAST}/state?after=5&limit=2")
    assert [one["engine"]["engine"] for one in answer.content["engines"]] == [0, 1]


def test_a_server_without_an_engine_answers_503() -> None:
    assert Server(None).ask("GET", f"{_HOLDFAST}/state").status == 503


def test_a_dead_engine_is_reported() -> None:
    def die(_: int, __: ControlRequest) -> CommandReport:
        raise RuntimeError("EngineCore encountered an issue")

    answer = Server(Engines(die)).ask("DELETE", f"{_HOLDFAST}/sessions/s")
    assert answer.status == 503 and "EngineCore" in answer.error["message"]


def test_a_slow_engine_is_not_waited_for() -> None:
    async def sleep(_: int, __: ControlRequest) -> None:
        await asyncio.sleep(60)

    server = Server(Engines(sleep), EngineChannel(timeout_s=0.01))
    assert server.ask("GET", f"{_HOLDFAST}/state").status == 504


def test_engine_that_dies_ends_what_it_was_asked() -> None:
    """It does not answer any more, and vLLM's call waits on."""

    async def die(_: int, __: ControlRequest) -> None:
        dying.errored = True
        await asyncio.sleep(60)

    dying = Engines(die)
    answer = Server(dying).ask("GET", f"{_HOLDFAST}/state")
    assert answer.status == 503 and "has died" in answer.error["message"]


def test_requests_that_wait_are_bounded(engines: Engines) -> None:
    async def go() -> list[int]:
        gate = asyncio.Event()

        async def wait(engine: int, request: ControlRequest) -> CommandReport:
            await gate.wait()
            return _accept(engine, request)

        engines.answer = lambda engine, request: wait(engine, request)
        server = Server(engines, EngineChannel(max_open=2))
        path = f"{_HOLDFAST}/sessions/s"
        open_calls = [asyncio.create_task(server.send("DELETE", path)) for _ in range(2)]
        await asyncio.sleep(0)
        refused = await server.send("DELETE", path)
        gate.set()
        done = await asyncio.gather(*open_calls)
        again = await server.send("DELETE", path)
        return [refused.status, *(one.status for one in done), again.status]

    assert asyncio.run(go()) == [429, 200, 200, 200]
