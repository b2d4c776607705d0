"""Sessions compacted as the last tier drops them, on the real engine, against transformers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.vllm.compaction.world import (
    HOST_GIB,
    NEXT,
    NUM_KEPT,
    NUM_OUTPUTS,
    PROMPT,
    Engine,
    Reference,
    some_tokens,
)

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("has_tiers")]


@pytest.fixture(scope="module")
def running(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    directory = tmp_path_factory.mktemp("compactions")
    settings: dict[str, Any] = {"compact_dir": str(directory), "host_gib": HOST_GIB}
    with Engine(model, compact_before_drop=True, **settings) as engine:
        yield engine


@pytest.fixture
def engine(running: Engine) -> Engine:
    """The one engine, with nothing cached, stored or compacted."""
    running.forget()
    return running


def test_full_copies_are_loaded_while_a_tier_has_them(engine: Engine, reference: Reference) -> None:
    engine.ask(PROMPT)
    engine.crowd_out()
    assert engine.num_watched == 1
    found = engine.ask(PROMPT + NEXT)
    assert found.compaction is None
    assert found.tokens == reference.answer(PROMPT + NEXT)
    assert found.num_cached == 320
    assert not len(engine.sessions.catalog)


def test_host_tier_compacts_what_it_drops(engine: Engine, reference: Reference) -> None:
    engine.ask(PROMPT)
    engine.drop()
    engine.await_compactions(1)
    found = engine.ask(PROMPT + NEXT)
    session = reference.compacted(PROMPT, NUM_KEPT)
    assert found.tokens == session.answer(NEXT, max_tokens=NUM_OUTPUTS)
    assert found.compaction is not None
    assert found.num_cached == NUM_KEPT


def test_fork_and_second_drop_of_a_compacted_session(engine: Engine, reference: Reference) -> None:
    engine.ask(PROMPT)
    engine.drop()
    engine.await_compactions(1)
    session = reference.compacted(PROMPT, NUM_KEPT)
    for seed in (4, 5):
        branch = some_tokens(seed, 25)
        found = engine.ask(PROMPT + branch)
        assert found.tokens == session.answer(branch, max_tokens=NUM_OUTPUTS)
    longer = PROMPT + some_tokens(8, 128)
    assert engine.ask(longer).compaction is not None
    engine.crowd_out()
    engine.drop()
    engine.await_compactions(2)
    found = engine.ask(longer + NEXT)
    reference.compacted(longer[320:], 256, session)
    assert found.tokens == session.answer(NEXT, max_tokens=NUM_OUTPUTS)


def test_session_is_read_before_a_load_takes_its_blocks(
    engine: Engine, reference: Reference
) -> None:
    large = some_tokens(20, 1400)
    engine.ask(large, compact=False)
    engine.ask(some_tokens(21, 1440), num_outputs=1, compact=False, is_stored=False)
    engine.ask(PROMPT, is_stored=False)
    assert engine.ask(large, num_outputs=1, compact=False).num_cached > 1300  # from the host tier
    engine.await_compactions(1)
    found = engine.ask(PROMPT + NEXT)
    session = reference.compacted(PROMPT, NUM_KEPT)
    assert found.tokens == session.answer(NEXT, max_tokens=NUM_OUTPUTS)


def test_tenants_find_only_their_own_compaction(engine: Engine, reference: Reference) -> None:
    engine.ask(PROMPT, salt="one")
    engine.drop()
    engine.await_compactions(1)
    other = engine.ask(PROMPT + NEXT, salt="two")
    assert other.compaction is None
    assert other.tokens == reference.answer(PROMPT + NEXT)
    assert engine.ask(PROMPT + NEXT, salt="one").compaction is not None
