"""Garbage collection of a pool: removed files and their order."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.pool.files import stored

from holdfast.pool.directory import PoolDirectory
from holdfast.pool.garbage_collection import ABANDONED_AFTER_S, Bounds, collect_garbage
from holdfast.pool.identity import PoolIdentity

ID = PoolIdentity({})
NOW_S = 10_000.0


@pytest.fixture
def pool(tmp_path: Path) -> PoolDirectory:
    return PoolDirectory.make(tmp_path / "pool")


def left(pool: PoolDirectory) -> set[str]:
    return {Path(file.path).name for file in pool.files()}


def test_no_removals_without_bounds(pool: PoolDirectory) -> None:
    stored(pool, ID, "a/1.bin", bytes(10), used_s=0.0)
    collected = collect_garbage(pool.files, Bounds(), NOW_S)
    assert (collected.num_files, collected.num_bytes, collected.removed_bytes) == (1, 10, 0)


def test_least_recently_used_evicted_first(pool: PoolDirectory) -> None:
    for name, used_s in (("old", 1.0), ("older", 0.5), ("new", 3.0), ("newer", 4.0)):
        stored(pool, ID, f"{name}/{name}.bin", bytes(10), used_s=used_s)
    collected = collect_garbage(pool.files, Bounds(max_bytes=25), NOW_S)
    assert left(pool) == {"new.bin", "newer.bin"}
    assert (collected.num_evicted, collected.num_files, collected.num_bytes) == (2, 2, 20)


def test_oversized_pool_is_evicted_down_to_the_goal(
    pool: PoolDirectory,
) -> None:
    for number in range(10):
        stored(pool, ID, f"{number}.bin", bytes(10), used_s=float(number))
    bounds = Bounds(max_bytes=100, goal_bytes=50)
    assert collect_garbage(pool.files, bounds, NOW_S).num_evicted == 0
    stored(pool, ID, "10.bin", bytes(10), used_s=10.0)
    assert collect_garbage(pool.files, bounds, NOW_S).num_evicted == 6
    assert left(pool) == {f"{number}.bin" for number in range(6, 11)}


def test_bound_is_for_all_identities_together(pool: PoolDirectory) -> None:
    stored(pool, PoolIdentity({"vllm": "1"}), "1.bin", bytes(10), used_s=1.0)
    stored(pool, PoolIdentity({"vllm": "2"}), "2.bin", bytes(10), used_s=2.0)
    collect_garbage(pool.files, Bounds(max_bytes=10), NOW_S)
    assert left(pool) == {"2.bin"}


def test_blocks_unused_for_the_ttl_expire(pool: PoolDirectory) -> None:
    stored(pool, ID, "1.bin", bytes(10), used_s=NOW_S - 101)
    stored(pool, ID, "2.bin", bytes(10), used_s=NOW_S - 99)
    collected = collect_garbage(pool.files, Bounds(ttl_s=100), NOW_S)
    assert left(pool) == {"2.bin"}
    assert (collected.num_expired, collected.removed_bytes) == (1, 10)


def test_files_are_named_before_they_are_evicted(pool: PoolDirectory) -> None:
    for name, used_s in (("expired", NOW_S - 200), ("old", NOW_S - 2), ("new", NOW_S - 1)):
        stored(pool, ID, f"{name}.bin", bytes(10), used_s=used_s)
    named = []

    def before_evicted(path: str) -> None:
        named.append((Path(path).name, Path(path).exists()))

    collect_garbage(pool.files, Bounds(max_bytes=10, ttl_s=100), NOW_S, before_evicted)
    assert named == [("old.bin", True)]
    assert left(pool) == {"new.bin"}


def test_abandoned_files_are_removed(pool: PoolDirectory) -> None:
    stored(pool, ID, "1.bin.x.tmp", bytes(10), used_s=NOW_S - ABANDONED_AFTER_S - 1)
    stored(pool, ID, "2.bin.y.tmp", bytes(10), used_s=NOW_S - ABANDONED_AFTER_S + 1)
    collected = collect_garbage(pool.files, Bounds(max_bytes=1), NOW_S)
    assert left(pool) == {"2.bin.y.tmp"}
    assert (collected.num_abandoned, collected.num_bytes, collected.num_evicted) == (1, 0, 0)


def test_vanished_files_count_as_removed(pool: PoolDirectory) -> None:
    for number in range(4):
        stored(pool, ID, f"{number}/{number}.bin", bytes(10), used_s=float(number))
    files = list(pool.files())
    shutil.rmtree(pool.directory_of(ID))
    collected = collect_garbage(lambda: files, Bounds(max_bytes=20), NOW_S)
    assert collected.num_evicted == 2


def test_directory_removed_with_its_last_block(pool: PoolDirectory) -> None:
    path = stored(pool, ID, "a/b/1.bin", bytes(10), used_s=0.0)
    collect_garbage(pool.files, Bounds(max_bytes=1), NOW_S)
    assert not path.parent.exists()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    files=st.lists(st.tuples(st.integers(1, 50), st.integers(0, 20)), max_size=12),
    max_bytes=st.integers(0, 300),
)
def test_no_more_is_evicted_than_needed(
    tmp_path: Path, files: list[tuple[int, int]], max_bytes: int
) -> None:
    pool = PoolDirectory.make(tmp_path / "pool")
    for number, (num_bytes, used_s) in enumerate(files):
        stored(pool, ID, f"{number}.bin", bytes(num_bytes), used_s=float(used_s))
    collected = collect_garbage(pool.files, Bounds(max_bytes=max_bytes), NOW_S)
    kept = {int(name.removesuffix(".bin")) for name in left(pool)}
    evicted = set(range(len(files))) - kept
    assert sum(files[number][0] for number in kept) == collected.num_bytes <= max_bytes
    assert len(evicted) == collected.num_evicted
    assert all(files[a][1] <= files[b][1] for a in evicted for b in kept)
    # The most recently used of them could not all have stayed.
    if evicted:
        last = max(files[number][1] for number in evicted)
        num_last = sum(files[number][0] for number in evicted if files[number][1] == last)
        assert collected.num_bytes + num_last > max_bytes
    for file in pool.files():
        Path(file.path).unlink()
