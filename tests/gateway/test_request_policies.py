"""Tests of request policies in a running gateway."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Annotated, Any

import pytest
from msgspec import Meta
from tests.gateway.fake_engine import FIRST, FakeEngine, gateway, stream
from tests.gateway.test_forwarding import chat, post

from holdfast.errors import ConfigError, PolicyError
from holdfast.gateway.policy_file import read_policies
from holdfast.policies import registry
from holdfast.policies.requests import (
    AnswerEnded,
    Refused,
    Request,
    RequestClosed,
    RequestEvent,
    RequestPassed,
    RequestPolicy,
    RequestSent,
)
from holdfast.policies.spec import PolicySettings, PolicySpec

MESSAGES = "/v1/messages"
GEMINI = "/v1beta/models/m:generateContent"
USAGE = b'data: {"usage": {"prompt_tokens": 11, "completion_tokens": 7}}\n\n'


class Marking(RequestPolicy):
    """Puts a word before the first message, and notes what it observes."""

    spec = PolicySpec("marking", "Marks requests.", "these tests")

    def __init__(self) -> None:
        super().__init__()
        self.events: list[RequestEvent] = []

    def observe(self, event: RequestEvent) -> None:
        self.events.append(event)

    def rewrite(self, request: Request) -> bytes | None:
        messages = [{"role": "user", "content": "mark"}, *(request.body.value("messages") or [])]
        return request.body.with_field("messages", messages)


class Refusing(RequestPolicy):
    """Refuses what contains a word."""

    spec = PolicySpec("refusing", "Refuses requests.", "these tests")

    def refuse(self, request: Request) -> Refused | None:
        if b"forbidden" in request.body.text:
            return Refused("the word is forbidden; leave it out", 429, retry_after_s=2.5)
        return None


class Failing(RequestPolicy):
    """Fails in one method."""

    spec = PolicySpec("failing", "Fails.", "these tests")

    def __init__(self, method: str) -> None:
        super().__init__()
        self.num_asked = 0
        setattr(self, method, self._fail)

    def _fail(self, *_: object) -> Any:
        self.num_asked += 1
        raise RuntimeError("a policy's mistake")


class Garbling(RequestPolicy):
    """Rewrites every request into what is no JSON."""

    spec = PolicySpec("garbling", "Garbles requests.", "these tests")

    def rewrite(self, request: Request) -> bytes | None:
        return request.body.text[1:]


async def test_engines_get_what_policies_rewrote() -> None:
    engine, marking = FakeEngine(stream(FIRST, USAGE)), Marking()
    async with gateway(engine, policies=[marking]) as url:
        status, _, _ = await post(url, json=chat("hello"), headers={"X-Session-ID": "s1"})
    assert status == 200
    sent = json.loads(engine.requests[0][2])
    assert [message["content"] for message in sent["messages"]] == ["mark", "hello"]
    assert sent["model"] == "m"


async def test_policies_observe_requests_and_their_answers() -> None:
    engine, marking = FakeEngine(stream(FIRST, USAGE)), Marking()
    async with gateway(engine, policies=[marking]) as url:
        await post(url, json=chat("hello"), headers={"X-Session-ID": "s1"})
    passed, sent, ended, closed = marking.events
    assert isinstance(passed, RequestPassed) and isinstance(closed, RequestClosed)
    assert isinstance(sent, RequestSent) and isinstance(ended, AnswerEnded)
    assert passed.request is sent.request is ended.request is closed.request
    assert sent.request.identity.session_id == "s1"
    assert b"mark" in sent.request.body.text
    assert sent.num_bytes == sent.missing_bytes > 0
    assert (ended.prompt_tokens, ended.output_tokens) == (11, 7)
    assert ended.time_s >= sent.time_s >= sent.request.now_s


@pytest.mark.parametrize(
    ("path", "body", "error"),
    [
        ("/v1/chat/completions", chat("forbidden"), "error.message"),
        (MESSAGES, chat("forbidden"), "error.message"),
        (GEMINI, {"contents": [{"parts": [{"text": "forbidden"}]}]}, "error.message"),
    ],
)
async def test_refused_requests_reach_no_engine(path: str, body: Any, error: str) -> None:
    engine = FakeEngine()
    async with gateway(engine, policies=[Refusing()]) as url:
        status, text, headers = await post(url, path, json=body)
        counted = url.counted("holdfast_gateway_policy_actions_total")
    found = json.loads(text)
    for name in error.split("."):
        found = found[name]
    assert (status, found) == (429, "the word is forbidden; leave it out")
    assert headers["Retry-After"] == "3"
    assert engine.requests == [] and counted == 1


async def test_later_policies_see_what_earlier_ones_rewrote() -> None:
    class Forbidding(Marking):
        def rewrite(self, request: Request) -> bytes | None:
            return request.body.with_field("messages", ["forbidden"])

    for policies, expected in (
        ([Forbidding(), Refusing()], 429),
        ([Refusing(), Forbidding()], 200),
    ):
        async with gateway(FakeEngine(), policies=policies) as url:
            assert (await post(url))[0] == expected


@pytest.mark.parametrize("method", ["refuse", "rewrite", "observe"])
async def test_a_failing_policy_is_off_and_requests_go_on(
    method: str, caplog: pytest.LogCaptureFixture
) -> None:
    engine, failing = FakeEngine(), Failing(method)
    with caplog.at_level(logging.ERROR):
        async with gateway(engine, policies=[failing, Marking()]) as url:
            assert [(await post(url))[0] for _ in range(3)] == [200, 200, 200]
            failed = url.counted("holdfast_gateway_policy_actions_total")
    assert failing.num_asked == 1
    assert failed == 1 + 3  # one failure; the other policy still rewrites
    assert [record.message for record in caplog.records if "failing" in record.message]
    assert all(b"mark" in body for _, _, body in engine.requests)


async def test_a_rewrite_into_no_json_changes_nothing() -> None:
    engine = FakeEngine()
    async with gateway(engine, policies=[Garbling()]) as url:
        assert [(await post(url))[0] for _ in range(2)] == [200, 200]
    assert [json.loads(body) for _, _, body in engine.requests] == [chat("hello")] * 2


class StrictSettings(PolicySettings, frozen=True, kw_only=True):
    """Settings with a range and a list."""

    most: Annotated[int, Meta(ge=1)] = 3
    names: tuple[str, ...] = ()


class Strict(RequestPolicy):
    """Has settings."""

    spec = PolicySpec("strict", "Has settings.", "these tests", settings=StrictSettings)


@pytest.fixture
def strict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry._REQUESTS, "strict", f"{__name__}:Strict")


@pytest.mark.usefixtures("strict")
def test_policies_are_built_from_tables_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "policies.toml"
    path.write_text('[strict]\nmost = 7\nnames = ["a", "b"]\n')
    (built,) = read_policies(path).requests
    assert built.settings == StrictSettings(most=7, names=("a", "b"))
    path.write_text("[strict]\n")
    assert read_policies(path).requests[0].settings == StrictSettings()


@pytest.mark.usefixtures("strict")
@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[strict\n", "is not TOML"),
        ("strict = 3\n", "'strict' must be a table"),
        ("[stritc]\n", "unknown policy 'stritc'"),
        ("[strict]\nmsot = 1\n", "no setting 'msot'"),
        ("[strict]\nmost = 0\n", "policy 'strict'"),
        ('[strict]\nmost = "many"\n', "policy 'strict'"),
    ],
)
def test_wrong_policy_files_are_named(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "policies.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=says) as caught:
        read_policies(path)
    assert str(path) in str(caught.value)


def test_scheduling_policies_are_no_request_policies() -> None:
    with pytest.raises(PolicyError, match="unknown policy 'working-set'"):
        registry.request_policy_class("working-set")
