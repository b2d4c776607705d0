"""Prefixes in tiers, by what a tier drops, and tiers that are refused."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from holdfast.errors import ConfigError

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("has_tiers")]


def _stored(name: str, num_blocks: int = 2) -> Any:
    from holdfast.vllm.compaction.compactor import CompactJob
    from holdfast.vllm.compaction.paused_prefixes import PausedPrefix
    from holdfast.vllm.tiered_compaction.watched_paths import StoredPrefix

    hashes = [b"shared", *(f"{name}{number}".encode() for number in range(1, num_blocks))]
    prefix = PausedPrefix(hashes, [], name.encode(), 64, None)
    return StoredPrefix(prefix, hashes, CompactJob("path", [], 64, 32, "salt", None))


def _watching(*stored: Any, max_parts: int = 100) -> Any:
    from holdfast.vllm.tiered_compaction.watched_paths import WatchedPaths

    watched = WatchedPaths(max_parts)
    for one in stored:
        watched.add(one, one.keys)
    return watched


def test_served_with_both_settings_one_connector_is_named() -> None:
    from holdfast.config import HoldfastConfig
    from holdfast.vllm.offload.arguments import tier_arguments
    from holdfast.vllm.tiered_compaction.arguments import tiered_compaction_config

    config = HoldfastConfig(compact_dir="/x", host_gib=0.01)
    name, text = tier_arguments(config, ["model"], tiered_compaction_config)
    assert name == "--kv-transfer-config"
    assert "TieredCompactionConnector" in text


def test_a_dropped_part_finds_each_prefix_once() -> None:
    one, two = _stored("one"), _stored("two")
    watched = _watching(one, two)
    assert watched.take_needing([b"two1"]) == [two]
    assert watched.take_needing([b"shared", b"one1"]) == [one]
    assert watched.take_needing([b"shared"]) == []
    assert len(watched) == 0


def test_a_session_that_returns_is_not_watched() -> None:
    one, two = _stored("one"), _stored("two")
    watched = _watching(one, two)
    assert watched.take([b"one1", b"none"]) == [one]
    assert watched.take_needing([b"shared"]) == [two]


def test_the_oldest_are_left_out_beyond_the_bound() -> None:
    watched = _watching(_stored("one"), _stored("two"), max_parts=5)
    three = _stored("three", num_blocks=3)
    assert watched.add(three, three.keys) == [_stored("one")]
    assert len(watched) == 2


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"secondary_tiers": ["another"]}, "not before other tiers do"),
        ({"policy": "lru"}, "not before other tiers do"),
        ({"blocks_per_chunk": 2}, "another layout"),
        ({"canonical_layout": True}, "another layout"),
    ],
)
def test_tiers_that_are_not_ours_are_refused(change: dict[str, Any], why: str) -> None:
    from holdfast.vllm.offload.host_policy import HostPolicy
    from holdfast.vllm.tiered_compaction.connector import TieredCompactionConnector

    host = SimpleNamespace(_policy=change.get("policy") or HostPolicy(4))
    manager = SimpleNamespace(primary_tier=host, secondary_tiers=change.get("secondary_tiers", ()))
    config = SimpleNamespace(blocks_per_chunk=change.get("blocks_per_chunk", 1))
    connector = SimpleNamespace(
        connector_scheduler=SimpleNamespace(manager=manager, config=config),
        _canonical_layout=change.get("canonical_layout", False),
    )
    with pytest.raises(ConfigError, match=why):
        TieredCompactionConnector._watch_tiers(connector)  # type: ignore[arg-type]


def test_a_failing_read_costs_one_compaction_only(caplog: pytest.LogCaptureFixture) -> None:
    from holdfast.vllm.tiered_compaction.tier_copies import TierCopies

    def read_into(key: bytes, block: memoryview) -> bool:
        raise MemoryError

    policy = SimpleNamespace(before_evicted=None)
    disk: Any = SimpleNamespace(
        before_removed=None, block_bytes=64, path_of=repr, read_into=read_into
    )
    compactor: Any = SimpleNamespace(close=lambda: None)
    copies = TierCopies(policy, bytes, disk, compactor, lambda decide: decide())  # type: ignore[arg-type]
    for name in "ab":
        copies._watch_files(_stored(name))
        disk.before_removed(repr(f"{name}1".encode()))
    assert [ended.outcome for ended in copies.take_ended()] == ["incomplete", "incomplete"]
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    copies.close()
