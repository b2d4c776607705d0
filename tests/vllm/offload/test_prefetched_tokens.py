"""A real server that prefetches as much as it can answers with the right tokens.

What is right is what the same server answers to the same prompt with a `cache_salt` of its own,
for which it finds nothing.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.engine_client import EngineClient, Tokens, tokens_of

from holdfast.bench.model import build_tiny_model
from holdfast.bench.server import EngineOptions, EngineServer
from holdfast.config import HoldfastConfig

pytestmark = [pytest.mark.engine, pytest.mark.server]

_BLOCK_TOKENS = 32
_BLOCK_BYTES = _BLOCK_TOKENS * 2 * 64 * 4  # keys and values of one head of 64 floats
_KV_TOKENS = 1536
_HOST_BLOCKS = 60  # fewer than all sessions have: some blocks are on disk only
_NUM_SESSIONS = 6
_NUM_TURNS = 4
_EAGER = Path(__file__).parent / "eager"


@dataclass(frozen=True, slots=True)
class _Story:
    answers: list[Tokens]
    recomputed: list[Tokens]
    counted: dict[str, float]


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[_Story]:
    directory = tmp_path_factory.mktemp("eager")
    config = HoldfastConfig(
        strict=True,
        host_gib=_HOST_BLOCKS * _BLOCK_BYTES / (1 << 30),
        pool_dir=str(directory / "pool"),
    )
    options = EngineOptions(
        model=build_tiny_model(directory / "model"),
        kv_tokens=_KV_TOKENS,
        max_model_len=_KV_TOKENS,
        block_size_tokens=_BLOCK_TOKENS,
        config=config,
        environ={
            "PYTHONPATH": os.pathsep.join([str(_EAGER), *os.environ.get("PYTHONPATH", "").split()])
        },
    )
    rng = random.Random(11)
    prompts = [[rng.randrange(300, 2000) for _ in range(400)] for _ in range(_NUM_SESSIONS)]
    asked: list[Tokens] = []
    answers: list[Tokens] = []
    with (
        EngineServer("holdfast", options, directory / "server.log") as server,
        ThreadPoolExecutor(3) as pool,
    ):
        client = EngineClient(server)
        for _ in range(_NUM_TURNS):
            turn = tokens_of(pool.map(client.ask, prompts))
            asked += prompts
            answers += turn
            prompts = [
                prompt + answer + [rng.randrange(300, 2000) for _ in range(40)]
                for prompt, answer in zip(prompts, turn, strict=True)
            ]
        again = [client.ask(prompt, salt=str(i)) for i, prompt in enumerate(asked)]
        counted = client.totals_with("holdfast_prefetches_total")
    yield _Story(answers, tokens_of(again), counted)


def test_answers_equal_recomputation(story: _Story) -> None:
    assert story.answers == story.recomputed


def test_blocks_were_prefetched(story: _Story) -> None:
    assert story.counted["holdfast_prefetches_total"] > 0


def test_no_fallback_happened(story: _Story) -> None:
    assert not story.counted.get("holdfast_fallbacks_total")
