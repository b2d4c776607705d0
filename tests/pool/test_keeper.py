"""The thread that keeps a pool within its bounds."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.pool.files import stored
from tests.waiting import LONGEST_S, until

from holdfast.pool.directory import PoolDirectory
from holdfast.pool.identity import PoolIdentity
from holdfast.pool.keeper import PoolKeeper

ID = PoolIdentity({})
NOW_S = 10_000_000.0

KeeperMaker = Callable[..., PoolKeeper]


@pytest.fixture
def pool(tmp_path: Path) -> PoolDirectory:
    return PoolDirectory.make(tmp_path / "pool")


@pytest.fixture
def keep(pool: PoolDirectory) -> Iterator[KeeperMaker]:
    keepers: list[PoolKeeper] = []

    def make(max_bytes: float | None = None, ttl_s: float | None = None) -> PoolKeeper:
        keepers.append(PoolKeeper(pool, max_bytes=max_bytes, ttl_s=ttl_s, clock=lambda: NOW_S))
        return keepers[-1]

    yield make
    for keeper in keepers:
        keeper.close()


def test_a_pool_that_is_too_large_is_made_smaller(pool: PoolDirectory, keep: KeeperMaker) -> None:
    for number in range(10):
        stored(pool, ID, f"{number}.bin", bytes(10), used_s=float(number))
    keeper = keep(max_bytes=60)
    until(lambda: len(list(pool.files())) == 5)  # 85 % of 60
    until(lambda: keeper.num_bytes == 50)
    removed = keeper.take_removed()
    assert (removed.num_evicted, removed.num_bytes) == (5, 50)
    assert keeper.take_removed().num_evicted == 0


def test_there_is_room_up_to_the_bound_and_then_it_is_made(
    pool: PoolDirectory, keep: KeeperMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_look, list_files = threading.Event(), pool.files
    monkeypatch.setattr(pool, "files", lambda: (may_look.wait(LONGEST_S), list_files())[1])
    keeper = keep(max_bytes=100)
    for number in range(10):
        assert keeper.has_room(10)
        stored(pool, ID, f"{number}.bin", bytes(10), used_s=float(number))
        keeper.add(10)
    assert not keeper.has_room(10)
    may_look.set()
    until(lambda: keeper.has_room(10))
    assert len(list(list_files())) == 8


def test_without_a_bound_there_is_always_room(keep: KeeperMaker) -> None:
    assert keep().has_room(10**15)


def test_two_keepers_remove_no_more_than_one(pool: PoolDirectory, keep: KeeperMaker) -> None:
    for number in range(200):
        stored(pool, ID, f"{number}/{number}.bin", bytes(10), used_s=float(number))
    keepers = [keep(max_bytes=1000), keep(max_bytes=1000)]
    until(lambda: all(0 < keeper.num_bytes < 2000 for keeper in keepers))
    assert {int(Path(file.path).stem) for file in pool.files()} == set(range(115, 200))


def test_use_is_written_into_old_files_and_not_into_new_ones(
    pool: PoolDirectory, keep: KeeperMaker
) -> None:
    old = stored(pool, ID, "1.bin", b"", used_s=NOW_S - 1000)
    new = stored(pool, ID, "2.bin", b"", used_s=NOW_S - 10)
    gone = pool.directory_of(ID) / "3.bin"
    keep().renew([gone, new, old])
    until(lambda: old.stat().st_mtime != NOW_S - 1000)
    assert new.stat().st_mtime == NOW_S - 10
    assert not gone.exists()


def test_a_block_is_renewed_long_before_it_expires(pool: PoolDirectory, keep: KeeperMaker) -> None:
    path = stored(pool, ID, "1.bin", b"", used_s=NOW_S - 30)
    keep(ttl_s=100).renew([path])
    until(lambda: path.stat().st_mtime != NOW_S - 30)


def test_a_pool_that_cannot_be_read_is_said_once_and_does_not_end_the_thread(
    pool: PoolDirectory, keep: KeeperMaker, caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    tries: list[int] = []

    def fail() -> list[object]:
        tries.append(1)
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(pool, "files", fail)
        keeper = keep(max_bytes=100)
        until(lambda: "Permission denied" in caplog.text)
        for _ in range(2):  # when the second begins, the first is over
            num_before = len(tries)
            keeper.has_room(99)
            until(lambda seen=num_before: len(tries) > seen)  # type: ignore[misc]
    assert caplog.text.count("cannot be tidied") == 1
    stored(pool, ID, "1.bin", bytes(200), used_s=1.0)
    keeper.has_room(99)
    until(lambda: not list(pool.files()))


def test_closing_ends_the_thread(keep: KeeperMaker) -> None:
    before = set(threading.enumerate())
    keeper = keep()
    assert len(set(threading.enumerate()) - before) == 1
    keeper.close()
    assert not set(threading.enumerate()) - before
