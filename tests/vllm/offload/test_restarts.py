"""Real servers on one pool, one after another, killed, damaged and at once: the right tokens.

What is right is what the same server answers when it finds nothing: the same prompt with a
`cache_salt` of its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from holdfast.bench.model import build_tiny_model
from holdfast.bench.server import EngineOptions, EngineServer
from holdfast.config import HoldfastConfig
from holdfast.errors import EngineError
from holdfast.pool.directory import PoolDirectory

pytestmark = [pytest.mark.engine, pytest.mark.server]

_BLOCK_TOKENS = 32
_KV_TOKENS = 1536
_LONGEST_HYBRID = 1024  # vLLM wants room for a whole request in both groups
_WINDOW_TOKENS = 64
_HOST_BLOCKS = 400  # all that is asked before the first restart
_BLOCK_BYTES = _BLOCK_TOKENS * 2 * 64 * 4  # keys and values of one head of 64 floats
_NUM_SESSIONS = 6
_PROMPT_TOKENS = 330
_TOOL_TOKENS = 40
_NUM_OUTPUT_TOKENS = 12
_LAST = _NUM_SESSIONS - 1  # the session that is not asked until the third server
_SUDDEN_DEATH = Path(__file__).parent / "sudden_death"

Tokens = list[int]


@dataclass(slots=True)
class _Answer:
    tokens: Tokens
    num_cached: int


@dataclass(slots=True)
class _Turns:
    """What a server answered, what it recomputed without its caches, and what it counted."""

    answers: list[_Answer] = field(default_factory=list)
    recomputed: list[_Answer] = field(default_factory=list)
    sources: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)


class _World:
    """A model, a pool, and sessions that go on from server to server."""

    def __init__(
        self, directory: Path, kv_tokens: int = _KV_TOKENS, max_model_len: int = _KV_TOKENS
    ) -> None:
        self.directory = directory
        self.pool = directory / "pool"
        self.death = directory / "death"
        self.model = build_tiny_model(directory / "model")
        self._kv_tokens = kv_tokens
        self._max_model_len = max_model_len
        self._random = random.Random(3)
        self._num_salts = 0
        self.prompts = [self.some(_PROMPT_TOKENS) for _ in range(_NUM_SESSIONS)]

    def some(self, num_tokens: int) -> Tokens:
        return [self._random.randrange(300, 2000) for _ in range(num_tokens)]

    def server(self, name: str) -> EngineServer:
        config = HoldfastConfig(
            strict=True,
            host_gib=_HOST_BLOCKS * _BLOCK_BYTES / (1 << 30),
            pool_dir=str(self.pool),
            pool_gib=1.0,
        )
        options = EngineOptions(
            model=self.model,
            kv_tokens=self._kv_tokens,
            max_model_len=self._max_model_len,
            block_size_tokens=_BLOCK_TOKENS,
            config=config,
            environ={
                "PYTHONPATH": os.pathsep.join(
                    [str(_SUDDEN_DEATH), *filter(None, [os.environ.get("PYTHONPATH")])]
                ),
                "SUDDEN_DEATH_FILE": str(self.death),
            },
        )
        return EngineServer("holdfast", options, self.directory / f"{name}.log")

    def turns(self, server: EngineServer, sessions: range) -> _Turns:
        """Take a turn of each session, one by one."""
        turns = _Turns()
        before = _counted(server)
        for session in sessions:
            turns.answers.append(_ask(server, self.prompts[session]))
        after = _counted(server)
        turns.sources = after["source"] - before["source"]
        turns.refused = after["reason"] - before["reason"]
        for session in sessions:
            self._num_salts += 1
            salt = f"{server.port}-{self._num_salts}"
            turns.recomputed.append(_ask(server, self.prompts[session], salt=salt))
        return turns

    def go_on(self, turns: _Turns, sessions: range) -> None:
        """Extend each session's prompt by its answer and a tool's result."""
        for session, answer in zip(sessions, turns.answers, strict=True):
            self.prompts[session] += answer.tokens + self.some(_TOOL_TOKENS)

    def wait_for_blocks(self, prompts: list[Tokens]) -> None:
        """Wait until the pool has the whole blocks of these prompts."""
        wanted = sum(len(prompt) // _BLOCK_TOKENS for prompt in prompts)
        deadline_s = time.monotonic() + 20
        while len(self.block_files()) < wanted:
            assert time.monotonic() < deadline_s
            time.sleep(0.1)

    def block_files(self) -> list[Path]:
        files = PoolDirectory(self.pool).files()
        return [Path(file.path) for file in files if not file.is_temporary]

    def num_unfinished(self) -> int:
        return sum(file.is_temporary for file in PoolDirectory(self.pool).files())

    @contextlib.contextmanager
    def dying_at(self, server: EngineServer, call: str) -> Iterator[None]:
        """Let the engine be killed amid its next `call`, and wait until it is dead."""
        self.death.write_text(call, encoding="utf-8")
        with contextlib.suppress(OSError):  # the answer may come before the end, or not
            yield
        deadline_s = time.monotonic() + 30
        with pytest.raises(EngineError, match="died"):
            while time.monotonic() < deadline_s:
                server.check_running()
                time.sleep(0.1)
        self.death.unlink()


def _ask(server: EngineServer, prompt: Tokens, *, salt: str | None = None) -> _Answer:
    body = {
        "model": str(server.options.model),
        "prompt": prompt,
        "max_tokens": _NUM_OUTPUT_TOKENS,
        "temperature": 0,
        "ignore_eos": True,
        "return_token_ids": True,
        **({} if salt is None else {"cache_salt": salt}),
    }
    request = urllib.request.Request(
        server.url + "/v1/completions",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        answer = json.load(response)
    details = answer["usage"].get("prompt_tokens_details") or {}
    return _Answer(answer["choices"][0]["token_ids"], details.get("cached_tokens") or 0)


_SAMPLE = re.compile(r'(\w+:?\w+)\{(?:.*,)?(source|reason)="(\w+)".*\} (\S+)')


def _counted(server: EngineServer) -> dict[str, Counter[str]]:
    """Cached prompt tokens by source, and refused blocks by reason, since the server's start."""
    time.sleep(0.5)  # the engine core tells a few times a second
    with urllib.request.urlopen(server.url + "/metrics", timeout=10) as response:
        page = response.read().decode()
    counted: dict[str, Counter[str]] = {"source": Counter(), "reason": Counter()}
    for metric, label, value, number in _SAMPLE.findall(page):
        if metric in ("vllm:prompt_tokens_cached_by_source_total",
                      "holdfast_pool_refused_blocks_total"):  # fmt: skip
            counted[label][value] += int(float(number))
    return counted


def _with_a_window(model: Path) -> None:
    """Put a layer with sliding-window attention before the model's only one, equal otherwise."""
    from safetensors.numpy import load_file, save_file

    config = json.loads((model / "config.json").read_text())
    config["num_hidden_layers"] = 2
    config["layer_types"] = ["sliding_attention", "full_attention"]
    config["sliding_window"] = _WINDOW_TOKENS
    (model / "config.json").write_text(json.dumps(config))
    weights = load_file(model / "model.safetensors")
    again = {name.replace(".layers.0.", ".layers.1."): one for name, one in weights.items()}
    save_file(weights | again, model / "model.safetensors", metadata={"format": "pt"})


def _damage(world: _World, files: list[Path]) -> None:
    """Three blocks: one cut off, one with a changed bit, one of another making."""
    cut, changed, foreign = sorted(files)[:3]
    os.truncate(cut, 5000)
    content = bytearray(changed.read_bytes())
    content[1234] ^= 8
    changed.write_bytes(content)
    foreign.write_bytes(os.urandom(foreign.stat().st_size))


def _blocks_of(world: _World, server: EngineServer, session: int) -> list[Path]:
    """Files of a prompt that was asked once more, found by what is new in the pool."""
    before = set(world.block_files())
    _ask(server, world.prompts[session])
    time.sleep(1.0)
    return [path for path in world.block_files() if path not in before]


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """All that happens, in order; the tests are claims about it."""
    pytest.importorskip("vllm")
    world = _World(tmp_path_factory.mktemp("world"))
    told: dict[str, Any] = {"world": world}
    everyone, asked = range(_NUM_SESSIONS), range(_LAST)

    with world.server("first") as server:
        for turn in ("first", "second"):
            told[turn] = world.turns(server, everyone)
            world.go_on(told[turn], everyone)
        told["damaged prompt"] = world.some(3 * _BLOCK_TOKENS + 1)
        before = set(world.block_files())
        told["damaged answer"] = _ask(server, told["damaged prompt"])
        world.wait_for_blocks([*([[0] * _BLOCK_TOKENS] * (len(before) + 3))])
        damaged = [path for path in world.block_files() if path not in before]
        with world.dying_at(server, "writev"):
            _ask(server, world.some(_PROMPT_TOKENS))
    told["unfinished"] = world.num_unfinished()
    _damage(world, damaged)

    with world.server("second") as server:
        told["restarted"] = world.turns(server, asked)
        counted = _counted(server)
        told["damaged again"] = _ask(server, told["damaged prompt"])
        told["refused"] = _counted(server)["reason"] - counted["reason"]
        with world.dying_at(server, "preadv"):
            _ask(server, world.prompts[_LAST])

    with world.server("third") as server, world.server("fourth") as other:
        told["last"] = world.turns(server, range(_LAST, _NUM_SESSIONS))
        told["shared prompt"] = world.some(_PROMPT_TOKENS)
        told["here"] = _ask(server, told["shared prompt"])
        time.sleep(1.5)
        told["there"] = _ask(other, told["shared prompt"])
        told["there counted"] = _counted(other)["source"]
        with ThreadPoolExecutor(2) as pool:
            same = world.some(_PROMPT_TOKENS)
            told["at once"] = list(pool.map(lambda one: _ask(one, same), (server, other)))

    build_tiny_model(world.model, seed=1)
    with world.server("fifth") as server:
        told["other weights"] = world.turns(server, asked)
    return told


@pytest.fixture(scope="module")
def hybrid_story(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The same for a model with two cache groups; no more than a restart happens."""
    pytest.importorskip("vllm")
    world = _World(tmp_path_factory.mktemp("hybrid"), 2 * _KV_TOKENS, _LONGEST_HYBRID)
    _with_a_window(world.model)
    told: dict[str, Any] = {}
    everyone = range(_NUM_SESSIONS)
    with world.server("first") as server:
        for turn in ("first", "second"):
            told[turn] = world.turns(server, everyone)
            world.go_on(told[turn], everyone)
        world.wait_for_blocks(world.prompts)
    with world.server("second") as server:
        told["restarted"] = world.turns(server, everyone)
    return told


def _tokens(answers: list[_Answer]) -> list[Tokens]:
    return [answer.tokens for answer in answers]


@pytest.mark.parametrize("turn", ["first", "second", "restarted", "last", "other weights"])
def test_the_tokens_are_those_of_recomputation(story: dict[str, Any], turn: str) -> None:
    turns: _Turns = story[turn]
    assert _tokens(turns.answers) == _tokens(turns.recomputed)
    assert {answer.num_cached for answer in turns.recomputed} == {0}
    assert {len(answer.tokens) for answer in turns.answers} == {_NUM_OUTPUT_TOKENS}


def test_sessions_that_left_the_cache_come_back_from_the_host(story: dict[str, Any]) -> None:
    sources = story["second"].sources
    assert sources["host"] >= 10 * _BLOCK_TOKENS
    assert sources["disk"] == 0
    whole = (_PROMPT_TOKENS + _NUM_OUTPUT_TOKENS - 1) // _BLOCK_TOKENS * _BLOCK_TOKENS
    assert [answer.num_cached for answer in story["second"].answers] == [whole] * _NUM_SESSIONS


def test_after_a_restart_every_session_hits_on_its_first_turn(story: dict[str, Any]) -> None:
    turns: _Turns = story["restarted"]
    num_tokens = _PROMPT_TOKENS + 2 * _NUM_OUTPUT_TOKENS + _TOOL_TOKENS - 1
    whole = num_tokens // _BLOCK_TOKENS * _BLOCK_TOKENS
    assert [answer.num_cached for answer in turns.answers] == [whole] * _LAST
    assert turns.sources["disk"] == whole * _LAST
    assert turns.refused == {}


def test_an_engine_killed_amid_a_store_leaves_an_unfinished_file(story: dict[str, Any]) -> None:
    assert story["unfinished"] >= 1


def test_damaged_blocks_are_recomputed(story: dict[str, Any]) -> None:
    assert story["damaged again"].tokens == story["damaged answer"].tokens
    assert story["refused"].total() >= 1
    assert set(story["refused"]) <= {"truncated", "corrupt", "foreign"}


def test_a_session_whose_load_was_cut_short_by_a_kill_hits_after_it(
    story: dict[str, Any],
) -> None:
    assert story["last"].answers[0].num_cached >= 10 * _BLOCK_TOKENS
    assert story["last"].sources["disk"] >= 10 * _BLOCK_TOKENS


def test_what_one_engine_stored_another_one_finds(story: dict[str, Any]) -> None:
    assert story["there"].tokens == story["here"].tokens
    assert story["there counted"]["disk"] == story["there"].num_cached >= 10 * _BLOCK_TOKENS


def test_two_engines_on_one_prompt_at_once_agree(story: dict[str, Any]) -> None:
    here, there = story["at once"]
    assert here.tokens == there.tokens


def test_blocks_of_other_weights_of_the_same_name_are_not_used(story: dict[str, Any]) -> None:
    turns: _Turns = story["other weights"]
    assert turns.sources["disk"] == 0
    assert _tokens(turns.answers) != _tokens(story["restarted"].answers)


@pytest.mark.parametrize("turn", ["first", "second", "restarted"])
def test_the_tokens_of_a_hybrid_model_are_those_of_recomputation(
    hybrid_story: dict[str, Any], turn: str
) -> None:
    turns: _Turns = hybrid_story[turn]
    assert _tokens(turns.answers) == _tokens(turns.recomputed)
    assert {answer.num_cached for answer in turns.recomputed} == {0}


@pytest.mark.parametrize(("turn", "source"), [("second", "host"), ("restarted", "disk")])
def test_a_hybrid_models_sessions_come_back_from_the_tiers(
    hybrid_story: dict[str, Any], turn: str, source: str
) -> None:
    turns: _Turns = hybrid_story[turn]
    assert turns.sources[source] >= 10 * _BLOCK_TOKENS * _NUM_SESSIONS
    assert min(answer.num_cached for answer in turns.answers) >= 10 * _BLOCK_TOKENS


def test_every_block_that_is_left_is_whole(story: dict[str, Any]) -> None:
    from holdfast.pool.block_file import BlockState, verify_block

    pool = PoolDirectory(story["world"].pool)
    files = story["world"].block_files()
    states = Counter(verify_block(path, pool.place_of(path)) for path in files)
    assert states[BlockState.WHOLE] > 100
    assert states.total() - states[BlockState.WHOLE] <= 2  # damaged ones that nobody came to load
