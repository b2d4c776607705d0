"""The host tier on vLLM's own connector, with copies on a simulated link."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from holdfast.vllm.offload.no_offload import NoOffloadController
from holdfast.vllm.versions import OLDEST_WITH_TIERS, engine_version, is_older

if TYPE_CHECKING:
    from tests.vllm.conftest import Rig, RigMaker

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("host_offloading")]


@pytest.fixture
def host_offloading(loaded_engine: None) -> None:
    if is_older(engine_version(), OLDEST_WITH_TIERS):
        pytest.skip("this vLLM is older than the offloading that tiers need")


def with_host(make_rig: RigMaker, num_blocks: int, host_blocks: int, **options: Any) -> Rig:
    options.setdefault("host_policy", "HostPolicy")
    return make_rig(num_blocks, host_blocks=host_blocks, **options)


def num_loaded(rig: Rig) -> int:
    assert rig.engine._link is not None
    return rig.engine._link.num_loaded_blocks


@pytest.mark.parametrize("is_stock", [True, False])
def test_evicted_blocks_are_loaded_from_the_host_tier(make_rig: RigMaker, is_stock: bool) -> None:
    policy = "lru" if is_stock else "HostPolicy"
    rig = with_host(make_rig, 12, 64, is_stock=is_stock, host_policy=policy)
    rig.turn("1", "abcdefgh")
    rig.turn("2", "stuvwxyz")
    assert rig.num_cached("abcdefgh") < 8
    before = rig.num_computed_tokens
    rig.turn("3", "abcdefgh")
    assert num_loaded(rig) >= 4
    assert rig.num_computed_tokens - before < 3 * 16


def test_loaded_blocks_are_those_of_the_prompt(make_rig: RigMaker) -> None:
    rig = with_host(make_rig, 12, 64)
    rig.turn("1", "abcdefgh")
    rig.turn("2", "stuvwxyz")
    rig.turn("3", "abcdefgh")
    assert rig.num_cached("abcdefgh") == 8
    rig.check()


def test_full_host_tier_evicts_lowest_priority_first(make_rig: RigMaker) -> None:
    rig = with_host(make_rig, 12, 16)
    rig.turn("1", "abcdefgh", xargs={"holdfast_final": True})
    rig.turn("2", "stuvwxyz")
    rig.turn("3", "klmnopqr")
    before = num_loaded(rig)
    rig.turn("4", "stuvwxyz")
    assert num_loaded(rig) > before


def test_turn_counts_its_loadable_blocks(make_rig: RigMaker) -> None:
    rig = with_host(make_rig, 12, 64)
    rig.turn("1", "abcdefgh")
    rig.turn("2", "stuvwxyz")
    rig.send("3", "abcdefgh")
    turn = rig.scheduler._tracker.turn_of("3")
    assert turn.resident_blocks + turn.loadable_blocks == 8
    assert turn.computed_blocks == turn.missing_blocks - turn.loadable_blocks


def test_copy_time_learned_from_copies(make_rig: RigMaker) -> None:
    rig = with_host(make_rig, 12, 64)
    assert rig.scheduler.offload.tier.load_s(1) == float("inf")
    for number, prompt in enumerate(("abcdefgh", "stuvwxyz", "abcdefgh")):
        rig.turn(str(number), prompt)
    assert rig.scheduler.offload.tier.load_s(1) < float("inf")


def test_chunks_of_every_cache_group_are_claimed() -> None:
    from vllm.v1.kv_offload.base import make_offload_key

    from holdfast.cache.prefix_tree import Node
    from holdfast.core.session import Session, SessionState
    from holdfast.vllm.offload.host_policy import HostPolicy
    from holdfast.vllm.offload.host_tier import HostTier

    policy = HostPolicy(8)
    tier = HostTier(policy, 8, [(0, 1), (1, 2)], lambda _: (0, 0.0))
    root: Node[Any] = Node(None, 0, [])
    tier.claim(Session(1, None, SessionState.AT_TOOL, root, root), [b"a", b"b"])
    kept = [make_offload_key(b"a", 0), make_offload_key(b"b", 0), make_offload_key(b"b", 1)]
    for key in (*kept, make_offload_key(b"x", 1)):
        policy.chunk_owners.store(key)
    assert policy.chunk_owners.victims(1, [], lambda _: True) == [make_offload_key(b"x", 1)]
    assert policy.chunk_owners.victims(1, [], lambda _: True) is None


def test_failed_load_loses_the_chunks_after_it() -> None:
    from vllm.v1.kv_offload.base import make_offload_key

    from holdfast.vllm.offload.host_tier import HostTier

    failed = {make_offload_key(b"d", 0), make_offload_key(b"j", 0)}
    tier = HostTier(None, 8, [(0, 2)], lambda _: (0, 0.0), has_failed=failed.__contains__)
    stored = {b"b", b"f", b"l"}
    tier.is_stored = lambda block_hash: block_hash in stored  # type: ignore[method-assign]
    hashes = [bytes([letter]) for letter in b"abcdefghijkl"]
    # Chunks of two: ab stored, cd failed, ef stored, gh unknown, ij failed, kl stored.
    found = [tier.num_failed(hashes, first) for first in range(12)]
    assert found == [0, 0, 4, 3, 0, 0, 0, 0, 4, 3, 0, 0]
    assert tier.num_failed(hashes[:3], 2) == 0


def test_stored_blocks_counted_in_full_attention_group() -> None:
    from vllm.v1.kv_offload.base import make_offload_key

    from holdfast.vllm.offload.attach import offload_controller_of
    from holdfast.vllm.offload.controller import OffloadController
    from holdfast.vllm.offload.host_policy import HostPolicy

    policy = HostPolicy(8)
    window, whole = 0, 1
    for prefix, group in ((b"a", whole), (b"b", whole), (b"c", whole), (b"c", window)):
        policy.insert(make_offload_key(prefix, group), SimpleNamespace(is_ready=True))
    groups = [
        SimpleNamespace(group_idx=group, hashes_per_chunk=1, sliding_window_size_in_chunks=chunks)
        for group, chunks in ((window, 1), (whole, None))
    ]
    connector = SimpleNamespace(
        manager=SimpleNamespace(_policy=policy, _num_chunks=8),
        config=SimpleNamespace(kv_group_configs=groups),
    )
    scheduler = SimpleNamespace(
        connector=SimpleNamespace(connector_scheduler=connector),
        kv_holding_waiting=[],
        kv_cache_config=SimpleNamespace(kv_cache_groups=groups),
    )
    runtime: Any = SimpleNamespace(max_known_blocks=0)
    offload = offload_controller_of(scheduler, runtime, lambda _: (0, 0.0))
    assert isinstance(offload, OffloadController)
    tier = offload.tier
    assert tier.num_stored([b"a", b"b", b"c", b"d"], 0) == 3


def test_scheduler_without_tiers_has_null_controller(make_rig: RigMaker) -> None:
    assert isinstance(make_rig(12).scheduler.offload, NoOffloadController)


def test_every_turn_ends_with_a_busy_host_tier(make_rig: RigMaker) -> None:
    rig = with_host(make_rig, 24, 40)
    prompts = {name: name * 6 for name in "abcdef"}
    for turn in range(4):
        for name, prompt in prompts.items():
            rig.send(f"{name}{turn}", prompt, num_outputs=20)
            rig.step()
            prompts[name] = prompt + name
    rig.finish()
    assert num_loaded(rig) > 0
    rig.scheduler.offload.tier._owners.check_integrity()


def test_host_tier_evicts_by_age_after_fallback(make_rig: RigMaker) -> None:
    rig = with_host(make_rig, 12, 16, is_strict=False)
    rig.turn("1", "abcdefgh")
    rig.scheduler._runtime.turn_arrived = None  # fails when it is called
    for number, prompt in enumerate(("stuvwxyz", "klmnopqr", "ABCDEFGH", "stuvwxyz")):
        rig.turn(f"then {number}", prompt)
    assert rig.metrics["holdfast_fallbacks/add_request"] == 1
    assert len(rig.scheduler.offload.tier._owners) > 8
    del rig.scheduler._runtime.turn_arrived


def test_error_in_stored_priority_keeps_stores_going(make_rig: RigMaker) -> None:
    rig = with_host(make_rig, 12, 16, is_strict=False)
    rig.turn("1", "abcdefgh")
    rig.scheduler._runtime.stored_priority = None
    for number, prompt in enumerate(("stuvwxyz", "klmnopqr", "ABCDEFGH", "KLMNOPQR")):
        rig.turn(f"then {number}", prompt)
    assert rig.metrics["holdfast_fallbacks/stored_worth"] >= 1


@pytest.mark.parametrize(("copies_block_steps", "expected_s"), [(True, 2.0), (False, 1.0)])
def test_load_time_includes_wait_if_copies_block_steps(
    copies_block_steps: bool, expected_s: float
) -> None:
    from holdfast.vllm.offload.host_policy import HostPolicy
    from holdfast.vllm.offload.host_tier import HostTier

    tier = HostTier(
        HostPolicy(8), 8, [(0, 1)], lambda _: (0, 0.0), copies_block_steps=copies_block_steps
    )
    job = SimpleNamespace(dst_spec=SimpleNamespace(block_ids=[1, 2]))
    times = SimpleNamespace(load=SimpleNamespace(time=1.0), store=SimpleNamespace(time=0.0))
    for number in range(100):
        tier.step_planned(SimpleNamespace(load_jobs={number: job}, store_jobs={}), 10.0 * number)
        report = SimpleNamespace(completed_jobs={number: 1}, transfer_stats=times)
        tier.step_ended(SimpleNamespace(kv_connector_worker_meta=report), 10.0 * number + 2.0)
    assert tier.load_s(2) == pytest.approx(expected_s, rel=1e-3)
