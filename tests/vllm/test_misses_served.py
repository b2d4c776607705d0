"""Each reason for a miss, made to happen on a real engine and attributed to the last token."""

from __future__ import annotations

import http.client
import json
import random
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import numpy as np
import pytest
from safetensors.numpy import save_file
from tests.vllm.logged_server import TOKEN, LoggedServer
from tests.waiting import until

from holdfast.bench.model import build_tiny_model
from holdfast.bench.server import EngineOptions, EngineServer
from holdfast.config import HoldfastConfig

pytestmark = [pytest.mark.engine, pytest.mark.server]

BLOCK_TOKENS = 32
KV_TOKENS = 1536
PROMPT_TOKENS = 330  # ten blocks and ten tokens
WHOLE = PROMPT_TOKENS // BLOCK_TOKENS * BLOCK_TOKENS
KNOWN_BEGINNING = 303  # of the prompt, as lengths of content marks grow by a quarter from 64
ANSWER_TOKENS = 12
HOST_BLOCKS = 200
BLOCK_BYTES = BLOCK_TOKENS * 2 * 64 * 4  # keys and values of one head of 64 floats
KEPT_HERE = {"max_offload_tokens": 0, "max_load_tokens": 0}  # no copy in the host tier
STORED = {"max_offload_tokens": 1 << 20, "max_load_tokens": 0}
ADAPTER = "adapter"


class Engine(LoggedServer):
    """A real server, and why its turns missed."""

    def __init__(self, server: EngineServer, log: Path) -> None:
        super().__init__(server, log)
        self._random = random.Random(7)

    def some(self, num_tokens: int = PROMPT_TOKENS) -> list[int]:
        return [self._random.randrange(300, 2000) for _ in range(num_tokens)]

    def turn(
        self,
        prompt: list[int],
        session_id: str | None = None,
        *,
        headers: dict[str, str] | None = None,
        **more: Any,
    ) -> tuple[list[int], dict[str, Any]]:
        """The tokens of an answer, and what the decision log says of the miss."""
        num_before = len(self.logged("missed"))
        body = {
            "model": self.model,
            "prompt": prompt,
            "max_tokens": ANSWER_TOKENS,
            "temperature": 0,
            "ignore_eos": True,
            "return_token_ids": True,
            "kv_transfer_params": KEPT_HERE,
            **more,
        }
        named = {} if session_id is None else {"X-Session-ID": session_id}
        status, text = self.post("/v1/completions", {**named, **(headers or {})}, body)
        assert status == 200, text
        (found,) = until(lambda: self.logged("missed")[num_before:])
        assert found["cached_tokens"] + sum(found["missed"].values()) == found["prompt_tokens"]
        return json.loads(text)["choices"][0]["token_ids"], found

    def missed(self, prompt: list[int], session_id: str | None = None, **more: Any) -> Any:
        """Why the one turn of a prompt missed."""
        _, record = self.turn(prompt, session_id, **more)
        return record["missed"]

    def leave_waiting(self, prompt: list[int], session_id: str) -> None:
        """Send a prompt that has to wait, and leave before it starts."""
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc)
        body = {"model": self.model, "prompt": prompt, "max_tokens": 1}
        headers = {"Content-Type": "application/json", "X-Session-ID": session_id}
        connection.request("POST", "/v1/completions", json.dumps(body), headers)
        (arrived,) = until(
            lambda: [one for one in self.arrived() if one["session_id"] == session_id]
        )
        connection.close()
        until(lambda: [o for o in self.logged("turn_ended") if o["request"] == arrived["request"]])

    def press(self) -> None:
        """Take nearly all blocks from other sessions."""
        self.turn(self.some(KV_TOKENS - 2 * BLOCK_TOKENS))

    def session(self, session_id: str) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        path = f"/holdfast/sessions/{quote(session_id, safe='')}"
        status, text = self.ask("GET", path, headers)
        assert status == 200, text
        (engine,) = json.loads(text)["engines"]
        (found,) = engine["sessions"]
        assert isinstance(found, dict)
        return found


def build_adapter(directory: Path, model: Path) -> Path:
    """A LoRA adapter that changes nothing, for one projection of each layer."""
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    width, rank = config["hidden_size"], 8
    outputs = config["num_attention_heads"] * config["head_dim"]
    weights = {}
    for layer in range(config["num_hidden_layers"]):
        name = f"base_model.model.model.layers.{layer}.self_attn.q_proj"
        weights[f"{name}.lora_A.weight"] = np.zeros((rank, width), np.float32)
        weights[f"{name}.lora_B.weight"] = np.zeros((outputs, rank), np.float32)
    directory.mkdir()
    save_file(weights, directory / "adapter_model.safetensors")
    settings = {"peft_type": "LORA", "r": rank, "lora_alpha": rank, "target_modules": ["q_proj"]}
    text = json.dumps({**settings, "base_model_name_or_path": str(model), "bias": "none"})
    (directory / "adapter_config.json").write_text(text, encoding="utf-8")
    return directory


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    pytest.importorskip("vllm")
    directory = tmp_path_factory.mktemp("misses")
    model = build_tiny_model(directory / "model")
    log = directory / "decisions"
    adapter = build_adapter(directory / ADAPTER, model)
    options = EngineOptions(
        model=model,
        kv_tokens=KV_TOKENS,
        max_model_len=KV_TOKENS,
        block_size_tokens=BLOCK_TOKENS,
        config=HoldfastConfig(
            strict=True,
            decision_log=str(log),
            host_gib=HOST_BLOCKS * BLOCK_BYTES / (1 << 30),
        ),
        extra_arguments=("--enable-lora", "--lora-modules", f"{ADAPTER}={adapter}"),
        environ={"HOLDFAST_ROUTES_TOKEN": TOKEN, "VLLM_SERVER_DEV_MODE": "1"},
    )
    with EngineServer("holdfast", options, directory / "log") as server:
        yield Engine(server, log)


def test_prompt_that_only_grew_is_no_miss(engine: Engine) -> None:
    prompt = engine.some()
    answer, first = engine.turn(prompt, "grown")
    assert first["missed"] == {"never_seen": PROMPT_TOKENS}
    seen = PROMPT_TOKENS + ANSWER_TOKENS
    grown = engine.missed([*prompt, *answer, *engine.some(40)], "grown")
    assert grown == {"below_block_size": seen - WHOLE, "never_seen": 40}


def test_changed_history_is_mutated(engine: Engine) -> None:
    prompt = engine.some()
    engine.turn(prompt, "mutated")
    changed = [*prompt[:100], *engine.some(PROMPT_TOKENS - 100 + 40)]
    _, record = engine.turn(changed, "mutated")
    assert record["missed"] == {"mutated": PROMPT_TOKENS - 96, "never_seen": 40}
    assert (record["mutated_at_tokens"], record["against_turn"]) == (96, 1)


def test_what_changed_in_a_chat_is_named(engine: Engine) -> None:
    for day in ("2026-11-28", "2026-11-29"):
        said = [("system", f"{'word ' * 60}\nToday is {day}."), ("user", "word " * 40)]
        body = {
            "model": engine.model,
            "messages": [{"role": role, "content": text} for role, text in said],
            "max_completion_tokens": 4,
        }
        status, text = engine.post("/v1/chat/completions", {"X-Session-ID": "dated"}, body)
        assert status == 200, text
    first, second = until(lambda: _of_session(engine, "dated", 2))
    assert (first["change"], second["change"]) == (None, "date")
    assert second["missed"]["mutated"] > 40
    line = re.compile(r'holdfast_changed_prompt_tokens_total\{[^}]*change="date"[^}]*\} (\S+)')
    counted = until(lambda: line.findall(engine.ask("GET", "/metrics")[1].decode()))
    assert sum(map(float, counted)) == second["missed"]["mutated"]


def _of_session(engine: Engine, session_id: str, num_turns: int) -> list[dict[str, Any]]:
    """Why the turns of a session missed, once there are so many."""
    found = [one for one in engine.logged("missed") if one["session_id"] == session_id]
    return found if len(found) == num_turns else []


def test_answer_that_came_back_otherwise_is_named(engine: Engine) -> None:
    prompt = engine.some()
    engine.turn(prompt, "answer", max_tokens=44)  # computed up to 373 tokens: eleven blocks
    other = engine.missed([*prompt, *engine.some(44)], "answer")
    assert other == {"below_block_size": 10, "answer_changed": 22, "never_seen": 22}


def test_equal_prompt_that_missed_was_evicted(engine: Engine) -> None:
    prompt = engine.some()
    engine.turn(prompt, "evicted")
    engine.press()
    _, record = engine.turn(prompt, "evicted")
    evicted = WHOLE - record["cached_tokens"]
    assert record["missed"] == {"evicted": evicted, "below_block_size": PROMPT_TOKENS - WHOLE}
    assert evicted >= WHOLE - 3 * BLOCK_TOKENS
    assert record["evicted"]["reason"] == "tool" and record["evicted"]["idle_s"] > 0
    last = engine.session("evicted")["last_misses"]
    assert [one["turn"] for one in last] == [2, 1]
    assert last[0]["missed"] == record["missed"]


def test_prefix_of_a_turn_that_never_started_is_not_admitted(engine: Engine) -> None:
    busy = {"prompt": engine.some(1_250), "max_tokens": 250, "ignore_eos": True}
    thread = threading.Thread(
        target=engine.post, args=("/v1/completions", {}, {"model": engine.model, **busy})
    )
    num_before = len(engine.logged("turn_started"))
    thread.start()
    until(lambda: engine.logged("turn_started")[num_before:])
    prompt = engine.some()
    engine.leave_waiting(prompt, "left")
    thread.join()
    assert engine.missed(prompt, "left") == {"not_admitted": WHOLE, "below_block_size": 10}


def test_stored_prompt_that_is_not_loaded_is_declined(engine: Engine) -> None:
    prompt = engine.some()
    engine.turn(prompt, "declined", kv_transfer_params=STORED)
    until(lambda: engine.session("declined")["stored_blocks"] >= WHOLE // BLOCK_TOKENS)
    engine.press()
    _, record = engine.turn(prompt, "declined", kv_transfer_params=STORED)
    declined = WHOLE - record["cached_tokens"]
    assert declined >= WHOLE - 3 * BLOCK_TOKENS
    assert record["missed"] == {"offload_declined": declined, "below_block_size": 10}


def test_other_salt_is_named(engine: Engine) -> None:
    prompt = engine.some()
    engine.turn(prompt, cache_salt="one")
    other = engine.missed(prompt, cache_salt="other")
    assert other == {
        "salt_changed": KNOWN_BEGINNING,
        "never_seen": PROMPT_TOKENS - KNOWN_BEGINNING,
    }


def test_other_adapter_is_named(engine: Engine) -> None:
    prompt = engine.some()
    engine.turn(prompt)
    other = engine.missed(prompt, model=ADAPTER)
    assert other == {"other_model": KNOWN_BEGINNING, "never_seen": PROMPT_TOKENS - KNOWN_BEGINNING}


def test_reset_of_the_cache_is_named(engine: Engine) -> None:
    prompt = engine.some()
    engine.turn(prompt)

    def is_forgotten() -> bool:
        status, _ = engine.ask("POST", "/reset_prefix_cache")
        assert status == 200
        return not engine.sessions()

    until(is_forgotten)
    again = engine.missed(prompt)
    assert again == {"restart": KNOWN_BEGINNING, "never_seen": PROMPT_TOKENS - KNOWN_BEGINNING}


def test_share_that_another_engine_has_is_named(engine: Engine) -> None:
    half = {"X-Holdfast-Elsewhere-Ratio": "0.5"}
    found = engine.missed(engine.some(), headers=half)
    assert found == {"other_replica": PROMPT_TOKENS / 2, "never_seen": PROMPT_TOKENS / 2}
