"""Compacted sessions that return, on the real engine, against transformers.

A prompt of 320 tokens keeps 192, 0.6 of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.vllm.compaction.world import (
    BLOCK,
    NEXT,
    NUM_KEPT,
    NUM_OUTPUTS,
    PROMPT,
    Engine,
    Reference,
    some_tokens,
)

from holdfast.vllm.compaction.compaction_file import read_header, read_prefix

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("loaded_engine")]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("compactions")


@pytest.fixture(scope="module")
def running(model: Path, directory: Path) -> Iterator[Engine]:
    with Engine(model, compact_dir=str(directory), compact_before_drop=True) as engine:
        yield engine


@pytest.fixture
def engine(running: Engine) -> Engine:
    """The one engine, with nothing cached or compacted."""
    running.forget()
    return running


@pytest.fixture
def paused(engine: Engine) -> Engine:
    """The engine after a session was compacted as its blocks were evicted."""
    engine.ask(PROMPT)
    engine.crowd_out()
    engine.await_compactions(1)
    return engine


def test_answers_equal_transformers_evicted_cache(paused: Engine, reference: Reference) -> None:
    found = paused.ask(PROMPT + NEXT)
    expected = reference.compacted(PROMPT, NUM_KEPT).answer(NEXT, max_tokens=NUM_OUTPUTS)
    assert found.tokens == expected
    assert expected != reference.answer(PROMPT + NEXT), "nothing was lost, so nothing is tested"
    assert found.num_cached == NUM_KEPT
    assert found.compaction == {
        "prompt_tokens": 340,
        "compacted_tokens": 320,
        "kept_tokens": 192,
        "dropped_tokens": 128,
        "method": "keydiff",
    }


def test_compaction_takes_its_share_of_bytes(paused: Engine, directory: Path) -> None:
    (path,) = directory.rglob("*.safetensors")
    header, prefix = read_header(path), read_prefix(path)
    assert header.num_bytes_before == 320 * 2 * 2 * 2 * 64 * 4  # K and V, layers, heads, sizes
    assert prefix.num_bytes == header.num_bytes_before * NUM_KEPT // 320
    assert prefix.positions.shape == (2, 2, NUM_KEPT)
    assert int(prefix.positions.max()) < 320
    assert paused.counted["holdfast_compactions/stored"] >= 1
    assert paused.counted["holdfast_compacted_bytes"] == path.stat().st_size


def test_cached_prefix_is_not_compacted(engine: Engine, reference: Reference) -> None:
    engine.ask(PROMPT, compact=True)
    engine.await_compactions(1)
    found = engine.ask(PROMPT + NEXT)
    assert found.compaction is None
    assert found.tokens == reference.answer(PROMPT + NEXT)


def test_second_turn_continues_in_the_cache(paused: Engine, reference: Reference) -> None:
    turn = PROMPT + NEXT
    turn += paused.ask(turn).tokens + some_tokens(3, 30)
    found = paused.ask(turn)
    session = reference.compacted(PROMPT, NUM_KEPT)
    assert found.tokens == session.answer(turn[320:], max_tokens=NUM_OUTPUTS)
    assert found.num_cached == (NUM_KEPT + 20 + NUM_OUTPUTS) // BLOCK * BLOCK


def test_forks_share_the_compacted_prefix(paused: Engine, reference: Reference) -> None:
    session = reference.compacted(PROMPT, NUM_KEPT)
    branches = [some_tokens(seed, 25) for seed in (4, 5, 6)]
    found = paused.ask_all([PROMPT + branch for branch in branches])
    for said, branch in zip(found, branches, strict=True):
        assert said.tokens == session.answer(branch, max_tokens=NUM_OUTPUTS)
        assert said.compaction is not None


def test_earlier_fork_is_computed_in_full(paused: Engine, reference: Reference) -> None:
    fork = [*PROMPT[:300], *some_tokens(7, 40)]
    found = paused.ask(fork)
    assert found.compaction is None
    assert found.tokens == reference.answer(fork)


def test_second_compaction_of_a_session(paused: Engine, reference: Reference) -> None:
    longer = PROMPT + some_tokens(8, 128)
    assert paused.ask(longer).compaction is not None
    paused.crowd_out()
    paused.await_compactions(2)
    found = paused.ask(longer + NEXT)
    session = reference.compacted(PROMPT, NUM_KEPT)
    reference.compacted(longer[320:], 256, session)  # 0.6 of 448, in whole blocks
    assert found.tokens == session.answer(NEXT, max_tokens=NUM_OUTPUTS)
    assert found.compaction is not None
    assert found.compaction["dropped_tokens"] == 448 - 256


def test_other_tenant_finds_no_compaction(engine: Engine, reference: Reference) -> None:
    engine.ask(PROMPT, salt="one")
    engine.crowd_out()
    engine.await_compactions(1)
    other = engine.ask(PROMPT + NEXT, salt="two")
    assert other.compaction is None
    assert other.tokens == reference.answer(PROMPT + NEXT)
    own = engine.ask(PROMPT + NEXT, salt="one")
    assert own.compaction is not None


def test_compactions_of_two_tenants_share_no_block(engine: Engine) -> None:
    for salt in ("one", "two"):
        engine.ask(PROMPT, salt=salt)
    engine.crowd_out()
    engine.await_compactions(2)
    for salt in ("one", "two"):
        # A placeholder block of the other would be cached without a load.
        before = engine.sessions.counts["loads"]
        assert engine.ask(PROMPT + NEXT, salt=salt).num_cached == NUM_KEPT
        assert engine.sessions.counts["loads"] == before + 1


def test_client_can_forbid_its_compaction(engine: Engine, reference: Reference) -> None:
    engine.ask(PROMPT, compact=False)
    engine.crowd_out()
    assert not engine.sessions.has_jobs
    engine.ask(PROMPT, compact=True)
    engine.await_compactions(1)
    engine.crowd_out()
    found = engine.ask(PROMPT + NEXT, compact=False)
    assert found.compaction is None
    assert found.tokens == reference.answer(PROMPT + NEXT)


def test_missing_file_means_the_full_prompt(
    paused: Engine, reference: Reference, directory: Path
) -> None:
    (path,) = directory.rglob("*.safetensors")
    path.unlink()
    found = paused.ask(PROMPT + NEXT)
    assert found.compaction is None
    assert found.tokens == reference.answer(PROMPT + NEXT)


def test_damaged_file_fails_one_request_only(
    paused: Engine, reference: Reference, directory: Path
) -> None:
    (path,) = directory.rglob("*.safetensors")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert paused.ask(PROMPT + NEXT).ended_by == "error"
    found = paused.ask(PROMPT + NEXT)
    assert found.compaction is None
    assert found.tokens == reference.answer(PROMPT + NEXT)


def test_preempted_request_loads_again(paused: Engine, reference: Reference) -> None:
    # 2 x 480 + 340 tokens of prompts and 3 x 200 of answers do not fit 1,536.
    others = [some_tokens(seed, 480) for seed in (11, 12)]
    before = paused.sessions.counts["loads"]
    *_, found = paused.ask_all([*others, PROMPT + NEXT], num_outputs=300)
    assert paused.sessions.counts["loads"] > before + 1, "not preempted"
    session = reference.compacted(PROMPT, NUM_KEPT)
    assert found.tokens == session.answer(NEXT, max_tokens=300)


def test_stock_scheduler_with_the_connector_alone(
    model: Path, reference: Reference, tmp_path: Path
) -> None:
    stock = "vllm.v1.core.sched.async_scheduler.AsyncScheduler"
    settings = {"compact_dir": str(tmp_path), "compact_before_drop": True}
    with Engine(model, scheduler=stock, **settings) as engine:
        engine.ask(PROMPT)
        engine.crowd_out()
        engine.await_compactions(1)
        found = engine.ask(PROMPT + NEXT)
        session = reference.compacted(PROMPT, NUM_KEPT)
        assert found.tokens == session.answer(NEXT, max_tokens=NUM_OUTPUTS)


def test_compactions_outlive_the_engine(model: Path, reference: Reference, tmp_path: Path) -> None:
    settings = {"compact_dir": str(tmp_path)}
    with Engine(model, **settings) as first:
        first.ask(PROMPT, compact=True)
        first.await_compactions(1)
    with Engine(model, **settings) as second:
        found = second.ask(PROMPT + NEXT)
        session = reference.compacted(PROMPT, NUM_KEPT)
        assert found.tokens == session.answer(NEXT, max_tokens=NUM_OUTPUTS)
        assert found.num_cached == NUM_KEPT
        second.crowd_out()  # not asked for, so nothing more is compacted
        assert len(second.sessions.catalog) == 1


def test_a_failing_look_up_computes_the_whole_prompt(
    model: Path, tmp_path: Path, reference: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> None:
        raise OSError("the disk is gone")

    with Engine(model, compact_dir=str(tmp_path), compact_before_drop=True) as engine:
        monkeypatch.setattr(engine.sessions.catalog, "deepest", fail)
        asked = [engine.ask(PROMPT), engine.ask(PROMPT + NEXT)]
        counted = engine.counted
    assert [said.tokens for said in asked] == [
        reference.answer(PROMPT),
        reference.answer(PROMPT + NEXT),
    ]
    assert counted["holdfast_compactions/failed"] == 1
    assert not counted.get("holdfast_fallbacks/compaction")
