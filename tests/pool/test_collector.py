"""The thread that collects a pool's garbage."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.pool.files import stored
from tests.waiting import LONGEST_S, until

from holdfast.pool.collector import GarbageCollector
from holdfast.pool.directory import PoolDirectory, StoredFile
from holdfast.pool.identity import PoolIdentity

ID = PoolIdentity({})
NOW_S = 10_000_000.0

CollectorMaker = Callable[..., GarbageCollector]


@pytest.fixture
def pool(tmp_path: Path) -> PoolDirectory:
    return PoolDirectory.make(tmp_path / "pool")


@pytest.fixture
def start(pool: PoolDirectory) -> Iterator[CollectorMaker]:
    collectors: list[GarbageCollector] = []

    def make(max_bytes: float | None = None, ttl_s: float | None = None) -> GarbageCollector:
        collectors.append(
            GarbageCollector(pool, max_bytes=max_bytes, ttl_s=ttl_s, clock=lambda: NOW_S)
        )
        return collectors[-1]

    yield make
    for collector in collectors:
        collector.close()


def store(collector: GarbageCollector, pool: PoolDirectory, number: int) -> None:
    """Store a file of ten bytes as an engine does."""
    path = str(pool.directory_of(ID) / f"{number}.bin")
    assert collector.reserve(path, 10)
    assert str(stored(pool, ID, f"{number}.bin", bytes(10), used_s=float(number))) == path
    collector.written(path)


def test_oversized_pool_is_evicted_down_to_the_goal(
    pool: PoolDirectory, start: CollectorMaker
) -> None:
    for number in range(10):
        stored(pool, ID, f"{number}.bin", bytes(10), used_s=float(number))
    collector = start(max_bytes=60)
    until(lambda: len(list(pool.files())) == 5)  # 85 % of 60
    until(lambda: collector.num_bytes == 50)
    collected = collector.take_collected()
    assert (collected.num_evicted, collected.num_bytes) == (5, 50)
    assert collector.take_collected().num_evicted == 0


def test_blocks_fit_up_to_the_bound_and_after_eviction(
    pool: PoolDirectory, start: CollectorMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_list, list_files = threading.Event(), pool.files
    monkeypatch.setattr(pool, "files", lambda: (may_list.wait(LONGEST_S), list_files())[1])
    collector = start(max_bytes=100)
    for number in range(10):
        store(collector, pool, number)
    assert not collector.reserve("10.bin", 10)
    may_list.set()
    until(lambda: collector.reserve("10.bin", 10))
    assert len(list(list_files())) == 8


@pytest.mark.parametrize("num_before", [0, 3, 8])
def test_files_stored_during_a_listing_count_once(
    pool: PoolDirectory, start: CollectorMaker, monkeypatch: pytest.MonkeyPatch, num_before: int
) -> None:
    """Some are listed and some are not; one is being written when the listing begins."""
    begun, may_list = threading.Event(), threading.Event()
    list_files = pool.files

    def files() -> Iterator[StoredFile]:
        begun.set()
        may_list.wait(LONGEST_S)
        yield from list(list_files())[:num_before]

    with monkeypatch.context() as patch:
        patch.setattr(pool, "files", list)
        collector = start(max_bytes=1000)
        until(lambda: not collector._is_due)
        path = str(pool.directory_of(ID) / "9.bin")
        assert collector.reserve(path, 10)
        patch.setattr(pool, "files", files)
        assert not collector.reserve("large.bin", 2000)  # a collection begins
        assert begun.wait(LONGEST_S)
        for number in range(8):
            store(collector, pool, number)
        assert collector.num_bytes == 90
        may_list.set()
        until(lambda: collector.take_collected().num_bytes == 10 * num_before)
    assert collector.num_bytes == 90
    collector.release(path)
    assert collector.num_bytes == 80


def test_everything_fits_without_a_bound(start: CollectorMaker) -> None:
    assert start().reserve("1.bin", 10**15)


def test_two_collectors_remove_no_more_than_one(pool: PoolDirectory, start: CollectorMaker) -> None:
    for number in range(200):
        stored(pool, ID, f"{number}/{number}.bin", bytes(10), used_s=float(number))
    collectors = [start(max_bytes=1000), start(max_bytes=1000)]
    until(lambda: all(0 < collector.num_bytes < 2000 for collector in collectors))
    assert {int(Path(file.path).stem) for file in pool.files()} == set(range(115, 200))


def test_use_is_written_into_old_files_only(pool: PoolDirectory, start: CollectorMaker) -> None:
    old = stored(pool, ID, "1.bin", b"", used_s=NOW_S - 1000)
    new = stored(pool, ID, "2.bin", b"", used_s=NOW_S - 10)
    gone = pool.directory_of(ID) / "3.bin"
    start().mark_used([gone, new, old])
    until(lambda: old.stat().st_mtime != NOW_S - 1000)
    assert new.stat().st_mtime == NOW_S - 10
    assert not gone.exists()


def test_used_block_is_marked_long_before_it_expires(
    pool: PoolDirectory, start: CollectorMaker
) -> None:
    path = stored(pool, ID, "1.bin", b"", used_s=NOW_S - 30)
    start(ttl_s=100).mark_used([path])
    until(lambda: path.stat().st_mtime != NOW_S - 30)


def test_unreadable_pool_logged_once_and_thread_goes_on(
    pool: PoolDirectory, start: CollectorMaker, caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    tries: list[int] = []

    def fail() -> list[object]:
        tries.append(1)
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(pool, "files", fail)
        collector = start(max_bytes=100)
        until(lambda: "Permission denied" in caplog.text)
        for _ in range(2):  # when the second begins, the first is over
            num_before = len(tries)
            collector.reserve("1.bin", 99)
            until(lambda seen=num_before: len(tries) > seen)  # type: ignore[misc]
    assert caplog.text.count("cannot be cleaned up") == 1
    stored(pool, ID, "1.bin", bytes(200), used_s=1.0)
    collector.reserve("1.bin", 99)
    until(lambda: not list(pool.files()))


def test_closing_ends_the_thread(start: CollectorMaker) -> None:
    before = set(threading.enumerate())
    collector = start()
    assert len(set(threading.enumerate()) - before) == 1
    collector.close()
    assert not set(threading.enumerate()) - before
