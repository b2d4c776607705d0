"""Requests in the shape of each client, on a real server: what the scheduler is told.

One server for the whole file.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import anthropic
import openai
import pytest
from tests.waiting import LONGEST_S, until

from holdfast.bench.model import build_tiny_model
from holdfast.bench.server import EngineOptions, EngineServer
from holdfast.config import HoldfastConfig

pytestmark = [pytest.mark.engine, pytest.mark.server]

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
RESPONSES, MESSAGES = "/v1/responses", "/v1/messages"
LENGTHS = {RESPONSES: "max_output_tokens", CHAT: "max_completion_tokens"}
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
MESSAGES_TOOL = {"name": "look", "input_schema": {"type": "object"}}
RESPONSES_TOOL = {"type": "function", "name": "look", "parameters": {"type": "object"}}
SAY = [{"role": "user", "content": "Look at the file, please."}]
CLAUDE = {"user-agent": "claude-cli/2.1.9 (external, cli)", "x-claude-code-session-id": "cc"}
CODEX = {"user-agent": "codex_exec/0.171.0", "session-id": "cx", "thread-id": "cx"}
OPENCODE = {"user-agent": "opencode/1.18.33", "x-session-id": "oc", "x-session-affinity": "oc"}


class Server:
    """A server with its decision log."""

    def __init__(self, server: EngineServer, log: Path) -> None:
        self.model = str(server.options.model)
        self.url = server.url
        self._address = urlsplit(server.url).netloc
        self._log = log

    def post(
        self, path: str, headers: dict[str, str], body: Any, *, is_chunked: bool = False
    ) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(self._address, timeout=LONGEST_S)
        text = body if isinstance(body, bytes) else json.dumps(body).encode()
        parts: Any = iter((text[:20], text[20:])) if is_chunked else text
        headers = {"Content-Type": "application/json", **headers}
        connection.request("POST", path, parts, headers, encode_chunked=is_chunked)
        answer = connection.getresponse()
        found = answer.status, answer.read()
        connection.close()
        return found

    def arrived(self) -> list[dict[str, Any]]:
        if not self._log.exists():
            return []
        events = map(json.loads, self._log.read_text().splitlines())
        return [event for event in events if event["event"] == "turn_arrived"]

    def told(
        self, path: str, headers: dict[str, str], body: dict[str, Any], **options: Any
    ) -> dict[str, Any]:
        """What the scheduler was told of one request, which is answered."""
        num_before = len(self.arrived())
        body = {"model": self.model, LENGTHS.get(path, "max_tokens"): 1, **body}
        status, text = self.post(path, headers, body, **options)
        assert status == 200, text
        return until(lambda: self.arrived()[num_before:])[0]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    pytest.importorskip("vllm")
    directory = tmp_path_factory.mktemp("clients")
    log = directory / "decisions.jsonl"
    options = EngineOptions(
        model=build_tiny_model(directory / "model"),
        kv_tokens=8192,
        max_model_len=4096,
        config=HoldfastConfig(strict=True, decision_log=str(log)),
        extra_arguments=(
            *("--enable-auto-tool-choice", "--tool-call-parser", "hermes"),
            *("--logits-processors", "holdfast.vllm.scripted_output:ScriptedOutput"),
        ),
    )
    with EngineServer("holdfast", options, directory / "server.log") as running:
        yield Server(running, log)


# Of each: path, headers, body; then client, session, parent, whether it is a side call.
REQUESTS: dict[str, tuple[str, dict[str, str], dict[str, Any], tuple[Any, ...]]] = {
    "claude code": (
        MESSAGES,
        CLAUDE,
        {"messages": SAY, "tools": [MESSAGES_TOOL]},
        ("Claude Code", "cc", None, False),
    ),
    "claude code's sub-agent": (
        MESSAGES,
        CLAUDE | {"x-claude-code-agent-id": "a1"},
        {"messages": SAY, "tools": [MESSAGES_TOOL]},
        ("Claude Code", "cc/sub-agent/a1", "cc", False),
    ),
    "claude code's title": (
        MESSAGES,
        CLAUDE,
        {"messages": SAY, "tools": [], "metadata": {"user_id": '{"session_id": "cc"}'}},
        ("Claude Code", None, "cc", True),
    ),
    "codex": (
        RESPONSES,
        CODEX,
        {"input": SAY, "tools": [RESPONSES_TOOL], "prompt_cache_key": "cx", "store": False},
        ("Codex CLI", "cx", None, False),
    ),
    "codex's sub-agent": (
        RESPONSES,
        CODEX | {"thread-id": "cx1", "x-codex-parent-thread-id": "cx"},
        {"input": SAY, "tools": [RESPONSES_TOOL], "prompt_cache_key": "cx", "store": False},
        ("Codex CLI", "cx1", "cx", False),
    ),
    "opencode": (
        CHAT,
        OPENCODE,
        {"messages": SAY, "tools": [TOOL]},
        ("OpenCode", "oc", None, False),
    ),
    "opencode's sub-agent": (
        CHAT,
        OPENCODE | {"x-session-id": "oc1", "x-parent-session-id": "oc"},
        {"messages": SAY, "tools": [TOOL]},
        ("OpenCode", "oc1", "oc", False),
    ),
    "opencode's title": (CHAT, OPENCODE, {"messages": SAY}, ("OpenCode", None, "oc", True)),
    "pi": (
        RESPONSES,
        {"session_id": "pi", "x-client-request-id": "pi"},
        {"input": SAY, "prompt_cache_key": "pi"},
        ("pi, llm-d", "pi", None, False),
    ),
    "openhands": (
        CHAT,
        {"x-litellm-session-id": "oh"},
        {"messages": SAY, "tools": [TOOL], "prompt_cache_key": "oh"},
        ("LiteLLM, OpenHands SDK", "oh", None, False),
    ),
    "qwen code": (
        CHAT,
        {"user-agent": "QwenCode/0.24.4 (linux; x64)"},
        {"messages": SAY, "tools": [TOOL]},
        ("Qwen Code", None, None, False),
    ),
    "dynamo's body": (
        COMPLETIONS,
        {},
        {"prompt": "x", "nvext": {"agent_context": {"trajectory_id": "d"}}},
        ("Dynamo", "d", None, False),
    ),
    "thunderagent": (
        COMPLETIONS,
        {},
        {"prompt": "x", "program_id": "ta"},
        ("ThunderAgent", "ta", None, False),
    ),
    "a gateway": (
        MESSAGES,
        CLAUDE | {"X-Holdfast-Session-ID": "g1", "X-Holdfast-Parent-Session-ID": "g"},
        {"messages": SAY, "tools": [MESSAGES_TOOL]},
        ("Claude Code", "g1", "g", False),
    ),
    "an endpoint of aibrix": (
        CHAT,
        {"x-session-id": "MTAuMC4wLjc6ODAwMA=="},
        {"messages": SAY},
        ("", None, None, False),
    ),
}


@pytest.mark.parametrize("sent", REQUESTS.values(), ids=REQUESTS)
@pytest.mark.parametrize("is_chunked", [False, True])
def test_scheduler_is_told_who_sends(server: Server, sent: Any, is_chunked: bool) -> None:
    path, headers, body, expected = sent
    told = server.told(path, headers, body, is_chunked=is_chunked)
    keys = ("client", "session_id", "parent_session_id", "is_side_call")
    assert tuple(told[key] for key in keys) == expected


def test_answer_in_a_rewritten_history_names_the_session(server: Server) -> None:
    answer = "The constant of that module is two from now on, as you asked."
    script = tokens_of(server, f"{answer}<|im_end|>")
    rules = "You edit files and answer with each change. " * 20
    said: list[dict[str, str]] = [{"role": "user", "content": "Make it two."}]
    told = []
    for state in ("clean", "changed", "changed twice"):
        system = [{"role": "system", "content": f"{rules} The repository is {state}."}]
        body = {"messages": system + said, "vllm_xargs": {"scripted_output": script}}
        told.append(server.told(CHAT, {}, body | {LENGTHS[CHAT]: len(script)}))
        said += [{"role": "assistant", "content": answer}, {"role": "user", "content": "And now?"}]
    assert [turn["because"] for turn in told] == ["no_match", "answer", "answer"]
    assert len({turn["session"] for turn in told}) == 1


def tokens_of(server: Server, text: str) -> list[int]:
    """Token ids of a text, by the server's tokenizer."""
    body = {"model": server.model, "prompt": text, "add_special_tokens": False}
    status, answer = server.post("/tokenize", {}, body)
    assert status == 200, answer
    tokens: list[int] = json.loads(answer)["tokens"]
    return tokens


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS, RESPONSES, MESSAGES])
def test_own_headers_reach_the_scheduler(server: Server, path: str) -> None:
    body = {COMPLETIONS: {"prompt": "x"}, RESPONSES: {"input": "x"}}.get(path, {"messages": SAY})
    told = server.told(path, {"X-Holdfast-Retain-S": "soon"}, body)
    (rejected,) = told["rejected"]  # of vLLM 0.28's messages, in another field
    assert rejected.endswith("retain_s: must be a number of seconds")


def test_last_of_equal_keys_counts_for_engine_and_record(server: Server) -> None:
    text = json.dumps({"model": server.model, "prompt": "x", "max_tokens": 1}).encode()[:-1]
    text += b',"session_id":"first","session_id":"last","vllm_xargs":{"a":1}}'
    num_before = len(server.arrived())
    assert server.post(COMPLETIONS, {}, text)[0] == 200
    assert until(lambda: server.arrived()[num_before:])[0]["session_id"] == "last"


@pytest.mark.parametrize(
    "change",
    [
        {"user": "\ud83d"},
        {"session_id": "a\x00b"},
        {"session_id": "s" * 100_000},
        {"metadata": {"user_id": "{" * 3000}},
        {"nvext": {"x" * 30_000: 1}},
        {"vllm_xargs": {"holdfast_session_id": "", "holdfast_client": [1]}},
    ],
    ids=str,
)
def test_hostile_values_fail_no_request(server: Server, change: dict[str, Any]) -> None:
    body = {"prompt": "x", **change}
    text = json.dumps({"model": server.model, "max_tokens": 1, **body}).encode()
    assert server.post(COMPLETIONS, CODEX, text)[0] == 200


@pytest.mark.parametrize("text", [b"", b"{", b"[1]", b'{"prompt": "x"', b'"x"', b'{"model": 1}'])
def test_bad_bodies_get_vllms_own_error(server: Server, text: bytes) -> None:
    status, answer = server.post(COMPLETIONS, CODEX, text)
    assert status in (400, 404, 422)
    assert b"holdfast" not in answer


def test_tenants_do_not_share_ids(server: Server) -> None:
    body = {"prompt": "the same prompt in both tenants", "max_tokens": 1}
    first, second = (
        server.told(COMPLETIONS, CODEX, body | {"cache_salt": salt}) for salt in ("one", "two")
    )
    assert first["session_id"] == second["session_id"] == "cx"
    assert first["session"] != second["session"]


def test_anthropics_client_reads_why_a_prompt_missed(server: Server) -> None:
    client: Any = anthropic.Anthropic(api_key="k", base_url=server.url)

    def reason(messages: list[Any], compared: str | None) -> tuple[str, Any]:
        body = {"model": server.model, "max_tokens": 1, "messages": messages}
        asked = {"diagnostics": {"previous_message_id": compared}}
        with client.messages.stream(**body, **asked) as stream:
            streamed = stream.get_final_message().diagnostics
        found = client.messages.create(**body, **asked)
        for one in (streamed, found.diagnostics):
            assert (one is None) == (found.diagnostics is None)
        why = None if streamed is None else streamed.cache_miss_reason
        return found.id, None if why is None else why.type

    first, why = reason(SAY, None)
    assert why is None
    assert reason([*SAY, {"role": "assistant", "content": "Yes."}, *SAY], first)[1] is None
    assert reason([{"role": "user", "content": "Else."}], first)[1] == "messages_changed"
    assert reason(SAY, "msg_elsewhere")[1] == "previous_message_not_found"


def test_openais_client_reads_why_a_prompt_missed(server: Server) -> None:
    client: Any = openai.OpenAI(api_key="k", base_url=f"{server.url}/v1")

    def kind(text: str, compared: str | None) -> tuple[str, Any]:
        options = {"prompt_cache_options": {"comparison_response_id": compared}} if compared else {}
        body = {"model": server.model, "input": text, "max_output_tokens": 16}
        *_, last = client.responses.create(**body, stream=True, extra_body=options)
        found = last.response.prompt_cache_diagnostics
        return last.response.id, None if found is None else found.type

    first, nothing = kind("Look at the file, please.", None)
    assert nothing is None
    assert kind("Look at the file, please.", first)[1] == "cache_hit"
    assert kind("Else.", first)[1] == "cache_miss"
    assert kind("Look at the file, please.", "resp_elsewhere")[1] == "comparison_response_not_found"


def test_usage_has_the_tokens_that_were_cached(server: Server) -> None:
    text = "This is a long prompt, and it is sent twice. " * 20
    messages: Any = anthropic.Anthropic(api_key="k", base_url=server.url).messages
    responses: Any = openai.OpenAI(api_key="k", base_url=f"{server.url}/v1").responses
    say = [{"role": "user", "content": text}]
    for _ in range(2):
        message = messages.create(model=server.model, max_tokens=1, messages=say)
        response = responses.create(model=server.model, input=text, max_output_tokens=16)
    assert message.usage.cache_read_input_tokens > 0
    assert response.usage.input_tokens_details.cached_tokens > 0
