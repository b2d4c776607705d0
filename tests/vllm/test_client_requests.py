"""Requests in the shape of each client, on a real server: what the scheduler is told and does.

One server for the whole file.
"""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import anthropic
import openai
import pytest
from tests.vllm.client_shapes import CHAT, CODEX, COMPLETIONS, MESSAGES, REQUESTS, RESPONSES, SAY
from tests.vllm.logged_server import LENGTHS, TOKEN, LoggedServer
from tests.waiting import LONGEST_S, until

from holdfast.bench.model import build_tiny_model
from holdfast.bench.server import EngineOptions, EngineServer
from holdfast.config import HoldfastConfig

pytestmark = [pytest.mark.engine, pytest.mark.server]

_KV_TOKENS = 8192
_BLOCK_TOKENS = 32


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoggedServer]:
    pytest.importorskip("vllm")
    directory = tmp_path_factory.mktemp("clients")
    log, token = directory / "decisions.jsonl", directory / "token"
    token.write_text(TOKEN)
    options = EngineOptions(
        model=build_tiny_model(directory / "model"),
        kv_tokens=_KV_TOKENS,
        max_model_len=4096,
        block_size_tokens=_BLOCK_TOKENS,
        max_num_seqs=1,
        config=HoldfastConfig(
            strict=True, decision_log=str(log), routes_token_file=str(token), retain_share=0.25
        ),
        extra_arguments=(
            *("--enable-auto-tool-choice", "--tool-call-parser", "hermes"),
            *("--logits-processors", "holdfast.vllm.scripted_output:ScriptedOutput"),
        ),
    )
    with EngineServer("holdfast", options, directory / "server.log") as running:
        yield LoggedServer(running, log)


@pytest.mark.parametrize("sent", REQUESTS.values(), ids=REQUESTS)
@pytest.mark.parametrize("is_chunked", [False, True])
def test_scheduler_is_told_who_sends(server: LoggedServer, sent: Any, is_chunked: bool) -> None:
    path, headers, body, expected = sent
    told = server.told(path, headers, body, is_chunked=is_chunked)
    keys = ("client", "session_id", "parent_session_id", "is_side_call")
    assert tuple(told[key] for key in keys) == expected


def test_answer_in_a_rewritten_history_names_the_session(server: LoggedServer) -> None:
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


def tokens_of(server: LoggedServer, text: str) -> list[int]:
    """Token ids of a text, by the server's tokenizer."""
    body = {"model": server.model, "prompt": text, "add_special_tokens": False}
    status, answer = server.post("/tokenize", {}, body)
    assert status == 200, answer
    tokens: list[int] = json.loads(answer)["tokens"]
    return tokens


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS, RESPONSES, MESSAGES])
def test_own_headers_reach_the_scheduler(server: LoggedServer, path: str) -> None:
    body = {COMPLETIONS: {"prompt": "x"}, RESPONSES: {"input": "x"}}.get(path, {"messages": SAY})
    told = server.told(path, {"X-Holdfast-Retain-S": "soon"}, body)
    (rejected,) = told["rejected"]  # of vLLM 0.28's messages, in another field
    assert rejected.endswith("retain_s: must be a number of seconds")


def test_last_of_equal_keys_counts_for_engine_and_record(server: LoggedServer) -> None:
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
def test_hostile_values_fail_no_request(server: LoggedServer, change: dict[str, Any]) -> None:
    body = {"prompt": "x", **change}
    text = json.dumps({"model": server.model, "max_tokens": 1, **body}).encode()
    assert server.post(COMPLETIONS, CODEX, text)[0] == 200


@pytest.mark.parametrize("text", [b"", b"{", b"[1]", b'{"prompt": "x"', b'"x"', b'{"model": 1}'])
def test_bad_bodies_get_vllms_own_error(server: LoggedServer, text: bytes) -> None:
    status, answer = server.post(COMPLETIONS, CODEX, text)
    assert status in (400, 404, 422)
    assert b"holdfast" not in answer


def test_tenants_do_not_share_ids(server: LoggedServer) -> None:
    body = {"prompt": "the same prompt in both tenants", "max_tokens": 1}
    first, second = (
        server.told(COMPLETIONS, CODEX, body | {"cache_salt": salt}) for salt in ("one", "two")
    )
    assert first["session_id"] == second["session_id"] == "cx"
    assert first["session"] != second["session"]


def test_anthropics_client_reads_why_a_prompt_missed(server: LoggedServer) -> None:
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


def test_openais_client_reads_why_a_prompt_missed(server: LoggedServer) -> None:
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


def test_usage_has_the_tokens_that_were_cached(server: LoggedServer) -> None:
    text = "This is a long prompt, and it is sent twice. " * 20
    messages: Any = anthropic.Anthropic(api_key="k", base_url=server.url).messages
    responses: Any = openai.OpenAI(api_key="k", base_url=f"{server.url}/v1").responses
    say = [{"role": "user", "content": text}]
    for _ in range(2):
        message = messages.create(model=server.model, max_tokens=1, messages=say)
        response = responses.create(model=server.model, input=text, max_output_tokens=16)
    assert message.usage.cache_read_input_tokens > 0
    assert response.usage.input_tokens_details.cached_tokens > 0


# What hints change: in metrics, in the decision log and in the engine.

RETAINED = {"agent_hints": {"session_id": "kept", "cache_ttl_ms": 1e15}}
EVICTED = {"protocol_version": "0.1", "actions": [{"action_type": "Evict"}]}
PREFETCHED = {"protocol_version": "0.1", "actions": [{"action_type": "Prefetch"}]}
TOOL_NEXT = {"name": "Bash", "args": {"command": "make test"}}
SPAWNED = {"session_id": "worker", "parent_session_id": "lead"}

# Of each dialect's example: the body's fields, hints by outcome, what the log and the state show.
HINTS: dict[str, tuple[dict[str, Any], set[tuple[str, str]], dict[str, Any]]] = {
    "next tool, CacheWise": (
        {"cachewise_policy": {"scope": {"session_id": "cw"}, "hints": {"next_tool": TOOL_NEXT}}},
        {("turn_end", "accepted")},
        {"kind": "shell", "tool": "Bash", "state": "at_tool"},
    ),
    "expected duration, SGLang": (
        {"agent_hints": {"session_id": "sg", "expected_tool_duration_ms": 600_000}},
        {("expected_gap_s", "accepted")},
        {"expects a pause of": 600},
    ),
    "session end, Continuum": (
        {"job_id": "job", "is_last_step": True},
        {("is_final", "accepted")},
        {"session_id": "job", "state": "closed"},
    ),
    "parent, vLLM's agent_hint": (
        {"agent_hint": SPAWNED},
        {("parent_session_id", "accepted")},
        {"parent_session_id": "lead", "is_sub_agent": True},
    ),
    "agent, TokenCake": (
        {"vllm_xargs": {"tokencake": '{"lifecycle_id": "tc", "agent_type": "planner"}'}},
        {("agent_id", "accepted")},
        {"agent_id": "planner"},
    ),
    "retention, LMCache": (
        {"kv_transfer_params": {"lmcache_retention_ttl_sec": 60}, "session_id": "lm"},
        {("retain_s", "accepted"), ("retain_s", "granted")},
        {"has_reservation": True},
    ),
    "prefetch, vLLM's kv_hints": (
        {"kv_hints": PREFETCHED, "session_id": "kv"},
        {("commands", "accepted"), ("commands", "applied")},
        {},
    ),
}


@pytest.mark.parametrize("sent", HINTS.values(), ids=HINTS)
def test_hint_shows_in_metrics_and_decision_log(server: LoggedServer, sent: Any) -> None:
    body, outcomes, expected = sent
    before = server.hints()
    told = server.told(COMPLETIONS, {}, {"prompt": numbers(len(str(body)), 200), **body})
    assert until(lambda: outcomes <= (server.hints() - before).keys())
    assert until(lambda: outcomes <= logged_hints(server, told) | IDENTITIES)
    (ended,) = until(
        lambda: [line for line in server.logged("turn_ended") if line["request"] == told["request"]]
    )
    session = server.sessions()[told["session_id"]]
    seen = {**session, **told, **ended, "state": session["state"]}
    wait = session["waits_for"]
    if wait is not None:
        seen["expects a pause of"] = round(wait["idle_s"] + wait["expected_s"])
    assert {name: seen.get(name) for name in expected} == expected


IDENTITIES = {("parent_session_id", "accepted"), ("agent_id", "accepted")}  # in `turn_arrived`


def logged_hints(server: LoggedServer, told: dict[str, Any]) -> set[tuple[str, str]]:
    """Outcomes of a turn's hints in the decision log."""
    lines = (line for line in server.logged("hint") if line["session"] == told["session"])
    return {(line["field"], line["outcome"]) for line in lines if line["turn"] == told["turn"]}


def numbers(seed: int, num_tokens: int) -> list[int]:
    """A prompt that no other seed's begins like."""
    return [300 + (seed * 7919 + i * i) % 1500 for i in range(num_tokens)]


def fill(server: LoggedServer, first_seed: int) -> None:
    """Send turns of other sessions that take the whole cache."""
    for seed in range(first_seed, first_seed + 5):
        body = {"prompt": numbers(seed, 2000), "session_id": f"other {seed}"}
        server.told(COMPLETIONS, {}, body)


def test_retention_outlives_pressure_within_the_tenants_share(server: LoggedServer) -> None:
    before, num_evicted = server.hints(), len(server.logged("evicted"))
    kept, large = numbers(1, 1200), numbers(3, 3200)
    told = server.told(COMPLETIONS, {}, {"prompt": kept, **RETAINED})
    retained = {"agent_hints": {**RETAINED["agent_hints"], "session_id": "large"}}
    told_large = server.told(COMPLETIONS, {}, {"prompt": large, **retained})
    fill(server, 10)
    outcomes = {("retain_s", name): num for name, num in COUNTS.items()}
    assert until(lambda: server.hints() - before >= Counter(outcomes))
    (refused,) = [h for h in server.logged("hint") if h["outcome"] == "refused"]
    assert refused["session"] == told_large["session"]
    assert refused["reason"].startswith("the tenant's share is ")
    evicted = until(lambda: server.logged("evicted")[num_evicted:])
    assert all(told["session"] not in line["sessions"] for line in evicted)
    again = server.told(COMPLETIONS, {}, {"prompt": kept, "session_id": "kept"})
    assert again["resident_blocks"] == len(kept) // _BLOCK_TOKENS


COUNTS = {"clipped": 2, "granted": 1, "refused": 1}


def test_evict_command_frees_the_session_first(server: LoggedServer) -> None:
    fill(server, 20)
    told = server.told(COMPLETIONS, {}, {"prompt": numbers(30, 1000), "kv_hints": EVICTED})
    num_before = len(server.logged("evicted"))
    server.told(COMPLETIONS, {}, {"prompt": numbers(31, 500)})
    evicted = until(lambda: server.logged("evicted")[num_before:])
    assert [line["sessions"] for line in evicted] == [[told["session"]]] * len(evicted)
    assert ("commands", "applied") in logged_hints(server, told)


def has_arrived(server: LoggedServer, num_turns: int) -> bool:
    return len(server.arrived()) >= num_turns


def test_priority_orders_a_tenants_own_turns(server: LoggedServer) -> None:
    """The engine runs one turn at a time; two wait."""
    num_before = len(server.arrived())
    sent: list[dict[str, Any]] = [
        {"prompt": numbers(40, 64), "max_tokens": 300, "ignore_eos": True},
        {"prompt": numbers(41, 64), "session_id": "usual"},
        {"prompt": numbers(42, 64), "nvext": {"agent_hints": {"priority": 9}}},
    ]
    with ThreadPoolExecutor(len(sent)) as pool:
        for number, body in enumerate(sent):
            body = {"model": server.model, "max_tokens": 1, **body}
            pool.submit(server.post, COMPLETIONS, {}, body)
            assert until(partial(has_arrived, server, num_before + number + 1))
    sessions = [line["session"] for line in server.arrived()[num_before:]]
    started = [line["session"] for line in server.logged("turn_started")]
    assert [s for s in started if s in sessions] == [sessions[0], sessions[2], sessions[1]]


# The server does not outlive this: the last test of the file.


def test_engine_killed_during_a_command_ends_it(server: LoggedServer) -> None:
    (started,) = server.logged("engine_started")
    headers = {"Authorization": f"Bearer {TOKEN}"}
    os.kill(started["pid"], signal.SIGSTOP)  # it gets the command and does not answer
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(server.ask, "DELETE", "/holdfast/v1/sessions/kept", headers)
        assert server.ask("GET", "/version")[0] == 200  # comes after it
        os.kill(started["pid"], signal.SIGKILL)
        status, content = asked.result(LONGEST_S)
    assert status == 503, content
    assert b"the engine cannot answer" in content
