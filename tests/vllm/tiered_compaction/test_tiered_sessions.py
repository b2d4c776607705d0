"""Sessions compacted as the last tier drops them, on the real engine, against transformers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.vllm.compaction.world import (
    HOST_GIB,
    NUM_OUTPUTS,
    Engine,
    Reference,
    build_model,
    some_tokens,
)

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("has_tiers")]

_PROMPT = some_tokens(1, 320)
_NEXT = some_tokens(2, 20)
_NUM_KEPT = 192


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def reference(model: Path) -> Reference:
    return Reference(model)


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
    engine.ask(_PROMPT)
    engine.crowd_out()
    assert engine.num_watched == 1
    found = engine.ask(_PROMPT + _NEXT)
    assert found.compaction is None
    assert found.tokens == reference.answer(_PROMPT + _NEXT)
    assert found.num_cached == 320
    assert not len(engine.sessions.catalog)


def test_host_tier_compacts_what_it_drops(engine: Engine, reference: Reference) -> None:
    engine.ask(_PROMPT)
    engine.drop()
    engine.await_compactions(1)
    found = engine.ask(_PROMPT + _NEXT)
    session = reference.compacted(_PROMPT, _NUM_KEPT)
    assert found.tokens == session.answer(_NEXT, max_tokens=NUM_OUTPUTS)
    assert found.compaction is not None
    assert found.num_cached == _NUM_KEPT


def test_fork_and_second_drop_of_a_compacted_session(engine: Engine, reference: Reference) -> None:
    engine.ask(_PROMPT)
    engine.drop()
    engine.await_compactions(1)
    session = reference.compacted(_PROMPT, _NUM_KEPT)
    for seed in (4, 5):
        branch = some_tokens(seed, 25)
        found = engine.ask(_PROMPT + branch)
        assert found.tokens == session.answer(branch, max_tokens=NUM_OUTPUTS)
    longer = _PROMPT + some_tokens(8, 128)
    assert engine.ask(longer).compaction is not None
    engine.crowd_out()
    engine.drop()
    engine.await_compactions(2)
    found = engine.ask(longer + _NEXT)
    reference.compacted(longer[320:], 256, session)
    assert found.tokens == session.answer(_NEXT, max_tokens=NUM_OUTPUTS)


def test_session_is_read_before_a_load_takes_its_blocks(
    engine: Engine, reference: Reference
) -> None:
    large = some_tokens(20, 1400)
    engine.ask(large, compact=False)
    engine.ask(some_tokens(21, 1440), num_outputs=1, compact=False, is_stored=False)
    engine.ask(_PROMPT, is_stored=False)
    assert engine.ask(large, num_outputs=1, compact=False).num_cached > 1300  # from the host tier
    engine.await_compactions(1)
    found = engine.ask(_PROMPT + _NEXT)
    session = reference.compacted(_PROMPT, _NUM_KEPT)
    assert found.tokens == session.answer(_NEXT, max_tokens=NUM_OUTPUTS)


def test_tenants_find_only_their_own_compaction(engine: Engine, reference: Reference) -> None:
    engine.ask(_PROMPT, salt="one")
    engine.drop()
    engine.await_compactions(1)
    other = engine.ask(_PROMPT + _NEXT, salt="two")
    assert other.compaction is None
    assert other.tokens == reference.answer(_PROMPT + _NEXT)
    assert engine.ask(_PROMPT + _NEXT, salt="one").compaction is not None
