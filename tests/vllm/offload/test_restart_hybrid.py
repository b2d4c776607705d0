"""A restart of a real server whose model has two cache groups."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.engine_client import tokens_of
from tests.vllm.offload.world import (
    BLOCK_TOKENS,
    KV_TOKENS,
    NUM_SESSIONS,
    Turns,
    World,
)

pytestmark = [pytest.mark.engine, pytest.mark.server]

_LONGEST = 1024  # vLLM needs blocks for a whole request in both groups
_WINDOW_TOKENS = 64


def _with_a_window(model: Path) -> None:
    """Add a copy of the model's only layer with sliding-window attention before it."""
    from safetensors.numpy import load_file, save_file

    config = json.loads((model / "config.json").read_text())
    config["num_hidden_layers"] = 2
    config["layer_types"] = ["sliding_attention", "full_attention"]
    config["sliding_window"] = _WINDOW_TOKENS
    (model / "config.json").write_text(json.dumps(config))
    weights = load_file(model / "model.safetensors")
    again = {name.replace(".layers.0.", ".layers.1."): one for name, one in weights.items()}
    save_file(weights | again, model / "model.safetensors", metadata={"format": "pt"})


@pytest.fixture(scope="module")
def hybrid_story(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Two turns of each session, a restart, and a third turn."""
    pytest.importorskip("vllm")
    world = World(tmp_path_factory.mktemp("hybrid"), 2 * KV_TOKENS, _LONGEST)
    _with_a_window(world.model)
    recorded: dict[str, Any] = {}
    with world.server("first") as client:
        recorded["first"], recorded["second"] = world.two_turns(client)
    with world.server("second") as client:
        recorded["restarted"] = world.turns(client, range(NUM_SESSIONS))
    return recorded


@pytest.mark.parametrize("turn", ["first", "second", "restarted"])
def test_hybrid_model_answers_equal_recomputation(hybrid_story: dict[str, Any], turn: str) -> None:
    turns: Turns = hybrid_story[turn]
    assert tokens_of(turns.answers) == tokens_of(turns.recomputed)
    assert {answer.num_cached for answer in turns.recomputed} == {0}


@pytest.mark.parametrize(("turn", "source"), [("second", "host"), ("restarted", "disk")])
def test_hybrid_model_sessions_loaded_from_tiers(
    hybrid_story: dict[str, Any], turn: str, source: str
) -> None:
    turns: Turns = hybrid_story[turn]
    # Turns before the copy times are known are stored in part, or not at all; on a busy machine
    # the KV cache itself keeps most sessions.
    num_back = sum(answer.num_cached >= 10 * BLOCK_TOKENS for answer in turns.answers)
    assert num_back >= NUM_SESSIONS // 2
    assert turns.sources[source] >= 10 * BLOCK_TOKENS
    assert turns.sources.total() == sum(answer.num_cached for answer in turns.answers)
