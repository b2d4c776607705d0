"""Real servers on one pool: restarts, kills, damaged files, two at once."""

from __future__ import annotations

import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tests.engine_client import NUM_OUTPUT_TOKENS, tokens_of
from tests.vllm.offload.world import (
    BLOCK_TOKENS,
    LAST,
    NUM_SESSIONS,
    PROMPT_TOKENS,
    TOOL_TOKENS,
    Turns,
    World,
    cached_by_source,
    refused_by_reason,
)

from holdfast.bench.model import build_tiny_model
from holdfast.pool.directory import PoolDirectory

pytestmark = [pytest.mark.engine, pytest.mark.server]


def _damage(files: list[Path]) -> None:
    """Damage three blocks: truncate one, flip a bit of one, replace one."""
    cut, changed, foreign = files
    os.truncate(cut, 5000)
    content = bytearray(changed.read_bytes())
    content[1234] ^= 8
    changed.write_bytes(content)
    foreign.write_bytes(os.urandom(foreign.stat().st_size))


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """All events in order, for the tests to check."""
    pytest.importorskip("vllm")
    world = World(tmp_path_factory.mktemp("world"))
    recorded: dict[str, Any] = {"world": world}
    asked = range(LAST)

    with world.server("first") as client:
        recorded["first"], recorded["second"] = world.two_turns(client)
        damaged_prompt = world.some(3 * BLOCK_TOKENS + 1)
        recorded["damaged answer"] = client.ask(damaged_prompt)
        damaged = world.stored(damaged_prompt)
        with world.dying_at(client, "writev"):
            client.ask(world.some(PROMPT_TOKENS))
    recorded["unfinished"] = world.num_unfinished()
    _damage(damaged)

    with world.server("second") as client:
        recorded["restarted"] = world.turns(client, asked)
        before = refused_by_reason(client)
        recorded["damaged again"] = client.ask(damaged_prompt)
        recorded["refused"] = refused_by_reason(client) - before
        with world.dying_at(client, "preadv"):
            client.ask(world.prompts[LAST])

    with world.server("third") as here, world.server("fourth") as there:
        recorded["last"] = world.turns(here, range(LAST, NUM_SESSIONS))
        shared_prompt = world.some(PROMPT_TOKENS)
        recorded["here"] = here.ask(shared_prompt)
        world.stored(shared_prompt)
        recorded["there"] = there.ask(shared_prompt)
        recorded["there counted"] = cached_by_source(there)
        with ThreadPoolExecutor(2) as pool:
            same = world.some(PROMPT_TOKENS)
            recorded["at once"] = list(pool.map(lambda one: one.ask(same), (here, there)))

    build_tiny_model(world.model, seed=1)
    with world.server("fifth") as client:
        recorded["other weights"] = world.turns(client, asked)
    return recorded


@pytest.mark.parametrize("turn", ["first", "second", "restarted", "last", "other weights"])
def test_answers_equal_recomputation(story: dict[str, Any], turn: str) -> None:
    turns: Turns = story[turn]
    assert tokens_of(turns.answers) == tokens_of(turns.recomputed)
    assert {answer.num_cached for answer in turns.recomputed} == {0}
    assert {len(answer.tokens) for answer in turns.answers} == {NUM_OUTPUT_TOKENS}


def test_evicted_sessions_loaded_from_the_host_tier(story: dict[str, Any]) -> None:
    sources = story["second"].sources
    assert sources["host"] >= 10 * BLOCK_TOKENS
    assert sources["disk"] == 0
    whole = (PROMPT_TOKENS + NUM_OUTPUT_TOKENS - 1) // BLOCK_TOKENS * BLOCK_TOKENS
    assert [answer.num_cached for answer in story["second"].answers] == [whole] * NUM_SESSIONS


def test_every_session_hits_after_a_restart(story: dict[str, Any]) -> None:
    turns: Turns = story["restarted"]
    num_tokens = PROMPT_TOKENS + 2 * NUM_OUTPUT_TOKENS + TOOL_TOKENS - 1
    whole = num_tokens // BLOCK_TOKENS * BLOCK_TOKENS
    assert [answer.num_cached for answer in turns.answers] == [whole] * LAST
    assert turns.sources["disk"] == whole * LAST
    assert turns.refused == {}


def test_kill_amid_a_store_leaves_an_unfinished_file(story: dict[str, Any]) -> None:
    assert story["unfinished"] >= 1


def test_damaged_blocks_are_computed_again(story: dict[str, Any]) -> None:
    assert story["damaged again"].tokens == story["damaged answer"].tokens
    assert story["refused"].total() >= 1
    assert set(story["refused"]) <= {"truncated", "corrupt", "foreign"}


def test_loads_of_damaged_blocks_are_named_as_failed(story: dict[str, Any]) -> None:
    missed = story["world"].misses("second")
    failed = [one["missed"] for one in missed if "tier_load_failed" in one["missed"]]
    assert failed == [{"tier_load_failed": 3 * BLOCK_TOKENS, "never_seen": 1}]
    for one in missed:
        assert one["cached_tokens"] + sum(one["missed"].values()) == one["prompt_tokens"]


def test_session_hits_after_a_kill_amid_its_load(
    story: dict[str, Any],
) -> None:
    assert story["last"].answers[0].num_cached >= 10 * BLOCK_TOKENS
    assert story["last"].sources["disk"] >= 10 * BLOCK_TOKENS


def test_another_engine_finds_stored_blocks(story: dict[str, Any]) -> None:
    assert story["there"].tokens == story["here"].tokens
    assert story["there counted"]["disk"] == story["there"].num_cached >= 10 * BLOCK_TOKENS


def test_two_engines_on_one_prompt_agree(story: dict[str, Any]) -> None:
    here, there = story["at once"]
    assert here.tokens == there.tokens


def test_blocks_of_other_weights_are_not_used(story: dict[str, Any]) -> None:
    turns: Turns = story["other weights"]
    assert turns.sources["disk"] == 0
    assert tokens_of(turns.answers) != tokens_of(story["restarted"].answers)


def test_every_block_of_the_pool_is_whole(story: dict[str, Any]) -> None:
    from holdfast.pool.block_file import BlockState, verify_block

    pool = PoolDirectory(story["world"].pool)
    files = story["world"].block_files()
    states = Counter(verify_block(path, pool.location_of(path)) for path in files)
    assert states[BlockState.WHOLE] > 100
    assert states.total() - states[BlockState.WHOLE] <= 2  # damaged ones that no turn loaded
