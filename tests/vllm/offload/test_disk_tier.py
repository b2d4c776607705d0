"""The disk tier: a bad file costs a block and never a request."""

from __future__ import annotations

import os
import resource
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.waiting import LONGEST_S, until

from holdfast.errors import ConfigError
from holdfast.pool.block_file import FOOTER_BYTES
from holdfast.pool.directory import PoolDirectory, StoredFile

if TYPE_CHECKING:
    from tests.vllm.offload.conftest import TierMaker, TierRig

pytestmark = pytest.mark.engine

_FILE_BYTES = 8192 + FOOTER_BYTES


def test_stored_blocks_are_found_and_loaded(rig: TierRig) -> None:
    assert rig.store(1, 2, 3).success
    assert rig.finds(2)
    assert not rig.finds(4)
    result = rig.load(1, 2, 3)
    assert result.success
    assert result.transfer_bytes == 3 * 8192
    assert rig.holds(1, 2, 3)


def test_tier_counts_as_disk_in_vllms_metrics(rig: TierRig) -> None:
    assert rig.tier.cache_hit_source.value == "disk"


def test_next_engine_finds_stored_blocks(make_tier: TierMaker) -> None:
    make_tier().store(*range(20))
    after = make_tier()
    assert after.finds(7)
    assert after.load(*range(20)).success
    assert after.holds(*range(20))


def test_engine_of_another_identity_finds_nothing(make_tier: TierMaker) -> None:
    make_tier("one").store(1)
    other = make_tier("other")
    assert not other.finds(1)
    assert not other.load(1).success


def _truncate(path: Path) -> None:
    os.truncate(path, 5000)


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[4000] ^= 1
    path.write_bytes(data)


def _replace(path: Path) -> None:
    path.write_bytes(os.urandom(_FILE_BYTES))


@pytest.mark.parametrize(
    ("damage", "reason"), [(_truncate, "truncated"), (_flip, "corrupt"), (_replace, "foreign")]
)
def test_damaged_block_removed_and_counted(
    rig: TierRig, damage: Callable[[Path], None], reason: str
) -> None:
    rig.store(1, 2)
    damage(rig.path(1))
    assert rig.finds(1)
    result = rig.load(1, 2)
    assert not result.success
    assert not rig.path(1).exists()
    assert rig.counted()["holdfast_pool_refused_blocks"] == {(reason,): 1}
    assert not rig.finds(1)  # else the same request would try again without end


def test_blocks_beside_a_damaged_one_are_loaded(rig: TierRig) -> None:
    rig.store(*range(8))
    _flip(rig.path(3))
    result = rig.load(*range(8))
    from tests.vllm.offload.conftest import key_of

    kept = set(result.successful_keys)
    assert {key_of(0), key_of(1), key_of(2)} <= kept
    assert key_of(3) not in kept
    assert rig.holds(*(chunk for chunk in range(8) if key_of(chunk) in kept))


def test_damaged_block_is_stored_again(rig: TierRig) -> None:
    rig.store(1)
    _truncate(rig.path(1))
    assert rig.store(1).success
    assert rig.load(1).success


def test_failed_load_known_until_the_block_is_stored_again(rig: TierRig) -> None:
    from tests.vllm.offload.conftest import key_of

    rig.store(1, 2)
    _truncate(rig.path(1))
    rig.load(1)
    assert rig.tier.has_failed(key_of(1)) and not rig.tier.has_failed(key_of(2))
    rig.store(1)
    assert not rig.tier.has_failed(key_of(1))


def test_block_of_another_location_is_not_loaded(rig: TierRig) -> None:
    rig.store(1, 2)
    rig.path(2).replace(rig.path(1))
    assert not rig.load(1).success
    assert rig.counted()["holdfast_pool_refused_blocks"] == {("foreign",): 1}


def test_block_removed_after_its_lookup_is_a_miss(rig: TierRig) -> None:
    rig.store(1)
    assert rig.finds(1)
    rig.path(1).unlink()
    assert not rig.load(1).success
    assert rig.counted()["holdfast_pool_refused_blocks"] == {("missing",): 1}
    assert not rig.finds(1)


def test_unreadable_file_is_a_miss_and_stays(rig: TierRig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.store(1)

    def fail(*_: object) -> int:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "preadv", fail)
        assert not rig.load(1).success
    assert rig.counted()["holdfast_pool_refused_blocks"] == {("unreadable",): 1}
    assert rig.load(1).success


def test_full_disk_skips_stores_and_logs_once(
    rig: TierRig, caplog: pytest.LogCaptureFixture
) -> None:
    rig.store(1)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        assert not rig.store(2, 3).success
        assert not rig.store(4).success
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert rig.counted()["holdfast_pool_skipped_blocks"] == {("disk_full",): 3}
    assert caplog.text.count("not written to the pool") == 1
    assert rig.load(1).success
    assert rig.store(2).success


def test_block_is_written_once(rig: TierRig) -> None:
    rig.store(1)
    before = rig.path(1).stat().st_ino
    rig.store(1)
    assert rig.path(1).stat().st_ino == before


def test_stores_skipped_at_the_bound_until_eviction(
    make_tier: TierMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_collect, list_files = threading.Event(), PoolDirectory.files

    def files(pool: PoolDirectory) -> Iterator[StoredFile]:
        may_collect.wait(LONGEST_S)
        return list_files(pool)

    monkeypatch.setattr(PoolDirectory, "files", files)
    rig = make_tier(pool_bytes=10 * _FILE_BYTES)
    assert rig.store(*range(10)).success
    assert not rig.store(10, 11).success
    counts = [rig.counted()]
    assert counts[0]["holdfast_pool_skipped_blocks"] == {("quota",): 2}
    may_collect.set()
    until(lambda: rig.store(10).success)

    def num_removed() -> float:
        counts.append(rig.counted())
        removed = [each.get("holdfast_pool_removed_files", {}) for each in counts]
        return sum(each.get(("evicted",), 0) for each in removed)

    # Another thread removes files, and counts them.
    until(lambda: num_removed() >= 2)


def test_bound_below_one_block_is_refused(make_tier: TierMaker) -> None:
    with pytest.raises(ConfigError, match="smaller than one block"):
        make_tier(pool_bytes=_FILE_BYTES - 1)


def test_expired_block_neither_loads_nor_counts_as_stored(make_tier: TierMaker) -> None:
    rig = make_tier(ttl_s=1000.0)
    rig.store(1, 2)
    for chunk in (1, 2):
        os.utime(rig.path(chunk), (1.0, 1.0))
    assert not rig.load(1).success
    assert rig.counted()["holdfast_pool_refused_blocks"] == {("expired",): 1}
    assert rig.store(2).success
    assert rig.load(2).success


def test_finished_request_marks_its_blocks_used(make_tier: TierMaker) -> None:
    rig = make_tier()
    rig.store(1, 2, 3)
    for chunk in (1, 2, 3):
        os.utime(rig.path(chunk), (1.0, 1.0))
    rig.finish_request(1, 2, 9)
    until(lambda: 1.0 not in {rig.path(chunk).stat().st_mtime for chunk in (1, 2)})
    assert rig.path(3).stat().st_mtime == 1.0


def test_two_engines_share_stored_blocks(make_tier: TierMaker) -> None:
    here, there = make_tier(), make_tier()
    here.store(1)
    there.store(1, 2)
    assert here.load(1, 2).success
    assert there.load(1, 2).success
    assert here.holds(1, 2)


def test_two_engines_store_the_same_blocks_at_once(
    make_tier: TierMaker,
) -> None:
    here, there = make_tier(), make_tier()
    threads = [threading.Thread(target=rig.store, args=range(60)) for rig in (here, there)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert here.load(*range(60)).success
    assert here.holds(*range(60))
    pool = PoolDirectory(here.path(1).parents[4])
    assert len([file for file in pool.files() if file.is_temporary]) == 0


def test_blocks_before_a_reset_load_only_after_a_restart(
    make_tier: TierMaker,
) -> None:
    rig = make_tier()
    rig.store(1)
    rig.tier.drain_jobs()  # as vLLM does for new weights
    assert not rig.load(1).success
    assert rig.store(1).success
    assert rig.load(1).success
    rig.tier.drain_jobs()
    assert not rig.load(1).success
    assert make_tier().load(1).success


def test_stores_skipped_while_the_disk_is_slow(
    make_tier: TierMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    from holdfast.vllm.offload import slow_disk

    monkeypatch.setattr(slow_disk, "_MAX_STORE_S", LONGEST_S)
    detector = slow_disk.SlowDisk()
    rig = make_tier(backpressure_detector=detector)
    may_write, full = threading.Event(), os.writev
    monkeypatch.setattr(os, "writev", lambda *given: (may_write.wait(LONGEST_S), full(*given))[1])
    rig.begin_store(1)
    assert detector.should_store(1)
    monkeypatch.setattr(slow_disk, "_MAX_STORE_S", 0.0)
    assert not detector.should_store(1)
    assert detector.policy.pop_stores_dropped() == (1, 1)
    may_write.set()
    rig.tier.drain_jobs()
    assert detector.should_store(1)


def test_shutdown_leaves_no_thread(make_tier: TierMaker) -> None:
    before = set(threading.enumerate())
    rig = make_tier()
    rig.store(1)
    rig.tier.shutdown()
    assert not set(threading.enumerate()) - before
    rig.tier.shutdown = lambda: None
