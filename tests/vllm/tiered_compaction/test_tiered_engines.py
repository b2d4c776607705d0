"""Engines one after the other: vLLM has one worker connector a process, so none else may run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.vllm.compaction.world import (
    BLOCK_BYTES,
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


def test_pool_compacts_what_its_collector_removes(
    model: Path, reference: Reference, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {"compact_dir": str(tmp_path / "compacted"), "host_gib": HOST_GIB}
    # Less than two crowds, so that the third stores and the collector removes the first prompts.
    pool: dict[str, Any] = {
        "pool_dir": str(tmp_path / "pool"),
        "pool_gib": 90 * (BLOCK_BYTES + 4096) / (1 << 30),
    }
    with Engine(model, compact_before_drop=True, **settings, **pool) as engine:
        engine.ask(PROMPT)
        engine.crowd_out()
        assert engine.ask(PROMPT + NEXT).compaction is None
        engine.drop(most=20)
        engine.await_compactions(1)
        found = engine.ask(PROMPT + NEXT)
        assert found.compaction is not None
        session = reference.compacted(PROMPT, NUM_KEPT)
        assert found.tokens == session.answer(NEXT, max_tokens=NUM_OUTPUTS)


def test_compaction_with_tiers_outlives_the_engine(
    model: Path, reference: Reference, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {"compact_dir": str(tmp_path), "host_gib": HOST_GIB}
    with Engine(model, compact_before_drop=True, **settings) as first:
        first.ask(PROMPT)
        first.drop()
        first.await_compactions(1)
    with Engine(model, **settings) as second:
        found = second.ask(PROMPT + NEXT)
        session = reference.compacted(PROMPT, NUM_KEPT)
        assert found.tokens == session.answer(NEXT, max_tokens=NUM_OUTPUTS)


def test_unasked_nothing_changes(model: Path, tmp_path: Path) -> None:
    """With `compact_before_drop` off the engine does what it does with tiers alone."""

    def run(**settings: Any) -> tuple[list[object], dict[str, float]]:
        scheduler = "holdfast.vllm.scheduler.HoldfastScheduler"
        named: dict[str, Any] = {} if "compact_dir" in settings else {"scheduler": scheduler}
        # Space for every session: which are evicted depends on time.
        with Engine(model, host_gib=3 * HOST_GIB, **named, **settings) as engine:
            said: list[object] = []
            for seed in range(4):
                said += engine.ask_all([some_tokens(seed, 300), some_tokens(seed + 9, 500)])
            said += engine.ask_all([some_tokens(seed, 300) + NEXT for seed in range(4)])
            return said, engine.counted

    without, counted = run()
    with_it, counted_with_it = run(compact_dir=str(tmp_path))
    assert with_it == without
    assert not list(tmp_path.rglob("*.safetensors"))
    for name in (
        "admissions",
        "cached_tokens",
        "missed_tokens/never_seen",
        "missed_tokens/evicted",
    ):
        assert counted_with_it[f"holdfast_{name}"] == counted[f"holdfast_{name}"]
