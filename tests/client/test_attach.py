"""What clients send when they are attached, and to which servers."""

from __future__ import annotations

import threading
from typing import Any

import httpx
import pytest
from tests.client.recording_server import RecordingServer, recording_server

from holdfast.client import agent, attach, expect, session, workflow
from holdfast.errors import ConfigError

openai = pytest.importorskip("openai")
anthropic = pytest.importorskip("anthropic")

MESSAGES: Any = [{"role": "user", "content": "hello"}]
SESSION = {"session-id": "s"}


def test_openai_client_names_the_session(server: RecordingServer) -> None:
    with attach(openai.OpenAI(base_url=f"{server.url}/v1", api_key="none")) as client:
        with session("s"):
            client.chat.completions.create(model="m", messages=MESSAGES)
        client.chat.completions.create(model="m", messages=MESSAGES)
    assert [request.ours for request in server.turns] == [SESSION, {}]


def test_openai_stream_names_the_session(server: RecordingServer) -> None:
    with attach(openai.OpenAI(base_url=f"{server.url}/v1", api_key="none")) as client:
        with session("s"):
            chunks = client.chat.completions.create(model="m", messages=MESSAGES, stream=True)
        assert [chunk.choices[0].delta.content for chunk in chunks] == ["ok"]
    assert server.turns[0].ours == SESSION


async def test_async_openai_client_names_the_session(server: RecordingServer) -> None:
    async with attach(openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none")) as client:
        with session("s"):
            await client.chat.completions.create(model="m", messages=MESSAGES)
    assert server.turns[0].ours == SESSION


def test_anthropic_client_names_the_session(server: RecordingServer) -> None:
    with attach(anthropic.Anthropic(base_url=server.url, api_key="none")) as client, session("s"):
        client.messages.create(model="m", messages=MESSAGES, max_tokens=1)
    assert server.turns[0].ours == SESSION


async def test_async_anthropic_client_names_the_session(server: RecordingServer) -> None:
    async with attach(anthropic.AsyncAnthropic(base_url=server.url, api_key="none")) as client:
        with session("s"):
            await client.messages.create(model="m", messages=MESSAGES, max_tokens=1)
    assert server.turns[0].ours == SESSION


def test_httpx_client_names_the_session(server: RecordingServer) -> None:
    with attach(httpx.Client(base_url=server.url)) as client, session("s"):
        client.post("/v1/completions", json={})
    assert server.turns[0].ours == SESSION


async def test_async_httpx_client_names_the_session(server: RecordingServer) -> None:
    async with attach(httpx.AsyncClient(), base_url=server.url) as client:
        with session("s"):
            await client.post(f"{server.url}/v1/completions", json={})
    assert server.turns[0].ours == SESSION


def test_parent_is_named_once_it_has_sent_a_request(server: RecordingServer) -> None:
    with attach(httpx.Client(base_url=server.url)) as client, session("s"):
        with agent("early", session_id="e"):
            client.post("/v1/completions", json={})
        client.post("/v1/completions", json={})
        with agent("late", session_id="l"), agent("inner", session_id="i"):
            client.post("/v1/completions", json={})
    early, _, inner = [request.ours for request in server.turns]
    assert "parent-session-id" not in early
    # The agent around it has sent none, so the next one outside is the parent.
    assert inner == {"session-id": "i", "parent-session-id": "s", "agent-id": "inner"}


def test_requests_at_once_keep_their_sessions(server: RecordingServer) -> None:
    server.barrier = threading.Barrier(4)
    with attach(httpx.Client(base_url=server.url)) as client:

        def run(name: str) -> None:
            with session(name):
                client.post("/v1/completions", json={"name": name})

        threads = [threading.Thread(target=run, args=(name,)) for name in "abcd"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert [r.ours["session-id"] for r in server.turns] == [r.body["name"] for r in server.turns]


def test_other_servers_get_no_headers(server: RecordingServer) -> None:
    with recording_server() as other, attach(httpx.Client(), base_url=server.url) as client:
        with session("secret"), workflow("w"):
            client.get(f"{other.url}/v1/models")
        assert other.turns[0].ours == {}


def test_redirect_to_another_server_drops_the_headers(server: RecordingServer) -> None:
    with recording_server() as other:
        server.redirects["/v1/completions"] = f"{other.url}/v1/completions"
        client = attach(httpx.Client(base_url=server.url, follow_redirects=True))
        with client, session("secret"):
            client.post("/v1/completions", json={})
        assert server.turns[0].ours == {"session-id": "secret"}
        assert other.turns[0].ours == {}


def test_redirect_on_the_same_server_keeps_the_headers(server: RecordingServer) -> None:
    server.redirects["/v1/old"] = f"{server.url}/v1/new"
    with attach(httpx.Client(base_url=server.url, follow_redirects=True)) as client, session("s"):
        client.post("/v1/old", json={})
    assert [request.ours for request in server.turns] == [SESSION, SESSION]


def test_copy_of_a_client_sends_to_its_first_server_only(server: RecordingServer) -> None:
    with recording_server() as other:
        client = attach(openai.OpenAI(base_url=f"{server.url}/v1", api_key="none"))
        with client, session("s"):
            copy = client.with_options(base_url=f"{other.url}/v1")
            copy.chat.completions.create(model="m", messages=MESSAGES)
            client.with_options(timeout=60).chat.completions.create(model="m", messages=MESSAGES)
        assert (other.turns[0].ours, server.turns[0].ours) == ({}, SESSION)


def test_one_client_may_have_two_engines(server: RecordingServer) -> None:
    with recording_server() as other, httpx.Client() as client:
        for engine in (server, other, server):
            attach(client, base_url=engine.url)
        with session("s"):
            for engine in (server, other):
                client.post(f"{engine.url}/v1/completions", json={})
        assert (server.turns[0].ours, other.turns[0].ours) == (SESSION, SESSION)
        assert len(client.event_hooks["request"]) == 1


def test_session_of_a_request_itself_wins(server: RecordingServer) -> None:
    with attach(httpx.Client(base_url=server.url)) as client, session("s", agent_id="a"):
        own = {"x-holdfast-session-id": "mine"}
        client.post("/v1/completions", json={}, headers=own)
    assert server.turns[0].ours == {"session-id": "mine"}


def test_other_headers_of_a_request_are_kept(server: RecordingServer) -> None:
    with attach(httpx.Client(base_url=server.url)) as client, session("s"), expect(retain_s=60):
        client.post("/v1/completions", json={}, headers={"X-Holdfast-Retain-S": "5"})
    assert server.turns[0].ours == {"session-id": "s", "retain-s": "5"}


def test_hooks_of_the_application_stay(server: RecordingServer) -> None:
    seen: list[str] = []
    hooks = {"request": [lambda request: seen.append(request.url.path)]}
    with attach(httpx.Client(base_url=server.url, event_hooks=hooks)) as client, session("s"):
        client.post("/v1/completions", json={})
    assert seen == ["/v1/completions"]
    assert server.turns[0].ours == SESSION


def test_retried_request_keeps_its_session(server: RecordingServer) -> None:
    server.answers["/v1/chat/completions"] = (500, {})
    client = attach(openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=1))
    with client, session("s"), pytest.raises(openai.InternalServerError):
        client.chat.completions.create(model="m", messages=MESSAGES)
    assert [request.ours for request in server.turns] == [SESSION, SESSION]


def test_client_without_a_server_is_refused() -> None:
    with httpx.Client() as client, pytest.raises(ConfigError, match="does not name a server"):
        attach(client)


def test_client_of_another_kind_is_refused() -> None:
    with pytest.raises(ConfigError, match="does not send by httpx"):
        attach(object())
